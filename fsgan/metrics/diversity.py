"""Intra-cluster perceptual diversity (intra-LPIPS; Ojha et al. 2021), of any distance."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from fsgan.metrics._check import check_sets
from fsgan.metrics._distances import distances
from fsgan.types import Array, Metrics


def of_distances(to_support: Array, within: Array) -> Metrics:
    """The scores of `compute`, from distances of fakes to support [m, k] and among fakes [m, m]."""
    member = jax.nn.one_hot(to_support.argmin(1), to_support.shape[1])  # [m, k]
    count = member.sum(0)
    between = within * (1 - jnp.eye(len(within)))
    total = jnp.einsum("ik,ij,jk->k", member, between, member, precision="highest")
    means = total / jnp.maximum(count * (count - 1), 1)
    return {
        "diversity": means.mean(),
        "diversity_non_empty": means.sum() / jnp.maximum((count >= 2).sum(), 1),
        "empty_clusters": (count == 0).sum(),
        "assignment_entropy": entr(count / count.sum()).sum(),
    }


def compute(
    support: Array, fake: Array, *, distance: Callable[[Array, Array], Array] = distances
) -> Metrics:
    """How much the samples that resemble the same support image differ from one another.

    Each of the fakes [m, ...] joins the nearest support image of [k, ...]. The diversity of such a
    cluster is the mean distance between its members, 0 if it has fewer than 2; m should be far
    above k. `distance` maps two sets to the matrix of their distances: Euclidean, LPIPS, ...

    Returns "diversity", the mean over all k clusters; "diversity_non_empty", the mean over those
    with 2 members or more, as it was published, which does not see that clusters are missing; the
    number of "empty_clusters"; and "assignment_entropy" in nats, from 0 (all in one cluster) to
    log k (evenly spread). Noise is diverse, too: never read it without a measure of fidelity.
    """
    check_sets("diversity", 1, support=support, fake=fake)
    return of_distances(distance(fake, support), distance(fake, fake))
