"""Fréchet inception distance (Heusel et al. 2017), of the features of any network."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from fsgan.metrics._check import check_sets
from fsgan.types import Array


class Moments(NamedTuple):
    """Mean and covariance of a set of features."""

    mean: Array  # [d]
    factor: Array  # A [r, d], such that A^T A is the covariance


def moments(features: Array, kept: Array | None = None) -> Moments:
    """The moments of features [n, d], n at least 2; the covariance has n - 1 in its denominator.

    `kept` [n] of booleans chooses the rows that count; without it, all do.
    """
    n, d = features.shape
    weight = jnp.ones(n) if kept is None else 1.0 * kept
    count = weight.sum()
    mean = (weight[:, None] * features).sum(0) / count
    factor = (features - mean) * (weight / jnp.sqrt(count - 1))[:, None]
    # With A = QR, R^T R = A^T A: what comes later depends on d alone, not on the number of samples.
    return Moments(mean, jnp.linalg.qr(factor, mode="r") if n > d else factor)


def distance(real: Moments, fake: Moments) -> Array:
    """|m_r - m_f|^2 + tr(S_r + S_f - 2 (S_r S_f)^(1/2)): the Fréchet distance of two Gaussians.

    With S_r = A^T A and S_f = B^T B, S_r S_f has the eigenvalues of the symmetric A S_f A^T =
    C C^T, C = A B^T, and the trace of its root is the sum of their roots: real numbers, whatever
    the ranks. These roots are the singular values of C. They are taken from C itself, because the
    roots of the eigenvalues of a product keep only half of float32's digits: with 500 samples in
    2048 dimensions, FID is off by 3e-3 that way, and by 4e-7 (relative, to float64) this way.
    """
    product = jnp.matmul(real.factor, fake.factor.T, precision="highest")
    root = jnp.linalg.svd(product, compute_uv=False).sum()
    mean = jnp.square(real.mean - fake.mean).sum()
    return mean + jnp.square(real.factor).sum() + jnp.square(fake.factor).sum() - 2 * root


def compute(real: Array, fake: Array) -> Array:
    """FID of features [n, d] and [m, d], n and m at least 2. Lower is better, from 0 on.

    Biased: the expectation for equal distributions is positive, and large where n or m is not far
    above d. Compare with real against real at the same n and m, and see `fid_infinity`. `moments`
    of a real set that is used often can be kept, for `distance`.
    """
    check_sets("FID", 2, real=real, fake=fake)
    return distance(moments(real), moments(fake))
