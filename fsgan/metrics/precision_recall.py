"""Improved precision and recall (Kynkäänniemi et al. 2019)."""

from __future__ import annotations

from fsgan.metrics._check import check_sets
from fsgan.metrics._distances import kth_nearest, rows
from fsgan.types import Array, Metrics


def compute(real: Array, fake: Array, *, k: int = 3) -> Metrics:
    """The share of each set of features [n, d] and [m, d] that lies in the other's neighbourhood.

    A set's neighbourhood is made of closed balls around its samples, each as large as the distance
    to its k-th nearest neighbour; n and m at least k + 1. "precision", of the fakes among the
    reals, and "recall", of the reals among the fakes, are from 0 to 1; higher is better. One
    outlier makes a ball that covers everything: see `density_coverage`.
    """
    check_sets(f"precision and recall with k={k}", k + 1, real=real, fake=fake)

    def share(points: Array, centres: Array) -> Array:
        radii = kth_nearest(centres, k)
        return rows(lambda d: (d <= radii).any(), points, centres).mean()

    return {"precision": share(fake, real), "recall": share(real, fake)}
