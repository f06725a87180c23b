"""Fisher information: how much a single image's loss depends on each parameter."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn import softplus

from fsgan import gan
from fsgan.types import Array, Game, Pair, Params


def information(loss: Callable[[Params, Array], Array], params: Params, keys: Array) -> Params:
    """The diagonal, E (d loss(params, key) / d params)^2 over the keys, one sample for each."""

    def add(total, key):
        gradient = jax.grad(loss)(params, key)
        return jax.tree.map(lambda t, g: t + jnp.square(g), total, gradient), None

    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), keys)
    return jax.tree.map(lambda t: t / len(keys), total)


def g_score(game: Game, params: Pair, key: Array) -> Array:
    """-log of the probability that one generated image is real, as the discriminator has it."""
    return softplus(-_on_fake(game, params, key))


def d_score(game: Game, params: Pair, real: Array, key: Array) -> Array:
    """-log of the probability that the discriminator is right about one image of `real`, drawn at
    random, and one generated image.
    """
    z_key, real_key = jax.random.split(key)
    image = jax.random.choice(real_key, real)
    on_real = game.nets.d.apply({"params": params.d}, image[None])[0]
    return softplus(-on_real) + softplus(_on_fake(game, params, z_key))


def _on_fake(game: Game, params: Pair, key: Array) -> Array:
    fake = game.nets.g.apply({"params": params.g}, gan.latents(key, 1, game.latent))
    return game.nets.d.apply({"params": params.d}, fake)[0]
