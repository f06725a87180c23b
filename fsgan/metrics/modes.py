"""Mode coverage from predicted labels, as on Stacked MNIST (Metz et al. 2017)."""

from __future__ import annotations

import jax.numpy as jnp
from jax.scipy.special import entr

from fsgan.types import Array, Metrics


def compute(labels: Array, *, classes: int) -> Metrics:
    """Which of the `classes` a classifier finds in generated images: labels [n], 0 to classes - 1.

    Returns "modes", the number of classes found, and "modes_kl", the Kullback-Leibler divergence of
    their frequencies from the uniform distribution in nats, from 0 (even) to log(classes) (all in
    one). Even for uniform labels it is about (classes - 1) / 2n. Stacked MNIST has 1000 classes,
    labels 100 a + 10 b + c, and by custom 26,000 samples. ValueError without samples.
    """
    if not len(labels):
        raise ValueError("mode coverage needs 1 label or more, got 0")
    count = jnp.bincount(labels, length=classes)
    return {
        "modes": (count > 0).sum(),
        "modes_kl": jnp.log(classes) - entr(count / len(labels)).sum(),
    }
