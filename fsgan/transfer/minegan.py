"""MineGAN (Wang et al. 2020): a small network finds where in latent space the target lies.

The miner M maps latents before the generator, G(M(u)). It is trained first, with the discriminator
but against a fixed generator; then all three.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from fsgan.transfer import _generators
from fsgan.types import Array, Method, Params


class Miner(nn.Module):
    """Latents [n, latent] -> latents [n, latent]: a perceptron."""

    width: int
    layers: int  # hidden ones

    @nn.compact
    def __call__(self, u: Array) -> Array:
        x = u
        for _ in range(self.layers):
            x = nn.leaky_relu(nn.Dense(self.width, kernel_init=nn.initializers.he_normal())(x), 0.2)
        return nn.Dense(u.shape[-1])(x)


def make(*, mine_steps: int = 1000, width: int = 128, layers: int = 2) -> Method:
    """For `mine_steps` steps the generator itself is fixed."""
    miner = Miner(width, layers)

    def mine(params: Params, u: Array) -> Array:
        return miner.apply({"params": params["miner"]}, u)

    def start(game, source, real, key):
        added = miner.init(key, jnp.zeros((1, game.latent)))["params"]
        return source._replace(g={**source.g, "miner": added}), {}

    def finish(game, before, after, real, metrics):
        mining = before.step < mine_steps
        fixed = jax.tree.map(
            lambda old, new: jnp.where(mining, old, new), before.params.g, after.params.g
        )
        g = {**fixed, "miner": after.params.g["miner"]}
        return after.replace(params=after.params._replace(g=g))

    return Method(
        extend=lambda game: _generators.mapped(game, "miner", mine), start=start, finish=finish
    )
