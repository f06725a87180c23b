"""Vendi score (Friedman and Dieng 2023): the effective number of different samples."""

from __future__ import annotations

import jax.numpy as jnp
from jax.scipy.special import entr

from fsgan.metrics._check import check_as_many, check_sets
from fsgan.types import Array, Metrics


def score(features: Array) -> Array:
    """exp of the entropy of the eigenvalues of K / n, K being cosine similarities of [n, d].

    From 1 (all alike) to min(n, d). The eigenvalues are squared singular values of the normalised
    features: more exact in float32 than those of a product.
    """
    unit = features / jnp.maximum(jnp.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    singular = jnp.linalg.svd(unit / jnp.sqrt(len(unit)), compute_uv=False)
    return jnp.exp(entr(jnp.square(singular)).sum())


def compute(real: Array, fake: Array) -> Metrics:
    """ "vendi", the score of the fakes [n, d], and "vendi_real", that of as many reals [n, d].

    The score grows with n, so it says something only beside that of equally many real samples:
    ValueError if there are not.
    """
    check_sets("the Vendi score", 1, real=real, fake=fake)
    check_as_many("the Vendi score", real, fake)
    return {"vendi": score(fake), "vendi_real": score(real)}
