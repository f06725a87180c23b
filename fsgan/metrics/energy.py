"""Energy distance (Szekely and Rizzo 2013): unbiased, for any number of samples from 2 on."""

from __future__ import annotations

import jax.numpy as jnp

from fsgan.types import Array


def distances(a: Array, b: Array) -> Array:
    """Euclidean distances [n, m] between the rows of a [n, d] and b [m, d]."""
    square = jnp.square(a[:, None] - b[None]).sum(-1)
    # The small constant keeps derivatives finite where two rows are equal.
    return jnp.sqrt(square + 1e-12)


def compute(real: Array, fake: Array) -> Array:
    """2 E|x - y| - E|x - x'| - E|y - y'| of features [n, d] and [m, d], n and m at least 2.

    Unbiased: pairs of a sample with itself are left out, so that the expectation is 0 for equal
    distributions and single values may be negative.
    """
    n, m = len(real), len(fake)
    if min(n, m) < 2:
        raise ValueError(f"the energy distance needs 2 samples a side, got {n} real and {m} fake")

    def within(x: Array, count: int) -> Array:
        between = distances(x, x) * (1 - jnp.eye(count, dtype=x.dtype))
        return between.sum() / (count * (count - 1))

    return 2 * distances(real, fake).mean() - within(real, n) - within(fake, m)
