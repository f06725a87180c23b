"""Weight files: found or told what to do, checked, damaged; the converter as a command."""

import os
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import make_features as golden
from PIL import Image, ImageDraw

from fsgan import features
from fsgan.features import convert, squeezenet, weights
from fsgan.images import to_float

SHAPE = (28, 28, 1)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FSGAN_WEIGHTS", str(tmp_path))
    return tmp_path


def shapes(**arrays):
    return {name: jax.ShapeDtypeStruct(array.shape, jnp.float32) for name, array in arrays.items()}


def refuse(kind, message, function, *args, **options):
    with pytest.raises(kind, match=message) as error:
        function(*args, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("inception", {}, r"inception_fid.npz: get pt_inception-2015-12-05-6726825d.pth"),
        ("inception", {}, r"\(SHA-256 6726825d\) and run python -m fsgan.features.convert inc"),
        ("vgg", {"depth": 19}, r"vgg19.npz: get vgg19-dcbb9e9d.pth \(SHA-256 dcbb9e9d\)"),
        ("squeezenet", {}, r"put squeezenet_v1.1_imagenet.npz \(SHA-256 05728f18"),
        ("lpips", {"size": 64}, r"no weight file .*vgg16.npz"),
        ("squeezenet", {"path": "nowhere.npz"}, "no weight file nowhere.npz"),
    ],
)
def test_a_missing_file_says_its_name_hash_and_what_to_do(folder, name, options, message):
    refuse(FileNotFoundError, message, features.load, name, SHAPE, **options)


def test_the_folder_is_in_the_home_by_default(monkeypatch):
    monkeypatch.delenv("FSGAN_WEIGHTS")
    assert weights.folder() == Path.home() / ".cache/fsgan/weights"


def test_arrays_come_back_as_a_tree_of_float32(folder):
    kernel = np.arange(6, dtype=np.float16).reshape(2, 3)
    weights.save(folder / "new" / "a.npz", {"b/kernel": kernel, "left out": kernel})
    wanted = {"b": shapes(kernel=kernel)}
    params = weights.load("a", wanted, folder / "new" / "a.npz")
    assert params.keys() == {"b"}
    assert params["b"]["kernel"].dtype == jnp.float32
    np.testing.assert_array_equal(params["b"]["kernel"], kernel)
    assert [file.name for file in (folder / "new").iterdir()] == ["a.npz"]


def test_wrong_contents_are_named(folder):
    file, good = folder / "a.npz", np.ones(3, np.float32)
    weights.save(file, {"b": good, "c": np.array([1, np.nan])})
    refuse(
        ValueError, r"a.npz lacks d: .* another network", weights.load, "a", shapes(d=good), file
    )
    refuse(
        ValueError, r"b is \(3,\), but must be \(2,\)", weights.load, "a", shapes(b=good[:2]), file
    )
    refuse(ValueError, r"c is not finite", weights.load, "a", shapes(c=good[:2]), file)


def test_a_damaged_file_is_no_traceback_of_zip(folder):
    file, good = folder / "a.npz", np.ones(1000, np.float32)
    weights.save(file, {"b": good})
    whole = file.read_bytes()
    for damaged in (b"", b"<html>", whole[:-500], whole[:2000] + b"\0" * 20 + whole[2020:]):
        file.write_bytes(damaged)
        refuse(ValueError, "a.npz is no readable .npz", weights.load, "a", shapes(b=good), file)


def test_a_file_of_something_else(folder):
    file, good = folder / "a.npz", np.ones(3, np.float32)
    with open(file, "wb") as stream:
        np.save(stream, good)  # an array without a name
    refuse(ValueError, "a.npz is no readable .npz", weights.load, "a", shapes(b=good), file)
    with zipfile.ZipFile(file, "w") as archive:  # as PyTorch's files are
        archive.writestr("b", "text")
    refuse(ValueError, "b is no array of real numbers", weights.load, "a", shapes(b=good), file)
    for wrong in (np.array(["x", "y", "z"]), good * 1j):
        weights.save(file, {"b": wrong})
        refuse(ValueError, "b is no array of real numbers", weights.load, "a", shapes(b=good), file)


def test_by_name_only_the_published_weights_are_taken(folder):
    good = np.ones(2, np.float32)
    other = r"was converted from a file with SHA-256 {}, not 397923af \(vgg16-397923af.pth\)"
    for source in ("feed", None):
        extra = {} if source is None else {"source": np.array(source)}
        weights.save(folder / "vgg16.npz", {"b": good, **extra})
        message = other.format(source or "unknown")
        refuse(ValueError, message, weights.load, "vgg16", shapes(b=good))
        weights.load("vgg16", shapes(b=good), folder / "vgg16.npz")  # by path anything goes
    weights.save(folder / "vgg16.npz", {"b": good, "source": np.array("397923af00")})
    weights.load("vgg16", shapes(b=good))
    # A file that was published as it is must be that one to the bit.
    weights.save(folder / "squeezenet_v1.1_imagenet.npz", {"b": good})
    wrong = "has SHA-256 .*, not 05728f18"
    refuse(ValueError, wrong, weights.load, "squeezenet_v1.1_imagenet", shapes(b=good))


