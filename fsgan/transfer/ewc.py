"""Elastic weight consolidation for the generator (Li et al. 2020).

What matters to the source may move less: the penalty weighs each parameter's squared change by its
Fisher information, E_z (d log D(G(z)) / d parameter)^2 of the source networks.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fsgan.transfer import _fisher
from fsgan.types import Array, Method, Params


def make(*, weight: float = 0.01, samples: int = 1000) -> Method:
    """Add `weight` times the penalty to the generator's loss.

    The Fisher information, estimated from so many generated images, is divided by its mean over
    all parameters. So `weight` does not depend on the network's scale; that of the paper, for raw
    information, is larger by the mean's inverse. The default was chosen on MNIST's validation
    digits: with 1 the generator stays where it is.
    """

    def start(game, source, real, key):
        fisher = _fisher.information(
            lambda g, key: _fisher.g_score(game, source._replace(g=g), key),
            source.g,
            jax.random.split(key, samples),
        )
        return source, {"source": source.g, "fisher": normalised(fisher)}

    def g_loss(game, play, loss):
        return loss + weight * penalty(play.params.g, **play.memory)

    return Method(start=start, g_loss=g_loss)


def normalised(fisher: Params) -> Params:
    """Divided by its mean over all parameters."""
    leaves = jax.tree.leaves(fisher)
    mean = sum(leaf.sum() for leaf in leaves) / sum(leaf.size for leaf in leaves)
    return jax.tree.map(lambda leaf: leaf / jnp.maximum(mean, 1e-30), fisher)


def penalty(params: Params, source: Params, fisher: Params) -> Array:
    """sum fisher (params - source)^2."""
    terms = jax.tree.map(lambda p, s, f: (f * jnp.square(p - s)).sum(), params, source, fisher)
    return sum(jax.tree.leaves(terms))
