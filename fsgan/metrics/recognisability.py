"""Recognisability: few-shot classification of generated images (Boutin et al. 2022)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fsgan.metrics._distances import distances
from fsgan.types import Array


def compute(
    real_by_class: Array, fake_by_class: Array, key: Array, *, ways: int = 20, trials: int = 500
) -> Array:
    """N-way 1-shot accuracy, from 0 to 1, of a prototypical classifier (Snell et al. 2017).

    Features [classes, n, d] and [classes, m, d] of images of the same classes. A trial draws `ways`
    classes, and of each a real image, its prototype, and a fake: it is recognised if its own
    class's prototype is the nearest. Chance is 1 / ways; real images in the place of the fakes give
    the ceiling. The prototypes should not be the images that the generator has seen. ValueError for
    fewer classes than `ways`, and where the two sides do not match.
    """
    classes, n, d = real_by_class.shape
    if classes < ways or fake_by_class.shape[::2] != (classes, d):
        raise ValueError(
            f"{ways}-way recognisability needs {ways} or more classes and features of one network, "
            f"got [classes, n, d] = {[classes, n, d]} real and {list(fake_by_class.shape)} fake"
        )
    real, fake = jnp.asarray(real_by_class), jnp.asarray(fake_by_class)

    def trial(key: Array) -> Array:
        class_key, real_key, fake_key = jax.random.split(key, 3)
        chosen = jax.random.permutation(class_key, classes)[:ways]
        prototypes = real[chosen, jax.random.randint(real_key, (ways,), 0, n)]
        queries = fake[chosen, jax.random.randint(fake_key, (ways,), 0, fake.shape[1])]
        nearest = distances(queries, prototypes).argmin(1)
        return (nearest == jnp.arange(ways)).mean()

    return jax.lax.map(trial, jax.random.split(key, trials)).mean()
