"""Feature spaces: what all of them have in common, and those that need no weight file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fsgan import features
from fsgan.features import _base, _nets, inception, random_conv

SHAPE = (28, 28, 1)


@pytest.mark.parametrize("name", ["pixels", "random_conv"])
def test_a_space_is_a_pytree_and_a_pure_function(key, name):
    space = features.load(name, SHAPE)
    images = jax.random.uniform(key, (3, *SHAPE), minval=-1)
    vectors = jax.jit(space.apply)(space.params, images)
    assert vectors.shape == (3, space.dim)
    assert vectors.dtype == jnp.float32
    inside = jax.jit(lambda space, images: space(images))(space, images)
    np.testing.assert_allclose(inside, vectors, 1e-5, 1e-6)
    assert space.hash == features.load(name, SHAPE).hash
    assert features.load(name, (32, 28, 1)).hash != space.hash


def test_the_hash_tells_weights_and_settings_apart():
    params = {"a": {"b": jnp.arange(3.0)}, "c": jnp.ones(2)}
    same = {"c": np.ones(2, np.float32), "a": {"b": np.arange(3, dtype=np.float32)}}
    one = _base.fingerprint("net", params)
    assert one == _base.fingerprint("net", same)
    others = [
        _base.fingerprint("net2", params),
        _base.fingerprint("net", {**params, "c": jnp.ones(1)}),
        _base.fingerprint("net", {**params, "c": jnp.array([1.0, 1.0000001])}),
        _base.fingerprint("net", {"a": {"d": jnp.arange(3.0)}, "c": jnp.ones(2)}),
    ]
    assert len({one, *others}) == 5


def test_random_features_follow_from_the_seed_and_differentiate_twice(key):
    spaces = [random_conv.load((8, 8, 1), seed=seed, width=4) for seed in (0, 0, 1)]
    assert spaces[0].hash == spaces[1].hash != spaces[2].hash
    images = jax.random.uniform(key, (2, 8, 8, 1), minval=-1)
    embed = jax.jit(lambda params: random_conv.features(params, images))
    first, again, other = (embed(space.params) for space in spaces)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, atol=0.1)

    def loss(images):
        return jnp.square(spaces[0](images)).sum()

    curved = jax.jit(lambda x: jax.jvp(jax.grad(loss), (x,), (jnp.ones_like(x),))[1])(images)
    assert jnp.isfinite(curved).all()
    assert jnp.abs(curved).max() > 1e-3


def test_random_levels_count_alike():
    """Mean squares of the order of 1, whatever the level and the size of the images."""
    for side in (8, 32):
        space = random_conv.load((side, side, 1), width=16)
        vector = np.asarray(jax.jit(space.apply)(space.params, jnp.ones((1, side, side, 1))))
        levels = np.split(vector, [(side // 2) ** 2 * 16], 1)
        assert all(0.2 < np.square(level).sum() < 5 for level in levels)


def test_random_distances_grow_with_the_change(key):
    space = random_conv.load(SHAPE)
    image, noise = jax.random.uniform(key, (2, 1, *SHAPE), minval=-1)
    steps = jnp.concatenate([image + t * (noise - image) for t in (0, 0.1, 0.3, 1)])
    vectors = jax.jit(space.apply)(space.params, steps)
    distance = jnp.square(vectors - vectors[0]).sum(1)
    assert (jnp.diff(distance) > 0).all()


@pytest.mark.parametrize(
    ("shape", "name", "options", "message"),
    [
        (SHAPE, "random", {}, "unknown feature space 'random'; did you mean 'random_conv'"),
        (SHAPE, "random_conv", {"widht": 3}, "unknown option of random_conv 'widht'"),
        (SHAPE, "random_conv", {"depth": 3}, "28x28 cannot be halved depth=3 times"),
        ((30, 28, 1), "pixels", {}, "sides divisible by 4, not 30x28"),
        ((28, 28, 4), "squeezenet", {}, "1 or 3"),
        ((28, 28, 1), "vgg", {"size": None}, "VGG needs images of 32x32 or more, got 28x28"),
        (SHAPE, "vgg", {"depth": 13}, "depth 16 or 19, not 13"),
        (SHAPE, "vgg", {"outputs": ("relu6_1",)}, "unknown output of VGG 'relu6_1'; did you mean"),
        (SHAPE, "vgg", {"outputs": ("fc6",), "size": 64}, "224x224.*not 2x2"),
        (SHAPE, "inception", {"resize": "tf"}, "unknown resize 'tf'.*clean_fid, pytorch_fid"),
        (SHAPE, "inception", {"output": "pool2"}, "unknown output 'pool2'"),
        (SHAPE, "lpips", {"backbone": "vgg19"}, "unknown backbone 'vgg19'; did you mean 'vgg16'"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(shape, name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        features.load(name, shape, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 32, 28, 1), np.float32), r"of \(28, 28, 1\), got \(32, 28, 1\): load"),
        (np.zeros((2, *SHAPE[:2], 3), np.float32), r"of \(28, 28, 1\), got \(28, 28, 3\)"),
        (np.zeros(SHAPE, np.float32), r"of \(28, 28, 1\), got \(28, 1\)"),
        (np.zeros((2, *SHAPE), np.uint8), r"floats in \[-1, 1\], got uint8: convert"),
        (np.full((2, *SHAPE), 255.0), r"in \[-1, 1\], got magnitudes up to 255: scale them"),
        (np.full((2, *SHAPE), -2.0), r"in \[-1, 1\], got magnitudes up to 2"),
        (np.full((2, *SHAPE), np.nan), r"in \[-1, 1\], got magnitudes up to nan"),
    ],
)
def test_images_of_the_wrong_shape_or_range_are_refused(images, message):
    space = features.load("pixels", SHAPE)
    with pytest.raises(ValueError, match=message) as error:
        space(images)
    assert "\n" not in str(error.value)
    if "magnitudes" not in message:  # known when it is compiled
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(space, images)


def test_rounding_is_no_wrong_range():
    space = features.load("pixels", SHAPE)
    assert space(jnp.full((1, *SHAPE), 1.0001)).shape == (1, space.dim)


@pytest.mark.parametrize("size", [(28, 28), (320, 450), (299, 310)])
def test_the_resize_of_clean_fid_is_pillows(size):
    """Larger and smaller; float images, as the package does it, and clipped. Pillow's weights are
    float64: hence a hundredth of a grey level."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.float32)
    channels = [Image.fromarray(pixels[..., c], mode="F") for c in range(3)]
    channels = [np.asarray(c.resize((299, 299), Image.Resampling.BICUBIC)) for c in channels]
    expected = np.stack(channels, -1).clip(0, 255)
    method, antialias, _ = inception.RESIZES["clean_fid"]
    resized = inception.resized(jnp.asarray(pixels / 127.5 - 1)[None], method, antialias)
    np.testing.assert_allclose((resized[0] + 1) * 127.5, expected, atol=0.01)


