"""Networks against PyTorch's with equal weights, through the converters: golden/make_features.py.

The golden file has no weights: both sides make them, by `golden.make_features.seeded`.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import make_features as golden

from fsgan.features import _nets, alexnet, convert, inception, lpips, squeezenet, vgg, weights

GOLDEN = dict(np.load(golden.FILE))
SHAPES = json.loads(str(GOLDEN.pop("shapes")))


@functools.cache
def converted(name):
    """The weights as a converter makes them of a seeded state dict."""
    state = {key: golden.seeded(key, tuple(shape)) for key, shape in SHAPES[name].items()}
    return convert.CONVERTERS[name](state)


def outputs(name):
    """{output: 64 numbers} of the golden file."""
    found = (key.split("/") for key in GOLDEN)
    return {output[0]: GOLDEN[f"{n}/{output[0]}"] for n, *output in found if n == name and output}


def run(name, net, arrays):
    """The net's outputs for the golden images, jitted."""
    images = jnp.asarray(golden.images(name))
    shapes = jax.eval_shape(net.init, jax.random.key(0), images)["params"]
    params = weights.fit(arrays, shapes, name)
    return jax.jit(lambda p, x: net.apply({"params": p}, x))(params, images)


NETS = {
    "alexnet": alexnet.AlexNet,
    "squeezenet1_1": squeezenet.SqueezeNet,
    "vgg16": functools.partial(vgg.VGG, depth=16),
    "vgg19": functools.partial(vgg.VGG, depth=19),
    "inception_fid": inception.Inception,
}


@pytest.mark.parametrize("name", NETS)
def test_features_equal_those_of_pytorch(name):
    expected = outputs(name)
    assert len(expected) >= 3
    arrays, names = dict(converted(name)), tuple(expected)
    if name == "squeezenet1_1":
        names = (*(n for n in names if n != "logits"), "conv10")
    if name == "inception_fid":
        _, _, scale = inception.RESIZES["pytorch_fid"]
        arrays |= {f"input/{part}": np.full(3, value) for part, value in scale.items()}
    found = dict(run(name, NETS[name](names), arrays))
    if name == "squeezenet1_1":
        found["logits"] = found.pop("conv10").mean((1, 2))
    assert found.keys() == expected.keys()
    for output, values in found.items():
        numbers = golden.some(f"{name}/{output}", values)
        size = np.abs(expected[output]).max()
        np.testing.assert_allclose(numbers, expected[output], 1e-4, 1e-4 * size, err_msg=output)


def test_the_resize_of_pytorch_fid_is_pytorchs():
    method, antialias, _ = inception.RESIZES["pytorch_fid"]
    for size in ((28, 28), (320, 311)):
        image = golden.seeded(f"{size}", (1, 3, *size)).transpose(0, 2, 3, 1)
        scale = np.abs(image).max()  # keeps it clear of the clipping
        resized = scale * inception.resized(jnp.asarray(image / scale), method, antialias)
        name = f"{size[0]}x{size[1]}"
        expected = GOLDEN[f"interpolate/{name}"]
        np.testing.assert_allclose(
            golden.some(f"interpolate/{name}", resized), expected, atol=1e-5 * scale
        )


