"""Image sets: the sources, their splits, and what they say when something is wrong."""

import os
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from fsgan import data, plugins
from fsgan.data import _cache, glyphs, tfds
from fsgan.data._cache import cached
from fsgan.data._pixels import convert, pixels
from fsgan.types import Images

tfds_dir = pathlib.Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def needs(name):
    """Skips where the TFDS set is not prepared."""
    missing = not (tfds_dir / name).is_dir()
    return pytest.mark.skipif(missing, reason=f"{name} is not prepared in {tfds_dir}")


@pytest.fixture(scope="module")
def characters():
    return {split: data.load("glyphs", split) for split in data.SPLITS}


def same(a: Images, b: Images):
    return data.fingerprint(a) == data.fingerprint(b)


# --- by name ---


def test_importing_needs_nothing_but_numpy_and_jax():
    modules = ["fsgan.data", *(f"fsgan.data.{name}" for name in plugins.names(data))]
    code = (
        "import sys, importlib\n"
        "for name in ('PIL', 'matplotlib', 'tensorflow_datasets', 'array_record'):\n"
        "    sys.modules[name] = None\n"
        f"for name in {modules} + ['fsgan.images', 'fsgan.episodes']:\n"
        "    importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("omniglt", "train"), {}, "unknown data source 'omniglt'; did you mean 'omniglot'.*mnist"),
        (("glyphs", "training"), {}, "unknown split 'training'; did you mean 'train'"),
        (("glyphs", "test"), {"min_image": 3}, "unknown option of glyphs.*'min_images'"),
        (("glyphs", "test"), {"channels": 2}, "channels must be 1"),
        (("glyphs", "test"), {"size": (28, 0)}, "size must be"),
        (("glyphs", "test"), {"classes": "Greek"}, "no class 'Greek': there are"),
        (("glyphs", "test"), {"classes": 188}, "no class 188"),
        (("glyphs", "test"), {"exclude": ("Armenian", "Georgian")}, "no class is left"),
        (("glyphs", "test"), {"test": "Georgia"}, "unknown script.*did you mean 'Georgian'"),
        (("glyphs", "valid"), {"min_images": 9}, "has 9 faces .the most is 8.: lower min_images"),
        (("glyphs", "valid"), {"size": 7}, "7x7 pixels are too few"),
        (("folder", "train"), {}, "say where the images are"),
        (("tfds", "train"), {}, "say which image set"),
        (("no such", "train"), {}, "unknown data source 'no such'"),
    ],
)
def test_wrong_input_is_one_clear_line(arguments, options, message):
    with pytest.raises(ValueError, match=message) as error:
        data.load(*arguments, **options)
    assert "\n" not in str(error.value)


