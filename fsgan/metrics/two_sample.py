"""1-nearest-neighbour two-sample test (Lopez-Paz and Oquab 2017; Xu et al. 2018)."""

from __future__ import annotations

import jax.numpy as jnp

from fsgan.metrics._check import check_as_many, check_sets
from fsgan.metrics._distances import kth_nearest, nearest
from fsgan.types import Array, Metrics


def compute(real: Array, fake: Array) -> Metrics:
    """How often a sample's nearest other sample is of its own kind, for features [n, d] each.

    Leave-one-out accuracies from 0 to 1: "two_sample" of all samples, "two_sample_real" of the
    reals and "two_sample_fake" of the fakes. 0.5 is ideal: above it the sets can be told apart,
    below it one repeats the other. Few modes, or copies of a few images: high for the fakes. Equal
    distances to both kinds count half. ValueError for fewer than 2 samples or for sets of different
    size, for which 0.5 would not be the ideal.
    """
    check_sets("the two-sample accuracy", 2, real=real, fake=fake)
    check_as_many("the two-sample accuracy", real, fake)

    def accuracy(own: Array, other: Array) -> Array:
        difference = nearest(own, other) - kth_nearest(own, 1)
        return (1 + jnp.sign(difference)).mean() / 2

    on_real, on_fake = accuracy(real, fake), accuracy(fake, real)
    return {
        "two_sample": (on_real + on_fake) / 2,
        "two_sample_real": on_real,
        "two_sample_fake": on_fake,
    }
