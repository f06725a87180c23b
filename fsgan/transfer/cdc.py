"""Cross-domain correspondence (Ojha et al. 2021): keep the source's relations between samples.

Distance consistency: how near a few samples are to each other, seen in the features of the
generator, shall be as in the source. And a relaxed discriminator: it judges whole images only near
as many anchor latents as there are target images, elsewhere patches.

The released code averages the divergence of two distributions over its terms, where it is their
sum: see `as_released`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fsgan.transfer import _features
from fsgan.types import Array, Method, Params


def make(
    *,
    weight: float = 1000.0,
    samples: int = 4,
    anchor_every: int = 4,
    anchor_std: float = 0.1,
    block: int = 0,
    as_released: bool = False,
) -> Method:
    """Fine-tuning with distance consistency and the relaxed discriminator.

    Args:
      weight: of the distance consistency.
      samples: latents whose distances are compared, 2 or more.
      anchor_every: the discriminator judges whole images in every so many-th step.
      anchor_std: latents in those steps are an anchor plus normal noise of that deviation.
      block: the block of the discriminator from whose output patches are judged.
      as_released: average the divergence over its terms, too, so that `weight` counts 1 /
        (samples - 1) of what it says.
    """
    if samples < 2:
        raise ValueError(f"cdc compares distances of 2 samples or more, got samples={samples}")

    def start(game, source, real, key):
        anchor_key, head_key = jax.random.split(key)
        outputs = jax.eval_shape(lambda: _features.blocks(game.nets.d, source.d, real))
        if block >= len(outputs):
            raise ValueError(f"the discriminator has no block {block}: {len(outputs)} blocks")
        channels = outputs[block].shape[-1]
        patch = {
            "kernel": jax.random.normal(head_key, (channels,)) / channels**0.5,
            "bias": jnp.zeros(()),
        }
        anchors = jax.random.normal(anchor_key, (len(real), game.latent))
        memory = {"source": source.g, "anchors": anchors, "step": jnp.zeros((), jnp.int32)}
        return source._replace(d={**source.d, "patch": patch}), memory

    def anchored(memory) -> Array:
        return memory["step"] % anchor_every == 0

    def latents(key, z, memory):
        chosen_key, noise_key = jax.random.split(key)
        near = jax.random.choice(chosen_key, memory["anchors"], (len(z),))
        near = near + anchor_std * jax.random.normal(noise_key, z.shape)
        return jnp.where(anchored(memory), near, z)

    def on_patches(game, play) -> tuple[Array, Array]:
        """Logits of all patches of the real and of the generated images."""
        params = play.params.d

        def judge(images: Array) -> Array:
            outputs = _features.blocks(game.nets.d, params, play.augment(images))[block]
            return (outputs @ params["patch"]["kernel"] + params["patch"]["bias"]).ravel()

        return judge(play.real), judge(play.fake)

    def g_loss(game, play, loss):
        loss = jnp.where(anchored(play.memory), loss, game.loss.g(*on_patches(game, play)))
        z_key, layer_key = jax.random.split(play.key)
        z = jax.random.normal(z_key, (samples, game.latent))
        generators = play.memory["source"], play.params.g
        kl = divergence(layer_key, *(similarities(game.nets.g, g, z) for g in generators))
        return loss + weight * (kl / (samples - 1) if as_released else kl)

    def d_loss(game, play, loss):
        return jnp.where(anchored(play.memory), loss, game.loss.d(*on_patches(game, play)))

    def finish(game, before, after, real, metrics):
        return after.replace(memory={**after.memory, "step": after.memory["step"] + 1})

    return Method(start=start, latents=latents, g_loss=g_loss, d_loss=d_loss, finish=finish)


def similarities(net, params: Params, z: Array) -> Array:
    """Cosines [blocks, n, n - 1] of each sample's features with all other samples' features."""
    outputs = _features.blocks(net, params, z)
    return jnp.stack([_features.off_diagonal(_features.cosines(x, x)) for x in outputs])


def divergence(key: Array, source: Array, now: Array) -> Array:
    """KL(softmax of source || softmax of now), similarities [blocks, n, n - 1].

    Each sample is compared in one block, drawn at random; mean over the samples.
    """
    n = source.shape[1]
    block = jax.random.randint(key, (n,), 0, len(source))
    source, now = (jax.nn.log_softmax(x[block, jnp.arange(n)]) for x in (source, now))
    return (jnp.exp(source) * (source - now)).sum(-1).mean()