def test_the_converter_as_a_command(folder, monkeypatch, capsys):
    """With the state dict in place of PyTorch's reading it: the rest is the same."""
    file, output = folder / "squeeze.pth", folder / "own" / "heads.npz"
    file.write_bytes(b"published elsewhere")
    state = {f"lin{i}.model.1.weight": np.full((1, 4, 1, 1), i, np.float64) for i in range(7)}
    state["net.slice1.0.weight"] = np.ones(1)
    monkeypatch.setattr(convert, "read_torch", lambda file: state)
    with pytest.raises(SystemExit, match=r"squeeze.pth has SHA-256 .*, not 4a5350f2.*--output"):
        convert.main(["lpips_squeezenet", str(file)])
    assert not list(folder.glob("*.npz"))
    convert.main(["lpips_squeezenet", str(file), "--output", str(output)])
    assert capsys.readouterr().out == f"{output}\n"
    arrays = weights.read(output)
    assert arrays.keys() == {f"lin{i}" for i in range(7)} | {"source"}
    np.testing.assert_array_equal(arrays["lin6"], np.full(4, 6, np.float32))
    assert str(arrays["source"]) == weights.sha256(file)
    # The right file goes where it is looked for.
    published = weights.Published("squeeze.pth", weights.sha256(file)[:8])
    monkeypatch.setitem(weights.PUBLISHED, "lpips_squeezenet", published)
    convert.main(["lpips_squeezenet", str(file)])
    weights.load("lpips_squeezenet", shapes(lin6=np.ones(4)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vgg17", "x.pth"], "unknown weights 'vgg17'; did you mean"),
        (["vgg16", "x.pth"], "no file x.pth to convert"),
        (["alexnet", "{}/a.h5", "--output", "b.npz"], "only VGG is converted, not alexnet"),
        (["vgg16", "{}/a.pth", "--output", "b.npz"], "weights of another network than vgg16"),
    ],
)
def test_the_converter_refuses_in_one_line(folder, monkeypatch, arguments, message):
    monkeypatch.setattr(convert, "read_torch", lambda file: {"features.0.weight": np.ones(1)})
    for name in ("a.h5", "a.pth"):
        (folder / name).write_bytes(b"")
    with pytest.raises(SystemExit, match=message) as exit:
        convert.main([argument.format(folder) for argument in arguments])
    assert "\n" not in str(exit.value)


def test_without_torch_the_converter_says_so(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    refuse(ValueError, "pip install torch", convert.read_torch, Path("a.pth"))
    refuse(ValueError, "pip install h5py", convert.read_keras, Path("a.h5"))


def real_weights(name):
    """The path of a real weight file beside the data sets; None where there is none."""
    places = [os.environ.get("FSGAN_WEIGHTS")]
    if "TFDS_DATA_DIR" in os.environ:
        places.append(Path(os.environ["TFDS_DATA_DIR"]).parent / "weights")
    files = (Path(place) / f"{name}.npz" for place in places if place)
    return next((file for file in files if file.is_file()), None)


SQUEEZENET = real_weights("squeezenet_v1.1_imagenet")  # before FSGAN_WEIGHTS is set for the tests


@pytest.mark.skipif(SQUEEZENET is None, reason="no squeezenet_v1.1_imagenet.npz in FSGAN_WEIGHTS")
def test_real_squeezenet_sees_what_is_in_an_image(folder, monkeypatch):
    """A drawn traffic light is class 920 of ImageNet's, and less so with red and blue swapped."""
    monkeypatch.setenv("FSGAN_WEIGHTS", str(SQUEEZENET.parent))
    picture = Image.new("RGB", (227, 227), (120, 170, 220))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((85, 20, 142, 180), fill=(30, 30, 30))
    for top, colour in ((30, (255, 30, 20)), (80, (255, 200, 0)), (130, (0, 220, 60))):
        draw.ellipse((92, top, 135, top + 43), fill=colour)
    image = to_float(np.asarray(picture))
    space = squeezenet.load((227, 227, 3), outputs=("conv10",))
    logits = jax.jit(lambda space, x: space(x))(space, jnp.stack([image, image[..., ::-1]]))
    assert logits[0].argmax() == 920
    assert logits[0, 920] > logits[1, 920] + 3


def test_the_caffe_model_takes_bgr_minus_its_mean():
    arrays = {
        f"conv1/{part}": golden.seeded(part, shape)
        for part, shape in {"kernel": (3, 3, 3, 64), "bias": (64,)}.items()
    }
    net = squeezenet.SqueezeNet(("relu1",))
    image = jnp.asarray(golden.images("squeezenet1_1", 1)[:, :17, :17])
    wanted = jax.eval_shape(net.init, jax.random.key(0), image)["params"]
    params = weights.fit(squeezenet.from_caffe(arrays), wanted, Path("a"))
    found = net.apply({"params": params}, image)["relu1"][0, 3, 4]
    pixels = (np.asarray(image[0])[..., ::-1] + 1) * 127.5 - np.array([104, 117, 123])
    window = pixels[2 * 3 : 2 * 3 + 3, 2 * 4 : 2 * 4 + 3]
    expected = np.einsum("hwc,hwco->o", window, arrays["conv1/kernel"]) + arrays["conv1/bias"]
    np.testing.assert_allclose(found, expected.clip(0), 1e-4, 1e-3)
