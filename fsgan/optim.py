"""The few gradient transformations that optax lacks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fsgan import trees


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


def scale_layers(factors: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiply the updates of chosen layers: learning rates of their own, behind any optimizer.

    `factors` has regular expressions that match a layer's path from its start, as in
    `subspaces.named`: {"stem|block0/norm": 5.0}. Where several match, their factors multiply.
    `init` raises ValueError, listing the names, for one that matches no layer.
    """
    patterns = {text: re.compile(f"({text})(/|$)") for text in factors}

    def check(params):
        names = trees.names(params)
        for text, pattern in patterns.items():
            if not any(map(pattern.match, names)):
                raise ValueError(f"no layer {text!r} to scale among: {', '.join(names)}")
        return optax.EmptyState()

    def update(updates, state, params=None):
        def scale(name, x):
            chosen = (factors[text] for text, pattern in patterns.items() if pattern.match(name))
            return x * math.prod(chosen)

        return trees.map_named(scale, updates), state

    return optax.GradientTransformation(check, update)


class FTRLState(NamedTuple):
    z: Any  # sum of the gradients, less the pull of the former iterates
    n: Any  # sum of the squared gradients


def ftrl(
    learning_rate: float,
    l1: float = 0.0,
    l2: float = 0.0,
    beta: float = 0.0,
    initial_accumulator: float = 0.1,
) -> optax.GradientTransformation:
    """FTRL-Proximal (McMahan et al. 2013, algorithm 1), for each coordinate:

        n <- n + g^2,  sigma = (sqrt(n) - sqrt(n before)) / rate,  z <- z + g - sigma w,
        w <- 0 if |z| <= l1, else -(z - sign(z) l1) / ((beta + sqrt(n)) / rate + l2)

    The published z begins at 0, because its w does. Here it begins so that the closed form gives
    the parameters passed to `init`: fine-tuning starts where it should. Without l1 and l2 this is
    AdaGrad. `update` needs the parameters. ValueError for a rate that is a schedule: the recursion
    has one rate.
    """
    if callable(learning_rate):
        raise ValueError("ftrl slows down by itself: leave its schedule constant")

    def pull(n):
        return (beta + jnp.sqrt(n)) / learning_rate + l2

    def init(params):
        n = jax.tree.map(lambda w: jnp.full_like(w, initial_accumulator), params)
        return FTRLState(jax.tree.map(lambda w, n: -w * pull(n) - jnp.sign(w) * l1, params, n), n)

    def update(gradients, state, params):
        def next_n(g, n):
            return n + g * g

        def next_z(g, w, z, n):
            return z + g - (jnp.sqrt(next_n(g, n)) - jnp.sqrt(n)) / learning_rate * w

        def weight(z, n):
            return -jnp.sign(z) * jnp.maximum(jnp.abs(z) - l1, 0) / pull(n)

        z = jax.tree.map(next_z, gradients, params, *state)
        n = jax.tree.map(next_n, gradients, state.n)
        return jax.tree.map(lambda w, z, n: weight(z, n) - w, params, z, n), FTRLState(z, n)

    return optax.GradientTransformation(init, update)


def lookahead(
    tx: optax.GradientTransformation, period: int, rate: float = 0.5
) -> optax.GradientTransformation:
    """Lookahead (Zhang et al. 2019, algorithm 1): every `period` updates of `tx`, the parameters
    go back to a point `rate` of the way from where they were then.

    Unlike `optax.lookahead` it takes plain parameters, so that it can stand wherever an optimizer
    can, inside as outside. `update` needs the parameters.
    """
    if period < 1:
        raise ValueError(f"lookahead needs a period of 1 or more updates, got {period}")

    def init(params):
        return tx.init(params), params, jnp.zeros((), jnp.int32)

    def update(gradients, state, params):
        inner, slow, count = state
        updates, inner = tx.update(gradients, inner, params)
        fast, back = optax.apply_updates(params, updates), (count + 1) % period == 0
        middle = optax.incremental_update(fast, slow, rate)
        slow = jax.tree.map(lambda m, s: jnp.where(back, m, s), middle, slow)
        end = jax.tree.map(lambda s, f: jnp.where(back, s, f), slow, fast)
        return jax.tree.map(jnp.subtract, end, params), (inner, slow, count + 1)

    return optax.GradientTransformation(init, update)
