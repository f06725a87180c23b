"""L2-SP (Li et al. 2018): weight decay towards the source instead of towards zero."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fsgan.types import Array, Method, Params


def make(*, g_weight: float = 0.1, d_weight: float = 0.1) -> Method:
    """Add weight / 2 times the squared distance of a player's parameters from the source's."""

    def g_loss(game, play, loss):
        return loss + g_weight / 2 * square_distance(play.params.g, play.memory.g)

    def d_loss(game, play, loss):
        return loss + d_weight / 2 * square_distance(play.params.d, play.memory.d)

    return Method(
        start=lambda game, source, real, key: (source, source), g_loss=g_loss, d_loss=d_loss
    )


def square_distance(params: Params, source: Params) -> Array:
    """||params - source||^2 over all leaves of the source."""
    return sum(jax.tree.leaves(jax.tree.map(lambda p, s: jnp.square(p - s).sum(), params, source)))
