"""The domain network: what it learns, its loss by hand, its augmentation, its cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from fsgan import data, features
from fsgan.features import domain
from fsgan.images import take_classes, to_float
from fsgan.types import Images

SHAPE = (12, 12, 1)


def gratings(seed, classes=30, each=8):
    """Each class is a frequency, each image a phase: pixels cannot tell such classes apart."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes, dtype=np.int32), each)
    frequency = rng.uniform(-1.5, 1.5, (classes, 2))[labels]
    phase = frequency @ np.mgrid[:12, :12].reshape(2, -1) + rng.uniform(0, 6.28, (len(labels), 1))
    images = (127.5 + 127.5 * np.sin(phase)).astype(np.uint8).reshape(-1, *SHAPE)
    return Images(images, labels, tuple(map(str, range(classes))))


def one_shot(vectors, labels):
    """Accuracy of the nearest first image of each class."""
    support = vectors[np.unique(labels, return_index=True)[1]]
    square = np.square(vectors[:, None] - support).sum(-1)
    return (square.argmin(1) == labels).mean()


OPTIONS = {"steps": 60, "dim": 16, "width": 8}


def test_it_learns_what_makes_a_class_and_is_trained_once(tmp_path, monkeypatch):
    train, held_out = gratings(0), gratings(1)
    space = features.load("domain", SHAPE, images=train, cache=tmp_path, **OPTIONS)
    x = jnp.asarray(held_out.images, jnp.float32) / 127.5 - 1
    vectors = np.asarray(jax.jit(space.apply)(space.params, x))
    np.testing.assert_allclose(np.square(vectors).sum(1), 16, rtol=1e-4)
    pixels = one_shot(np.asarray(x).reshape(len(x), -1), held_out.labels)
    assert one_shot(vectors, held_out.labels) > pixels + 0.1

    trained = []
    monkeypatch.setattr(domain, "train", lambda images, **o: trained.append(o) or space.params)
    again = domain.load(SHAPE, images=train, cache=tmp_path, **OPTIONS)
    assert not trained
    assert again.hash == space.hash
    jax.tree.map(np.testing.assert_array_equal, again.params, space.params)
    other = domain.load(SHAPE, images=held_out, cache=tmp_path, **OPTIONS)
    domain.load(SHAPE, images=train, cache=tmp_path, seed=1, **OPTIONS)
    assert trained == [{"seed": 0, **OPTIONS}, {"seed": 1, **OPTIONS}]
    assert other.name != space.name
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("name", "drawn"), [("glyphs", "73982c6061dc"), ("omniglot", "0d00fe763dbf")]
)
def test_it_comes_with_fsgan(name, drawn, monkeypatch):
    try:
        seen, new = (data.load(name, split) for split in ("train", "valid"))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if data.fingerprint(seen) != drawn:
        pytest.skip("this version of Pillow draws other pixels: a network is trained for them")
    monkeypatch.setattr(domain, "train", None)
    space = domain.load(seen.images.shape[1:], images=seen)
    new = take_classes(new, range(0, len(new.classes), max(1, len(new.classes) // 50)))
    vectors = np.asarray(jax.jit(space.apply)(space.params, to_float(new.images)))
    assert one_shot(vectors, new.labels) > 0.7


def test_a_damaged_file_of_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(domain, "train", lambda *_, **__: {"a": np.zeros(2)})
    images = gratings(0, classes=2)
    with pytest.raises(ValueError, match=r"\.npz lacks .*: it holds the weights of another"):
        domain.load(SHAPE, images=images, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"is no readable .npz file: delete it, and .* train it"):
        domain.load(SHAPE, images=images, cache=tmp_path)


def test_the_loss_by_hand():
    """Two classes, two halves of two images, in two dimensions."""
    angles = np.array([[[0.1, 0.3], [0.2, 0.5]], [[2.0, 1.5], [1.0, 1.8]]])
    unit = np.stack([np.cos(angles), np.sin(angles)], -1)
    losses = []
    for half in (0, 1):
        prototypes = unit[:, 1 - half].mean(1)
        for label in (0, 1):
            for query in unit[label, half]:
                logits = -domain.SCALE * np.square(query - prototypes).sum(1)
                losses.append(np.log(np.exp(logits).sum()) - logits[label])
    found = jax.jit(domain.prototypical_loss)(unit * np.sqrt(2))
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-4)


def test_one_class_is_nothing_to_learn_from():
    with pytest.raises(ValueError, match="need 2 classes of 2 images"):
        domain.train(gratings(0, classes=1), steps=1)


def test_warp_moves_turns_and_zooms_as_scipy_does(key):
    images = np.random.default_rng(0).random((3, 7, 6, 2), np.float32)
    warp = jax.jit(domain.warp)
    still = warp(key, images, shift=0.0, turn=0.0, zoom=0.0)
    np.testing.assert_allclose(still, images, atol=1e-6)
    moved = warp(key, images, shift=2.0, turn=0.5, zoom=0.2)
    assert moved.min() >= images.min()
    assert moved.max() <= images.max()
    keys = jax.random.split(key, 3)  # the draws of `warp`
    move = jax.random.uniform(keys[0], (3, 2), minval=-2, maxval=2)
    angle = jax.random.uniform(keys[1], (3,), minval=-0.5, maxval=0.5)
    factor = 1 + jax.random.uniform(keys[2], (3, 2), minval=-0.2, maxval=0.2)
    for i in range(3):
        c, s = np.cos(angle[i]), np.sin(angle[i])
        grid = np.mgrid[:7, :6].reshape(2, -1) - np.array([[3], [2.5]])
        places = np.array([[c, -s], [s, c]]) @ (np.asarray(factor[i])[:, None] * grid)
        places = places + np.array([[3], [2.5]]) + np.asarray(move[i])[:, None]
        expected = map_coordinates(images[i, ..., 1], places, order=1, mode="nearest")
        np.testing.assert_allclose(moved[i, ..., 1].reshape(-1), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((8, 12, 1), {}, r"of \(12, 12, 1\) do not fit \(8, 12, 1\)"),
        (SHAPE, {"dim": 129}, "1 to 128 dimensions, not dim=129"),
    ],
)
def test_what_does_not_fit(shape, options, message):
    with pytest.raises(ValueError, match=message):
        domain.load(shape, images=gratings(0, classes=2), **options)