@pytest.mark.parametrize("size", [(28, 30), (300, 100)])
def test_the_resize_of_the_others_is_pillows_bilinear(size):
    pixels = np.random.default_rng(0).random((*size, 1), np.float32)
    image = Image.fromarray(pixels[..., 0], mode="F")
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR))
    prepared = _nets.prepare(jnp.asarray(pixels)[None], (64, 64))
    assert prepared.shape == (1, 64, 64, 3)
    for channel in range(3):
        np.testing.assert_allclose(prepared[0, ..., channel], expected, atol=1e-5)


def test_pooling_by_hand():
    @jax.jit
    def pooled(x):
        halved = (_nets.max_pool(x, 3, 2, ceil=ceil) for ceil in (False, True))
        same = _nets.max_pool(x, 3, 1, pad=1), _nets.mean_pool(x, 3)
        return [y[0, ..., 0] for y in (*halved, *same)]

    x = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
    floor, ceil, largest, mean = pooled(x)
    np.testing.assert_array_equal(floor, [[10]])
    np.testing.assert_array_equal(ceil, [[10, 11]])
    np.testing.assert_array_equal(largest, [[5, 6, 7, 7], [9, 10, 11, 11], [9, 10, 11, 11]])
    assert mean[0, 0] == (0 + 1 + 4 + 5) / 4
    assert mean[1, 1] == x[0, :, :3].mean()
