"""Euclidean distances and nearest neighbours, computed in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fsgan.types import Array

BUDGET = 2**24  # differences of two values held at once: 64 MiB of float32


def distances(a: Array, b: Array) -> Array:
    """Euclidean distances [n, m] between the rows of a [n, d] and b [m, d].

    From the differences themselves: |a|^2 + |b|^2 - 2ab would lose the small distances, which are
    those that tell a copy from a neighbour.
    """
    square = jnp.square(a[:, None] - b[None]).sum(-1)
    # The small constant keeps derivatives finite where two rows are equal.
    return jnp.sqrt(square + 1e-12)


def rows(function: Callable[[Array], Array], a: Array, b: Array) -> Array:
    """`function(d)` for each row of a [n, d], d [m] being its distances to the rows of b [m, d].

    The results are stacked, [n, ...]. As many rows at a time as `BUDGET` allows.
    """
    chunk = min(len(a), max(1, BUDGET // b.size))
    return jax.lax.map(lambda row: function(distances(row[None], b)[0]), a, batch_size=chunk)


def nearest(a: Array, b: Array) -> Array:
    """The distance [n] from each row of a [n, d] to the nearest row of b [m, d]."""
    return rows(jnp.min, a, b)


def kth_nearest(x: Array, k: int) -> Array:
    """The distance [n] from each row of x [n, d] to its k-th nearest other row, k below n."""
    return rows(lambda d: jnp.sort(d)[k], x, x)  # number 0 is the row itself


def mean_of_pairs(matrix: Array) -> Array:
    """The mean of a matrix [n, n] over all pairs of different samples: its diagonal left out."""
    n = len(matrix)
    return (matrix * (1 - jnp.eye(n, dtype=matrix.dtype))).sum() / (n * (n - 1))
