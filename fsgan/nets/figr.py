"""FIGR's DCGAN (Clouatre & Demers 2019): 5x5 convolutions, nearest upsampling, average pooling.

As released: PReLU with one slope per channel, and layer norm with a scale and a bias for every
single value: `activation` and `affine` are not looked at. 32x32x1 at width 64:
G 2x2x1024 -> 4x4x512 -> ... -> 32x32x64 -> 32x32x1, D 32x32x64 -> 16x16x128 -> ... -> 2x2x1024.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from fsgan.nets import layers
from fsgan.nets._place import Place
from fsgan.types import Array

KERNEL = (5, 5)


class PReLU(nn.Module):
    """max(x, 0) + a min(x, 0), a learned for each channel (He et al. 2015)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        slope = self.param("slope", nn.initializers.constant(0.25), x.shape[-1:])
        return jnp.where(x > 0, x, slope * x)


def blocks(image_shape: Sequence[int]) -> int:
    """How often both sides can be halved, down to 2 pixels."""
    h, w, n = *image_shape[:2], 0
    while h % 2 == w % 2 == 0 and min(h, w) >= 4:
        h, w, n = h // 2, w // 2, n + 1
    return n


class Block(nn.Module):
    """5x5 convolution with PReLU before or after the norm."""

    features: int
    impl: str
    norm_first: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = layers.Conv(self.features, KERNEL, impl=self.impl, name="conv")(x)
        norm, activate = layers.Norm("value", name="norm"), PReLU(name="prelu")
        return activate(norm(x)) if self.norm_first else norm(activate(x))


class Generator(layers.Net):
    """Latents [n, latent] -> images [n, h, w, c] in (-1, 1)."""

    @nn.compact
    def __call__(self, z: Array) -> Array:
        (h, w, channels), n = self.image_shape, blocks(self.image_shape)
        shape = (h >> n, w >> n, self.width * 2**n)
        z = layers.Mapper(self.mapper, self.activation, name="mapper")(z)
        x = nn.Dense(shape[0] * shape[1] * shape[2], name="stem")(z).reshape(-1, *shape)
        x = layers.Norm("value", name="stem_norm")(PReLU(name="stem_prelu")(x))
        for i in reversed(range(n)):
            x = Block(self.width * 2**i, self.impl, name=f"block{n - 1 - i}")(x)
            x = layers.upsample(x)
        x = layers.Conv(channels, KERNEL, impl=self.impl, scale=1.0, name="head")(x)
        return jnp.tanh(Place(self.place, name="place")(x, z))


class Discriminator(layers.Net):
    """Images [n, h, w, c] -> logits [n]; with `features`, (logits, [output of each block])."""

    @nn.compact
    def __call__(self, x: Array, features: bool = False):
        outputs = []
        for i in range(blocks(self.image_shape) + 1):
            x = Block(self.width * 2**i, self.impl, norm_first=True, name=f"block{i}")(x)
            x = layers.downsample(x) if i else x
            outputs.append(x)
        logits = nn.Dense(1, name="head")(x.reshape(len(x), -1))[:, 0]
        return (logits, outputs) if features else logits
