"""Energy distance (Szekely and Rizzo 2013): unbiased, for any number of samples from 2 on."""

from __future__ import annotations

from fsgan.metrics._check import check_sets
from fsgan.metrics._distances import distances, mean_of_pairs
from fsgan.types import Array


def compute(real: Array, fake: Array) -> Array:
    """2 E|x - y| - E|x - x'| - E|y - y'| of features [n, d] and [m, d], n and m at least 2.

    Unbiased: pairs of a sample with itself are left out, so that the expectation is 0 for equal
    distributions and single values may be negative.
    """
    check_sets("the energy distance", 2, real=real, fake=fake)
    within = mean_of_pairs(distances(real, real)) + mean_of_pairs(distances(fake, fake))
    return 2 * distances(real, fake).mean() - within
