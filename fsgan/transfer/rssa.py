"""Relaxed spatial structural alignment (RSSA, Xiao et al. 2022): keep the source's structure.

Two consistencies with the source, in the features of the generator's blocks. Self-correlation: how
alike the places of one sample's feature map are. Disturbance correlation: how alike samples of
almost the same latent are, place by place. And latents are compressed towards those from which the
source generator makes images like the target's.

The paper compresses StyleGAN's latents of single layers, less in the later ones; here there is one
latent for all layers, hence one strength.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from fsgan import subspaces
from fsgan.transfer import _features, _generators
from fsgan.types import Array, Game, Method, Pair, Params, everything


def make(
    *,
    self_weight: float = 5.0,
    disturbance_weight: float = 5.0,
    samples: int = 4,
    disturbance: float = 0.1,
    compression: float = 0.5,
    invert_steps: int = 200,
) -> Method:
    """Fine-tuning with both consistencies, on compressed latents.

    Args:
      self_weight, disturbance_weight: of the two consistencies, divergences averaged over places,
        samples and blocks. The released code compares by smooth L1 distances instead, so that its
        weights say nothing here.
      samples: latents that the consistencies look at, 2 or more.
      disturbance: standard deviation of the noise that makes the nearly equal latents.
      compression: 0 leaves latents as they are, 1 projects them onto the span of those found for
        the target images. Their length stays.
      invert_steps: of Adam, to find these.
    """
    if samples < 2:
        raise ValueError(f"rssa compares 2 samples or more, got samples={samples}")
    if not 0 <= compression <= 1:
        raise ValueError(f"compression must be from 0 to 1, got {compression}")

    def compress(params: Params, z: Array) -> Array:
        basis = params["span"]["basis"]
        moved = z + compression * ((z @ basis) @ basis.T - z)
        return moved * jnp.sqrt(jnp.square(z).sum(-1) / jnp.square(moved).sum(-1))[:, None]

    def start(game, source, real, key):
        z = invert(game, source.g, real, key, invert_steps)
        basis, _ = jnp.linalg.qr(z.T)  # [latent, rank], orthonormal columns
        return source._replace(g={**source.g, "span": {"basis": basis}}), source.g

    def g_loss(game, play, loss):
        params = {**play.memory, "span": play.params.g["span"]}, play.params.g
        z_key, noise_key = jax.random.split(play.key)
        z = jax.random.normal(z_key, (samples, game.latent))
        source, now = (maps(game, p, z) for p in params)
        loss = loss + self_weight * divergence(*(map(self_correlation, x) for x in (source, now)))
        near = z[:1] + disturbance * jax.random.normal(noise_key, z.shape)
        source, now = (maps(game, p, near) for p in params)
        correlations = (map(disturbance_correlation, x) for x in (source, now))
        return loss + disturbance_weight * divergence(*correlations)

    return Method(
        subspace=Pair(subspaces.freeze("span"), everything),
        extend=lambda game: _generators.mapped(game, "span", compress),
        start=start,
        g_loss=g_loss,
    )


def invert(game: Game, params: Params, real: Array, key: Array, steps: int) -> Array:
    """Latents [k, latent] from which the generator makes images like `real` [k, h, w, c]."""
    tx = optax.adam(0.05)

    def loss(z: Array) -> Array:
        # The prior's pull, small beside the images': latents stay where the generator knows them.
        images = game.nets.g.apply({"params": params}, z)
        return jnp.square(images - real).mean() + 1e-3 * jnp.square(z).mean()

    def step(state, _):
        z, opt = state
        updates, opt = tx.update(jax.grad(loss)(z), opt, z)
        return (optax.apply_updates(z, updates), opt), None

    z = jax.random.normal(key, (len(real), game.latent))
    (z, _), _ = jax.lax.scan(step, (z, tx.init(z)), length=steps)
    return z


def maps(game: Game, params: Params, z: Array) -> list[Array]:
    """The blocks' feature maps of samples, [n, places, channels] each."""
    return [x.reshape(len(x), -1, x.shape[-1]) for x in _features.blocks(game.nets.g, params, z)]


def self_correlation(x: Array) -> Array:
    """Cosines [n, places, places] of each sample's places with one another, x [n, places, c]."""
    return jax.vmap(_features.cosines)(x, x)


def disturbance_correlation(x: Array) -> Array:
    """Cosines [places, n, n - 1] of each sample with the others at one place, x [n, places, c]."""
    x = x.swapaxes(0, 1)
    return jax.vmap(lambda at: _features.off_diagonal(_features.cosines(at, at)))(x)


def divergence(source, now) -> Array:
    """KL(softmax of source || softmax of now) over the last axis; mean over others and blocks."""
    pairs = [
        (jax.nn.log_softmax(a), jax.nn.log_softmax(b)) for a, b in zip(source, now, strict=True)
    ]
    return sum((jnp.exp(a) * (a - b)).sum(-1).mean() for a, b in pairs) / len(pairs)
