"""The few gradient transformations that optax lacks."""

from __future__ import annotations

import jax
import optax


def first_order() -> optax.GradientTransformation:
    """Take gradients as constants: an inner optimizer chained behind it has no second derivatives.

    `optax.chain(first_order(), tx)` turns MAML into first-order MAML (Finn et al. 2017, section
    5.2): whoever differentiates through the update sees the identity in the parameters.
    """
    return optax.stateless(lambda updates, params: jax.lax.stop_gradient(updates))
