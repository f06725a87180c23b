"""Pure samplers of batches and few-shot episodes, to be called under jit, vmap and scan.

The images stay on the device as uint8 and are converted when sampled.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fsgan.images import take_classes, to_float
from fsgan.types import Array, Episode, Images, Pool


def with_enough(images: Images, min_images: int = 1) -> Images:
    """The classes with at least `min_images` images, labelled anew; their order stays.

    Raises ValueError if there is none.
    """
    counts = np.bincount(images.labels, minlength=len(images.classes))
    keep = np.flatnonzero(counts >= max(min_images, 1))
    if not len(keep):
        if not len(images.images):
            raise ValueError("no images at all: nothing to sample from")
        most = int(counts.argmax())
        raise ValueError(
            f"no class has {min_images} images: the largest, {images.classes[most]!r}, "
            f"has {counts[most]}; ask for fewer or give more images"
        )
    return images if len(keep) == len(counts) else take_classes(images, keep)


def make_pool(images: Images, *, min_images: int = 1) -> Pool:
    """The image set on the device, sorted by class.

    Classes with fewer than `min_images` images are left out: class i of the pool is
    `with_enough(images, min_images).classes[i]`. Raises ValueError if no class is left.
    """
    images = with_enough(images, min_images)
    order = np.argsort(images.labels, kind="stable")
    count = np.bincount(images.labels, minlength=len(images.classes))
    start = np.cumsum(count) - count
    return Pool(
        jnp.asarray(images.images[order]),
        jnp.asarray(start, jnp.int32),
        jnp.asarray(count, jnp.int32),
    )


def check_pool(pool: Pool, shots: int, queries: int, classes: Sequence[str] = ()) -> None:
    """Raise ValueError if a class is too small for episodes; `classes` are the names it may use.

    To be called on the host, once: under jit the samplers cannot check.
    """
    count = np.asarray(pool.count)
    least, need = int(count.argmin()), shots + queries
    if shots < 1 or queries < 0:
        raise ValueError(f"an episode needs 1 shot or more, got {shots} shots, {queries} queries")
    if count[least] < need:
        name = repr(classes[least]) if len(classes) else str(least)
        short = int((count < need).sum())
        raise ValueError(
            f"shots {shots} + queries {queries} = {need} images, but class {name} has only "
            f"{count[least]} ({short} of {len(count)} classes are too small): ask for fewer"
        )


def batch(key: Array, pool: Pool, n: int) -> Array:
    """n images [n, h, w, c] in [-1, 1], each drawn uniformly from all images of the pool."""
    return to_float(pool.images[jax.random.randint(key, (n,), 0, len(pool.images))])


def distinct(key: Array, count: Array, k: int) -> Array:
    """k different numbers [k] of 0 .. count - 1 in random order, all choices equally likely.

    Floyd's algorithm: its cost depends on k alone, so that `count` may differ between the
    episodes of a vmap. Needs count >= k.
    """
    key_draw, key_order = jax.random.split(key)
    last = count - k + jnp.arange(k)
    draws = jax.random.randint(key_draw, (k,), 0, last + 1)

    def add(i: Array, chosen: Array) -> Array:
        taken = (chosen == draws[i]).any()
        return chosen.at[i].set(jnp.where(taken, last[i], draws[i]))

    chosen = jax.lax.fori_loop(0, k, add, jnp.full(k, -1, last.dtype))
    return jax.random.permutation(key_order, chosen)


@functools.partial(jax.jit, static_argnames=("shots", "queries"))  # fast outside jit, too
def _episode_of(key: Array, pool: Pool, label: Array, shots: int, queries: int) -> Episode:
    index = pool.start[label] + distinct(key, pool.count[label], shots + queries)
    images = to_float(pool.images[index])
    return Episode(images[:shots], images[shots:], label)


def episode(key: Array, pool: Pool, *, shots: int, queries: int) -> Episode:
    """A task: a class drawn uniformly, `shots + queries` different images of it.

    Needs as many images in every class; `check_pool` tells.
    """
    key_class, key_images = jax.random.split(key)
    label = jax.random.randint(key_class, (), 0, len(pool.count), jnp.int32)
    return _episode_of(key_images, pool, label, shots, queries)


def episodes(key: Array, pool: Pool, tasks: int, *, shots: int, queries: int) -> Episode:
    """`tasks` independent tasks, on a leading axis: a class may come more than once."""
    keys = jax.random.split(key, tasks)
    return jax.vmap(lambda key: episode(key, pool, shots=shots, queries=queries))(keys)


def fixed_episodes(
    seed: int, pool: Pool, *, classes: Sequence[int] | None = None, shots: int, queries: int
) -> Episode:
    """One task for each class of the pool, or of `classes` (indices), in order: for evaluation.

    The images of a class depend on the seed and its index alone, not on the other classes asked
    for.
    """
    labels = jnp.arange(len(pool.count)) if classes is None else jnp.asarray(classes)
    labels = labels.astype(jnp.int32)

    def one(label: Array) -> Episode:
        key = jax.random.fold_in(jax.random.key(seed), label)
        return _episode_of(key, pool, label, shots, queries)

    return jax.vmap(one)(labels)
