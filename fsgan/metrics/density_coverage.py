"""Density and coverage (Naeem et al. 2020): precision and recall that withstand outliers."""

from __future__ import annotations

from fsgan.metrics._check import check_sets
from fsgan.metrics._distances import kth_nearest, nearest, rows
from fsgan.types import Array, Metrics


def compute(real: Array, fake: Array, *, k: int = 5) -> Metrics:
    """How the fakes [m, d] lie among open balls around the reals [n, d], n and m at least k + 1.

    Each ball is as large as the distance to the k-th nearest real. "density" is the number of balls
    around a fake over k, on average: 1 in expectation for equal distributions, and unbounded.
    "coverage" is the share of balls with a fake in them, from 0 to 1; for equal distributions it is
    1 - prod_{i=1..k} (n - i) / (n + m - i) in expectation, which is 0.97 for k = 5 and n = m.
    """
    check_sets(f"density and coverage with k={k}", k + 1, real=real, fake=fake)
    radii = kth_nearest(real, k)
    return {
        "density": rows(lambda d: (d < radii).sum(), fake, real).mean() / k,
        "coverage": (nearest(real, fake) < radii).mean(),
    }
