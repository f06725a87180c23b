"""Dual contrastive learning (Zhao et al. 2022, A Closer Look at Few-shot Image Generation).

Two contrastive losses for the generator, in the features of two networks. To the generators, the
adapted one's features of a latent shall be nearest to the source's of the same latent, among those
of other latents. To the discriminator, an adapted image shall be nearer to the source's image of
the same latent than to the target images.

No code was released: weights and temperature could not be checked against any.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax.nn import logsumexp

from fsgan.transfer._features import blocks, cosines, off_diagonal
from fsgan.types import Array, Method


def make(*, g_weight: float = 2.0, d_weight: float = 0.5, temperature: float = 0.07) -> Method:
    """Weights of the losses in the features of either player, each a mean over its blocks."""

    def g_loss(game, play, loss):
        (g, d), source = game.nets, play.memory
        ours, theirs = (blocks(g, params, play.z) for params in (play.params.g, source))
        in_g = [
            contrast(jnp.diagonal(near), off_diagonal(near), temperature)
            for near in map(cosines, ours, theirs)
        ]
        images = play.fake, g.apply({"params": source}, play.z), play.real
        now, before, real = (blocks(d, play.params.d, x) for x in images)
        in_d = [
            contrast(jnp.diagonal(cosines(a, b)), cosines(a, x), temperature)
            for a, b, x in zip(now, before, real, strict=True)
        ]
        return loss + g_weight * sum(in_g) / len(in_g) + d_weight * sum(in_d) / len(in_d)

    return Method(start=lambda game, source, real, key: (source, source.g), g_loss=g_loss)


def contrast(own: Array, others: Array, temperature: float) -> Array:
    """Mean of -log(e^own / (e^own + sum of e^others)), cosines [n] and [n, m] over temperature."""
    logits = jnp.concatenate([own[:, None], others], 1) / temperature
    return (logsumexp(logits, 1) - logits[:, 0]).mean()