def test_a_set_that_is_not_prepared_says_the_command(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets")
    for where in (str(tmp_path), ""):
        monkeypatch.setenv("TFDS_DATA_DIR", where)
        monkeypatch.setenv("HOME", str(tmp_path))
        data_dir = f", data_dir='{tmp_path}'" if where else ""
        with pytest.raises(FileNotFoundError) as error:
            data.load("cifar10", "train")
        assert "\n" not in str(error.value)
        assert "pip install tensorflow tensorflow-datasets array_record importlib_resources" in str(
            error.value
        )
        assert (
            f"tfds.builder('cifar10'{data_dir}, file_format='array_record').download_and_prepare()"
        ) in str(error.value)
    with pytest.raises(ValueError, match=r"no image set: it has no feature 'image' .it has: label"):
        data.load("ag_news_subset", "train")
    for name, message in (("mnist/x", "x not found"), ("mnist:9.9.9", "at version 9.9.9")):
        with pytest.raises(ValueError, match=message) as error:
            data.load(name, "train")
        assert "\n" not in str(error.value)


def test_select_and_fingerprint():
    labels = np.array([0, 1, 2, 2], np.int32)
    images = Images(np.zeros((4, 2, 2, 1), np.uint8), labels, ("A/x", "A/y", "B/x"))
    assert data.select(images, "A").classes == ("A/x", "A/y")
    assert data.select(images, exclude=["A/y"]).classes == ("A/x", "B/x")
    np.testing.assert_array_equal(data.select(images, exclude=["A/y"]).labels, [0, 1, 1])
    np.testing.assert_array_equal(data.select(images, (2,)).labels, [0, 0])
    assert data.select(images, ["A", 2], ["A/x"]).classes == ("A/y", "B/x")
    assert data.fingerprint(images) == data.fingerprint(data.select(images, ["A", "B"]))
    for other in (
        images._replace(images=images.images + 1),
        images._replace(labels=labels[::-1]),
        images._replace(classes=("A/x", "A/y", "B/z")),
        images._replace(images=images.images.reshape(4, 1, 4, 1)),
    ):
        assert data.fingerprint(other) != data.fingerprint(images)


# --- glyphs ---


def test_glyphs_are_what_the_sampler_expects(characters):
    for images in characters.values():
        assert images.images.dtype == np.uint8
        assert images.images.shape[1:] == (28, 28, 1)
        assert images.labels.dtype == np.int32
        assert len(set(images.classes)) == len(images.classes)
        assert np.bincount(images.labels, minlength=len(images.classes)).min() >= 8
    assert len(characters["train"].classes) > 1000
    assert len(characters["test"].classes) > 150


def test_glyphs_are_visible_centred_and_not_clipped(characters):
    images = np.concatenate([part.images[..., 0] for part in characters.values()])
    assert images.max((1, 2)).min() > 128
    assert images[:, [0, -1]].max() == images[:, :, [0, -1]].max() == 0
    for axis in (1, 2):
        ink = images.max(3 - axis) > 0
        before, after = ink.argmax(1), ink[:, ::-1].argmax(1)
        assert abs(before - after).max() <= 1


def test_whole_scripts_are_held_out(characters):
    scripts = {
        split: {name.split("/")[0] for name in part.classes} for split, part in characters.items()
    }
    assert scripts["test"] == {"Armenian", "Georgian"}
    assert scripts["valid"] == {"Lao"}
    assert scripts["train"] == {"Latin", "Greek", "Cyrillic", "Digit"}


def test_no_held_out_glyph_is_seen_in_training(characters):
    train, valid, test = (
        {image.tobytes() for image in characters[split].images} for split in data.SPLITS
    )
    assert not train & test
    assert not train & valid
    assert not valid & test
    # The Armenian seh has the outline of the Latin u.
    assert "Armenian/small letter seh" not in characters["test"].classes


def test_identical_faces_count_once(characters):
    for part in characters.values():
        labelled = {
            (label, im.tobytes()) for label, im in zip(part.labels, part.images, strict=True)
        }
        assert len(labelled) == len(part.images)


def test_glyphs_of_other_sizes_and_scripts(characters):
    other = data.load("glyphs", "test", size=(40, 24), channels=3, test="Georgian")
    assert other.images.shape[1:] == (40, 24, 3)
    assert {name.split("/")[0] for name in other.classes} == {"Georgian"}
    assert (other.images[..., 0] == other.images[..., 2]).all()
    glyphs._glyphs.cache_clear()
    assert same(data.load("glyphs", "test"), characters["test"])


# --- tensorflow-datasets ---


@pytest.mark.parametrize(
    ("sizes", "valid", "expected"),
    [
        ({"train": 100, "test": 10}, None, ("train[:90]", "train[90:100]", "test")),
        ({"train": 100, "test": 10}, 25, ("train[:75]", "train[75:100]", "test")),
        (
            {"train": 100, "validation": 10, "test": 10},
            None,
            ("train[:100]", "validation", "test"),
        ),
        ({"train": 100, "validation": 10}, None, ("train[:90]", "train[90:100]", "validation")),
        ({"train": 100}, None, ("train[:81]", "train[81:90]", "train[90:]")),
    ],
)
def test_official_splits_are_used_and_the_missing_made_from_train(sizes, valid, expected):
    class Info:
        def __init__(self, n):
            self.num_examples = n

    class Builder:
        name = "x"
        info = Info(0)

    Builder.info.splits = {name: Info(n) for name, n in sizes.items()}
    assert tuple(tfds._instruction(Builder, split, valid) for split in data.SPLITS) == expected
    with pytest.raises(ValueError, match="leaves nothing of the"):
        tfds._instruction(Builder, "train", 100)


@needs("mnist")
def test_mnist():
    valid = data.load("mnist", "valid")
    assert valid.images.shape == (5000, 28, 28, 1)
    assert valid.classes == tuple("0123456789")
    assert valid.images[:, 0].mean() < 10  # white on black
    nines = data.load("mnist", "valid", classes=9)
    np.testing.assert_array_equal(nines.images, valid.images[valid.labels == 9])
    rest = data.load("mnist", "valid", size=8, channels=3, exclude="9")
    assert rest.images.shape == (5000 - len(nines.images), 8, 8, 3)


@needs("mnist")
def test_only_array_records_are_read(monkeypatch):
    import tensorflow_datasets

    builder = tfds.prepared("mnist")
    monkeypatch.setattr(tensorflow_datasets, "builder", lambda *_, **__: builder)
    formats = tensorflow_datasets.core.FileFormat
    monkeypatch.setattr(type(builder.info), "file_format", formats.TFRECORD)
    with pytest.raises(FileNotFoundError, match=r"prepared as tfrecord.* remove .*mnist"):
        data.load("mnist", "test")


@needs("mnist")
def test_validation_images_are_not_trained_on():
    builder = tfds.prepared("mnist")
    parts = [tfds._instruction(builder, split, 5000) for split in data.SPLITS]
    assert parts == ["train[:55000]", "train[55000:60000]", "test"]


@needs("fashion_mnist")
def test_fashion_mnist():
    test = data.load("fashion_mnist", "valid", classes="Sneaker")
    assert test.classes == ("Sneaker",)
    assert 400 < len(test.images) < 600


@needs("omniglot")
def test_omniglot():
    valid = data.load("omniglot", "valid")
    alphabets = {name.split("/")[0] for name in valid.classes}
    assert len(alphabets) == 5
    greek = [name for name in valid.classes if name.startswith("Greek/")]
    assert sorted(greek) == [f"Greek/character{i:02d}" for i in range(1, 25)]
    assert (np.bincount(valid.labels) == 20).all()
    assert valid.images.shape[1:] == (28, 28, 1)
    assert valid.images.max() == 255
    assert 10 < valid.images.mean() < 60  # white on black


@needs("omniglot")
def test_omniglot_splits_partition_the_alphabets(monkeypatch):
    def read(builder, official, *, wanted, **_):
        names = [n for n in builder.info.features["label"].names if wanted(n)]
        return Images(np.zeros(1), np.zeros(1), tuple(names))

    monkeypatch.setattr(tfds, "read", read)

    def alphabets(split, **options):
        return {name.split("/")[0] for name in data.load("omniglot", split, **options).classes}

    train, valid, test = map(alphabets, data.SPLITS)
    assert (len(train), len(valid), len(test)) == (25, 5, 20)
    assert len(train | valid | test) == 50
    assert "Tengwar" in test
    assert alphabets("test", seed=1) == test
    assert alphabets("valid", seed=1) != valid
    assert len(alphabets("valid", valid=3)) == 3
    with pytest.raises(ValueError, match="valid must be 1 to 29 alphabets, got 30"):
        alphabets("train", valid=30)


# --- kept on disk ---


def test_decoded_images_are_kept(tmp_path, monkeypatch):
    made = []

    def make():
        made.append(1)
        return Images(np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1), np.arange(3), ("a", "b"))

    monkeypatch.setenv("HOME", str(tmp_path))
    first = cached(("set", "train", (2, 2)), make)
    again = cached(("set", "train", (2, 2)), make)
    assert len(made) == 1
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.labels, first.labels)
    assert again.classes == first.classes == ("a", "b")
    cached(("set", "train", (4, 4)), make)
    assert len(made) == 2
    files = list((tmp_path / ".cache/fsgan/data").iterdir())
    assert len(files) == 2
    for file in files:
        file.write_bytes(file.read_bytes()[:-30])  # damaged: made anew
    cached(("set", "train", (2, 2)), make)
    assert len(made) == 3
    cached(("set", "train", (2, 2)), make)
    assert len(made) == 3


