"""Samplers: disjoint support and query, fair, deterministic, scan-able."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsgan import episodes
from fsgan.images import to_uint8
from fsgan.types import Images

COUNTS = (3, 7, 4, 10)  # images per class


def image_set() -> Images:
    """Image i of class c has the pixels (c, i); the images are in random order."""
    labels = np.repeat(np.arange(len(COUNTS)), COUNTS)
    number = np.concatenate([np.arange(count) for count in COUNTS])
    pixels = np.stack([labels, number], -1).astype(np.uint8).reshape(-1, 1, 2, 1)
    order = np.random.default_rng(0).permutation(len(labels))
    return Images(pixels[order], labels[order].astype(np.int32), tuple("abcd"))


def ids(images):
    """(class, number) of sampled images [..., 1, 2, 1]."""
    return np.asarray(to_uint8(images))[..., 0, :, 0]


def test_pool_is_sorted_by_class():
    pool = episodes.make_pool(image_set())
    assert pool.images.dtype == jnp.uint8
    np.testing.assert_array_equal(pool.count, COUNTS)
    for label, (start, count) in enumerate(zip(pool.start, COUNTS, strict=True)):
        assert (np.asarray(pool.images)[start : start + count, 0, 0, 0] == label).all()


def test_pool_leaves_out_small_classes():
    images = image_set()
    pool = episodes.make_pool(images, min_images=5)
    np.testing.assert_array_equal(pool.count, [7, 10])
    assert episodes.with_enough(images, 5).classes == ("b", "d")
    assert set(np.asarray(pool.images)[:, 0, 0, 0]) == {1, 3}
    with pytest.raises(ValueError, match="no class has 11 images: the largest, 'd', has 10"):
        episodes.make_pool(images, min_images=11)


def test_check_pool_names_the_class_that_is_too_small():
    pool = episodes.make_pool(image_set())
    episodes.check_pool(pool, 1, 2)
    message = r"shots 2 \+ queries 3 = 5 images, but class 'a' has only 3 \(2 of 4 classes"
    with pytest.raises(ValueError, match=message):
        episodes.check_pool(pool, 2, 3, "abcd")
    with pytest.raises(ValueError, match="class 0 has only 3"):
        episodes.check_pool(pool, 2, 3)
    with pytest.raises(ValueError, match="1 shot or more"):
        episodes.check_pool(pool, 0, 3)


def test_episodes_are_of_one_class_and_without_repetition(key):
    pool = episodes.make_pool(image_set(), min_images=4)  # b, c, d; 4 of c: all of it
    tasks = jax.jit(lambda k: episodes.episodes(k, pool, 200, shots=1, queries=3))(key)
    assert tasks.support.shape == (200, 1, 1, 2, 1)
    assert tasks.query.shape == (200, 3, 1, 2, 1)
    assert tasks.support.dtype == jnp.float32
    both = ids(jnp.concatenate([tasks.support, tasks.query], 1))
    kept = np.array([1, 2, 3])[np.asarray(tasks.label)]
    assert (both[..., 0] == kept[:, None]).all()
    assert all(len(set(numbers)) == 4 for numbers in both[..., 1])
    assert (both[..., 1] < np.array(COUNTS)[kept][:, None]).all()
    assert set(np.asarray(tasks.label)) == {0, 1, 2}


def test_every_ordered_choice_is_equally_likely(key):
    draw = jax.jit(jax.vmap(lambda k: episodes.distinct(k, jnp.int32(4), 2)))
    drawn = np.asarray(draw(jax.random.split(key, 6000)))
    pairs, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(pairs) == 12
    assert (pairs[:, 0] != pairs[:, 1]).all()
    chi2 = ((counts - 500) ** 2 / 500).sum()
    assert chi2 < 31.3  # the 99.9% point at 11 degrees of freedom


def test_batch_is_uniform_over_images(key):
    pool = episodes.make_pool(image_set())
    images = jax.jit(lambda k: episodes.batch(k, pool, 4800))(key)
    assert images.shape == (4800, 1, 2, 1)
    assert images.min() >= -1
    _, counts = np.unique(ids(images), axis=0, return_counts=True)
    assert len(counts) == sum(COUNTS)
    assert ((counts - 200) ** 2 / 200).sum() < 49.7  # the 99.9% point at 23 degrees of freedom


def test_fixed_episodes_depend_on_seed_and_class_alone():
    pool = episodes.make_pool(image_set())
    every = episodes.fixed_episodes(3, pool, shots=2, queries=1)
    np.testing.assert_array_equal(every.label, range(4))
    some = episodes.fixed_episodes(3, pool, classes=[2, 1], shots=2, queries=1)
    np.testing.assert_array_equal(some.label, [2, 1])
    np.testing.assert_array_equal(some.support, every.support[np.array([2, 1])])
    again = episodes.fixed_episodes(4, pool, shots=2, queries=1)
    assert (again.support != every.support).any()


def test_the_key_decides_and_classes_keep_their_order(key):
    images = image_set()
    one = episodes.episode(key, episodes.make_pool(images), shots=2, queries=1)
    same = episodes.episode(key, episodes.make_pool(images), shots=2, queries=1)
    np.testing.assert_array_equal(one.support, same.support)
    # Reordering across classes changes nothing: only the order within a class is the pool's.
    by_class = np.argsort(images.labels, kind="stable")
    moved = Images(images.images[by_class], images.labels[by_class], images.classes)
    other = episodes.episode(key, episodes.make_pool(moved), shots=2, queries=1)
    np.testing.assert_array_equal(one.query, other.query)


def test_samplers_are_scan_bodies(key):
    pool = episodes.make_pool(image_set())

    def body(key, _):
        key, sub = jax.random.split(key)
        return key, episodes.episode(sub, pool, shots=1, queries=1).label

    _, labels = jax.jit(lambda k: jax.lax.scan(body, k, None, length=50))(key)
    assert set(np.asarray(labels)) == {0, 1, 2, 3}
