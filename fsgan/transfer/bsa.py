"""Batch statistics adaptation (Noguchi and Harada 2019): reconstruct the target images.

Trained are a scale and a shift per channel of the generator and one latent vector for each target
image. There is no adversarial loss: the generator minimises

    |G(z_i) - x_i|_1 + perceptual |F(G(z_i)) - F(x_i)|_1 + emd EMD(z, N(0, I)) + change R,

means over values, R being the mean squared change of scales and shifts in each layer. F are the
block outputs of the source's discriminator, where the paper has a VGG network. The rate is the
released one for scales and shifts; latents, which have 0.05 in the paper, share it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from fsgan import subspaces
from fsgan.transfer import _features, _generators
from fsgan.types import Array, Method, Pair, Params

LEARNING_RATE = 3e-2


def make(
    *,
    perceptual: float = 0.001,
    emd: float = 0.1,
    change: float = 0.02,
    noise: float = 0.01,
    temperature: float = 0.3,
) -> Method:
    """`noise` is added to the latents in training; samples are drawn from N(0, temperature^2)."""

    def extend(game):
        return _generators.mapped(game, "codes", lambda params, z: temperature * z)

    def start(game, source, real, key):
        codes = jax.random.normal(key, (len(real), game.latent))
        return source._replace(g={**source.g, "codes": codes}), {"real": real, "source": source}

    def g_loss(game, play, loss):
        chosen_key, noise_key, emd_key = jax.random.split(play.key, 3)
        params, source, n = play.params.g, play.memory["source"], len(play.z)
        chosen = jax.random.randint(chosen_key, (n,), 0, len(play.memory["real"]))
        codes, real = params["codes"][chosen], play.memory["real"][chosen]
        noisy = codes + noise * jax.random.normal(noise_key, codes.shape)
        fake = game.nets.g.net.apply({"params": params}, noisy)
        f_fake, f_real = (_features.blocks(game.nets.d, source.d, x) for x in (fake, real))
        return (
            jnp.abs(fake - real).mean()
            + perceptual * sum(jnp.abs(a - b).mean() for a, b in zip(f_fake, f_real, strict=True))
            + emd * distance_to_normal(emd_key, codes)
            + change * squared_change(params, source.g)
        )

    return Method(
        subspace=Pair(subspaces.scale_shift(also=".*(bias|scale)|codes"), subspaces.nothing),
        extend=extend,
        start=start,
        g_loss=g_loss,
    )


def distance_to_normal(key: Array, codes: Array) -> Array:
    """Squared distance from each of codes [n, latent] to the nearest of 10 n normal vectors, and
    from each of these to the nearest code: the sum of the two means.
    """
    normal = jax.random.normal(key, (10 * len(codes), codes.shape[-1]))
    square = jnp.square(codes[:, None] - normal).sum(-1)
    return square.min(0).mean() + square.min(1).mean()


def squared_change(params: Params, source: Params) -> Array:
    """Mean squared change of scales and shifts per layer, summed over the layers.

    A kernel that was multiplied by a scale per channel shows it: |W' - W|^2 / |W|^2 of a channel is
    (scale - 1)^2.
    """
    params, total = flatten_dict(params, sep="/"), 0.0
    for name, old in flatten_dict(source, sep="/").items():
        square, axes = jnp.square(params[name] - old), range(old.ndim - 1)
        if subspaces.kernels.is_kernel(name):
            square = square.sum(axes) / jnp.maximum(jnp.square(old).sum(axes), 1e-30)
        total += square.mean()
    return total
