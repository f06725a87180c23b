"""Kernel inception distance (Binkowski et al. 2018): unbiased, for few samples."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fsgan.metrics._check import check_sets
from fsgan.metrics._distances import mean_of_pairs
from fsgan.types import Array, Metrics


def kernel(x: Array, y: Array) -> Array:
    """The cubic kernel (x.y / d + 1)^3 [n, m] of the rows of x [n, d] and y [m, d]."""
    return (jnp.matmul(x, y.T, precision="highest") / x.shape[1] + 1) ** 3


def mmd2(x: Array, y: Array) -> Array:
    """The unbiased squared maximum mean discrepancy of x [n, d] and y [m, d] (Gretton et al. 2012,
    eq. 3); n and m at least 2."""
    within = mean_of_pairs(kernel(x, x)) + mean_of_pairs(kernel(y, y))
    return within - 2 * kernel(x, y).mean()


def scaled(real: Array, *others: Array) -> tuple[Array, ...]:
    """All features by one factor, so that the mean square of the real ones is 1.

    The cubic kernel needs that: it adds 1 to x.y / d, and where that is small, as in spaces whose
    vectors have length 1, it is linear and compares means alone. Domain features stay as they are.
    """
    factor = jax.lax.rsqrt(jnp.square(real).mean() + 1e-12)
    return tuple(factor * x for x in (real, *others))


def compute(
    real: Array, fake: Array, key: Array, *, subsets: int = 100, size: int = 1000
) -> Metrics:
    """KID of features [n, d] and [m, d], n and m at least 4: the mean of `mmd2` over subsets.

    A subset has half of the samples of each side, drawn without replacement, and `size` at most.
    Unbiased: 0 in expectation for equal distributions, and single values may be negative. Often
    printed times 1000, which this is not.

    Returns "kid" and "kid_error", its standard error: what to expect from other n and m samples.
    That is not the spread over subsets (often printed instead), which says as much about their size
    as about the score; it is the delete-d jackknife (Shao and Wu 1989), and errs on the large side
    where KID is near 0.
    """
    check_sets("KID", 4, real=real, fake=fake)
    if min(subsets, size) < 2:
        raise ValueError(f"KID needs 2 subsets of 2 or more, got {subsets} of {size}")
    sides = [(jnp.asarray(x), min(size, len(x) // 2)) for x in (real, fake)]
    # Overlapping subsets vary less than independent ones. The side that was thinned least decides:
    # for the other side this counts too much, never too little.
    scale = max(chosen / (len(x) - chosen) for x, chosen in sides)

    def subset(key: Array, x: Array, chosen: int) -> Array:
        return x[jax.random.permutation(key, len(x))[:chosen]]

    def one(key: Array) -> Array:
        keys = jax.random.split(key)
        return mmd2(*(subset(k, *side) for k, side in zip(keys, sides, strict=True)))

    values = jax.lax.map(one, jax.random.split(key, subsets))
    return {"kid": values.mean(), "kid_error": values.std(ddof=1) * scale**0.5}
