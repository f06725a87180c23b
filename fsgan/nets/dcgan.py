"""DCGAN (Radford et al. 2016): 4x4 convolutions of stride 2, here with layer norm for BatchNorm.

28x28x1 at width 64: G 7x7x128 -> 14x14x64 -> 28x28x1, D 14x14x64 -> 7x7x128 -> 1.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from fsgan.nets import layers
from fsgan.nets._place import Place
from fsgan.types import Array

KERNEL, STRIDES, PADDING = (4, 4), (2, 2), ((1, 1), (1, 1))


class Up(nn.Module):
    """[n, h, w, c] -> [n, 2h, 2w, features]: transposed convolution, norm, activation."""

    features: int
    activation: str
    affine: str
    impl: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = layers.ConvTranspose(
            self.features, KERNEL, STRIDES, PADDING, use_bias=False, impl=self.impl, name="conv"
        )(x)
        return layers.activation(self.activation)(layers.Norm(self.affine, name="norm")(x))


class Down(nn.Module):
    """[n, 2h, 2w, c] -> [n, h, w, features]: convolution, activation."""

    features: int
    activation: str
    impl: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = layers.Conv(self.features, KERNEL, STRIDES, PADDING, impl=self.impl, name="conv")(x)
        return layers.activation(self.activation)(x)


class Generator(layers.Net):
    """Latents [n, latent] -> images [n, h, w, c] in (-1, 1)."""

    @nn.compact
    def __call__(self, z: Array) -> Array:
        *finer, coarsest = self.channels()
        z = layers.Mapper(self.mapper, self.activation, name="mapper")(z)
        x = layers.Stem(self.coarsest(), coarsest, self.affine, name="stem")(z)
        x = layers.activation(self.activation)(x)
        for i, features in enumerate(reversed(finer)):
            x = Up(features, self.activation, self.affine, self.impl, name=f"block{i}")(x)
        x = layers.ConvTranspose(
            self.image_shape[-1], KERNEL, STRIDES, PADDING, impl=self.impl, scale=1.0, name="head"
        )(x)
        return jnp.tanh(Place(self.place, name="place")(x, z))


class Discriminator(layers.Net):
    """Images [n, h, w, c] -> logits [n]; with `features`, (logits, [output of each block])."""

    @nn.compact
    def __call__(self, x: Array, features: bool = False):
        outputs = []
        for i, channels in enumerate(self.channels()):
            x = Down(channels, self.activation, self.impl, name=f"block{i}")(x)
            outputs.append(x)
        dense = nn.Dense(1, kernel_init=layers.kernel_init(1.0), name="head")
        logits = dense(x.reshape(len(x), -1))[:, 0]
        return (logits, outputs) if features else logits
