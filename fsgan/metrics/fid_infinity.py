"""FID extrapolated to infinitely many generated images (Chong and Forsyth 2020)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fsgan.metrics import fid
from fsgan.metrics._check import check_sets
from fsgan.types import Array


def compute(real: Array, fake: Array, key: Array, *, points: int = 15) -> Array:
    """The intercept of a line through FID over 1/N of random subsets of N generated images.

    Features are [n, d] and [m, d], n and m at least 20; the `points` subset sizes are evenly spaced
    from m / 10 to m. The paper begins at 5000 images; whatever the number, the bias is a straight
    line in 1/N only where m / 10 is above d. All real images are used each time: their own bias, of
    the order of 1/n, remains. May be negative.
    """
    check_sets("FID infinity", 20, real=real, fake=fake)
    if points < 2:
        raise ValueError(f"FID infinity needs 2 points or more for its line, got {points}")
    m, reference = len(fake), fid.moments(real)
    sizes = np.linspace(m / 10, m, points).round()

    def at(point: tuple[Array, Array]) -> Array:
        size, key = point
        kept = jax.random.permutation(key, m) < size
        return fid.distance(reference, fid.moments(fake, kept))

    values = jax.lax.map(at, (jnp.asarray(sizes), jax.random.split(key, points)))
    x = 1 / sizes - (1 / sizes).mean()
    slope = (x * values).sum() / (x**2).sum()
    return values.mean() - slope * (1 / sizes).mean()