def test_inception_scales_as_its_package_does_and_has_its_sizes():
    image = np.random.default_rng(0).integers(0, 256, (1, 2, 2, 3)).astype(np.float32)
    for resize, expected in {
        "clean_fid": (image - 128) / 128,
        "pytorch_fid": 2 * (image / 255) - 1,
    }.items():
        _, _, scale = inception.RESIZES[resize]
        params = {name: jnp.full(3, value) for name, value in scale.items()}
        found = _nets.Input().apply({"params": params}, image / 127.5 - 1)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    images = jax.ShapeDtypeStruct((2, 75, 80, 3), jnp.float32)
    for output, dim in {"pool3": 2048, "logits": 1008, "logits_unbiased": 1008}.items():
        net = inception.Inception((output,))
        found, params = jax.eval_shape(net.init_with_output, jax.random.key(0), images)
        assert found[output].shape == (2, dim)
        assert ("bias" in params["params"].get("fc", {})) == (output == "logits")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of weights that holds all that LPIPS needs."""
    monkeypatch.setenv("FSGAN_WEIGHTS", str(tmp_path))

    def save(name):
        source = np.array(weights.PUBLISHED[name].sha256)
        weights.save(tmp_path / f"{name}.npz", {**converted(name), "source": source})

    return save


@pytest.mark.parametrize("backbone", lpips.BACKBONES)
def test_lpips_equals_the_package_and_is_a_distance_of_vectors(folder, backbone):
    name = lpips.BACKBONES[backbone][1]
    folder(name)
    folder(f"lpips_{backbone}")
    space = lpips.load((*golden.SIZES[name], 3), backbone=backbone)
    vectors = jax.jit(lambda space, x: space(x))(space, jnp.asarray(golden.images(name)))
    assert vectors.shape == (2, space.dim)
    np.testing.assert_allclose(lpips.distance(*vectors), GOLDEN[f"lpips_{backbone}"], rtol=1e-4)


def test_lpips_has_gradients_for_black_channels_and_no_negative_heads(folder):
    net, params = squeezenet.SqueezeNet(("relu1",)), {"heads": {"lin0": np.ones(64)}}
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 17, 17, 3)))["params"]
    params["backbone"] = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes)
    params["backbone"]["input"]["std"] += 1
    gradient = jax.grad(lambda x: lpips.embed(net, (17, 17), params, x).sum())
    assert np.isfinite(jax.jit(gradient)(np.ones((1, 17, 17, 1), np.float32))).all()
    converted.cache_clear()
    heads = converted("lpips_squeezenet")
    heads["lin3"][5] = -1
    folder("squeezenet1_1")
    folder("lpips_squeezenet")
    with pytest.raises(ValueError, match="cannot be negative"):
        lpips.load((64, 64, 3), backbone="squeezenet")
    converted.cache_clear()


def test_dense_layers_of_vgg_keep_their_meaning():
    """fc6 of PyTorch sees the maps channels first, of Keras and here channels last."""
    rng = np.random.default_rng(0)
    maps, dense = rng.normal(size=(2, 7, 7, 512)), rng.normal(size=(3, 512 * 7 * 7))
    state = {key: np.zeros(shape) for key, shape in SHAPES["vgg16"].items()}
    state |= {"classifier.0.weight": dense, "classifier.0.bias": np.zeros(3)}
    kernel = convert.CONVERTERS["vgg16"](state)["fc6/kernel"]
    expected = np.einsum("nhwc,ochw->no", maps, dense.reshape(3, 512, 7, 7))
    np.testing.assert_allclose(maps.reshape(2, -1) @ kernel, expected, 1e-9, 1e-9)


def test_keras_vgg_is_vgg_with_its_own_input():
    ours = converted("vgg16")
    theirs = {}
    for name in {key.split("/")[0] for key in ours} - {"input"}:
        kernel = ours[f"{name}/kernel"]
        kernel = kernel[:, :, ::-1] if name == "conv1_1" else kernel  # BGR
        theirs[f"block{name[4]}_conv{name[6]}"] = [kernel, ours[f"{name}/bias"]]
    back = convert.from_keras_vgg(theirs, 16)
    assert back.keys() == ours.keys()
    for name, array in back.items():
        if not name.startswith("input"):
            np.testing.assert_array_equal(array, ours[name])
    # Keras: RGB 0..255 to BGR, minus (103.939, 116.779, 123.68).
    image = np.random.default_rng(0).random((1, 2, 2, 3), np.float32) * 2 - 1
    params = {part: back[f"input/{part}"] for part in ("mean", "std")}
    found = _nets.Input().apply({"params": params}, image)
    expected = ((image + 1) * 127.5)[..., ::-1] - np.array([103.939, 116.779, 123.68])
    np.testing.assert_allclose(found[..., ::-1], expected, atol=1e-4)
    with pytest.raises(ValueError, match="VGG16 has no block3_conv4"):
        convert.from_keras_vgg(theirs | {"block3_conv4": theirs["block3_conv3"]}, 16)
