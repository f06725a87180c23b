"""The few gradient transformations that optax lacks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def first_order() -> optax.GradientTransformation:
    """Take gradients as constants: an inner optimizer chained behind it has no second derivatives.

    `optax.chain(first_order(), tx)` turns MAML into first-order MAML (Finn et al. 2017, section
    5.2): whoever differentiates through the update sees the identity in the parameters.
    """
    return optax.stateless(lambda updates, params: jax.lax.stop_gradient(updates))


def clip_by_norm(largest: float) -> optax.GradientTransformation:
    """Scale updates down to a global norm of `largest` at most.

    `optax.clip_by_global_norm`, but with finite derivatives where all updates are exactly zero, so
    that a meta-learner can differentiate through it.
    """

    def update(updates, params=None):
        square = sum(jnp.square(x).sum() for x in jax.tree.leaves(updates))
        scale = jnp.minimum(1.0, largest * jax.lax.rsqrt(square + 1e-12))
        return jax.tree.map(lambda x: x * scale, updates)

    return optax.stateless(update)