def test_images_that_cannot_be_kept_are_made_anyway(tmp_path, monkeypatch):
    made = Images(np.zeros((1, 4, 4, 1), np.uint8), np.zeros(1), ("a",))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))  # no folder can be made in there
    assert cached("set", lambda: made) is made
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(_cache, "LARGEST", 10)
    assert cached("set", lambda: made) is made
    assert not (tmp_path / ".cache").exists()


# --- folders ---


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def picture(mode="RGB", size=(20, 10), seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), np.uint8)
    return Image.fromarray(noise).convert("RGB").convert(mode)


MODES = {
    "1.png": picture("1"),
    "L.jpg": picture("L"),
    "LA.png": picture("LA"),
    "P.gif": picture("P"),
    "RGB.webp": picture(),
    "RGB.bmp": picture(),
    "RGBA.png": picture("RGBA"),
    "CMYK.JPEG": picture("CMYK"),
    "I16.png": Image.fromarray(np.full((9, 9), 60000, np.uint16)),
}


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_folder_takes_any_mode(tmp_path, channels):
    for name, image in MODES.items():
        save(image, tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    save(picture(), tmp_path / ".cache" / "a.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = data.load(f"folder:{tmp_path}", "train", size=8, channels=channels)
    assert images.images.shape == (len(MODES), 8, 8, channels or 3)
    assert images.classes == (tmp_path.name,)
    assert len(caught) == (channels == 1)
    sixteen_bit = images.images[sorted(MODES).index("I16.png")]
    assert (sixteen_bit[..., :3] == round(60000 / 257)).all()


def test_folder_detects_the_channels(tmp_path):
    save(picture("L").convert("RGB"), tmp_path / "a.png")
    save(picture("L").convert("RGBA"), tmp_path / "b.png")
    assert data.load("folder", "train", path=str(tmp_path)).images.shape[-1] == 1
    save(picture(), tmp_path / "c.png")
    assert data.load("folder", "train", path=str(tmp_path)).images.shape[-1] == 3
    clear = picture("P")
    clear.info["transparency"] = 0
    clear.putpixel((0, 0), 0)
    save(clear, tmp_path / "d.png", transparency=0)
    assert data.load("folder", "train", path=str(tmp_path)).images.shape[-1] == 4


def test_alpha_goes_onto_white():
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert (pixels(image, (4, 4), 1) == 255).all()
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert (pixels(half, (4, 4), 3) == 127).all()
    assert (convert(np.asarray(half), 4) == np.asarray(half)).all()
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    for channels in (3, 4):
        np.testing.assert_array_equal(convert(convert(grey, channels), 1), grey)


def test_images_are_antialiased_and_cropped_at_the_centre():
    stripes = np.zeros((64, 192), np.uint8)
    stripes[:, 64:128:2] = 255  # grey when shrunk; what lies beyond the middle square is cut off
    shrunk = pixels(Image.fromarray(stripes), (8, 8), 1)[..., 0]
    assert abs(shrunk[:, 1:-1].astype(int) - 127).max() < 25


def test_exif_rotation_is_applied(tmp_path):
    upright = np.zeros((16, 16), np.uint8)
    upright[:4] = 255  # a bar on top
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    stored = Image.fromarray(np.rot90(upright).copy())
    save(stored, tmp_path / "a.png", exif=exif)
    loaded = data.load("folder", "test", path=str(tmp_path), size=16)
    np.testing.assert_array_equal(loaded.images[0, ..., 0], upright)


def test_folders_are_classes_sorted_by_name(tmp_path):
    for number, name in enumerate(["b/2.png", "b/1.png", "a/x.png", "c/deep/y.png"]):
        save(Image.new("L", (4, 4), number), tmp_path / name)
    images = data.load("folder", "valid", path=str(tmp_path), size=4)
    assert images.classes == ("a", "b", "c/deep")
    np.testing.assert_array_equal(images.labels, [0, 1, 1, 2])
    np.testing.assert_array_equal(images.images[:, 0, 0, 0], [2, 1, 0, 3])
    save(picture(), tmp_path / "stray.png")
    with pytest.raises(ValueError, match=r"images both in .* and in its folder 'a'"):
        data.load("folder", "valid", path=str(tmp_path))


def test_split_folders(tmp_path):
    save(Image.new("L", (4, 4), 1), tmp_path / "train" / "a" / "1.png")
    save(Image.new("L", (4, 4), 2), tmp_path / "test" / "a" / "2.png")
    assert data.load("folder", "train", path=str(tmp_path)).images.max() == 1
    assert data.load("folder", "test", path=str(tmp_path)).images.max() == 2
    with pytest.raises(FileNotFoundError, match=r"no folder 'valid' .it has: train, test"):
        data.load("folder", "valid", path=str(tmp_path))


def test_bad_folders_are_one_clear_line(tmp_path):
    def message(path, error=ValueError, **options):
        with pytest.raises(error) as caught:
            data.load("folder", "train", path=str(path), **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "there is no folder" in message(tmp_path / "none", FileNotFoundError)
    (tmp_path / "file").write_text("")
    assert "is a file" in message(tmp_path / "file")
    assert "looked for .png, .jpg" in message(tmp_path, FileNotFoundError)

    save(picture(size=(64, 64)), tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.jpg").write_bytes(b"not a JPEG")
    assert "b.png" in message(tmp_path)
    with pytest.warns(UserWarning, match="c.jpg"), pytest.warns(UserWarning, match="b.png"):
        images = data.load("folder", "train", path=str(tmp_path), skip_bad=True)
    assert len(images.images) == 1
    (tmp_path / "a.png").unlink()
    with pytest.warns(UserWarning, match="c.jpg"), pytest.warns(UserWarning, match="b.png"):
        assert "none of the 2 images" in message(tmp_path, skip_bad=True)
