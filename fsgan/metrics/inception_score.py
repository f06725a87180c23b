"""Inception score (Salimans et al. 2016), of any classifier: say which one."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fsgan.types import Array, Metrics


def compute(logits: Array, *, splits: int = 10) -> Metrics:
    """exp E KL(p(y|x) || p(y)) of a classifier's logits [n, classes] on generated images.

    From 1 (all alike, or undecided) to `classes`; higher is better. Computed on `splits` parts in
    the order given: "inception_score" is the mean over them and "inception_score_std" their
    standard deviation. ValueError for fewer images than splits. Small parts cannot have many
    classes, so the score grows with n / splits.
    """
    n = len(logits)
    if n < splits:
        raise ValueError(f"the Inception Score in {splits} splits needs {splits} images, got {n}")

    def score(part: Array) -> Array:
        log_p = jax.nn.log_softmax(part)
        log_marginal = jax.nn.logsumexp(log_p, 0) - jnp.log(len(part))
        return jnp.exp((jnp.exp(log_p) * (log_p - log_marginal)).sum(1).mean())

    parts = (logits[i * n // splits : (i + 1) * n // splits] for i in range(splits))
    values = jnp.stack([score(part) for part in parts])
    return {"inception_score": values.mean(), "inception_score_std": values.std()}
