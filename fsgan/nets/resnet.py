"""A small residual pair: pre-activation blocks of two 3x3 convolutions (He et al. 2016), the
generator normed and upsampling as in SNGAN (Miyato et al. 2018), the discriminator without norm as
in R3GAN (Huang et al. 2024).

28x28x1 at width 64: G 7x7x128 -> 14x14x64 -> 28x28x64 -> 28x28x1, D 14x14x64 -> 7x7x128 -> 1.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from fsgan.nets import layers
from fsgan.nets._place import Place
from fsgan.types import Array


class Up(nn.Module):
    """[n, h, w, c] -> [n, 2h, 2w, features]."""

    features: int
    activation: str
    affine: str
    impl: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        act = layers.activation(self.activation)
        y = layers.upsample(act(layers.Norm(self.affine, name="norm0")(x)))
        y = layers.Conv(self.features, impl=self.impl, name="conv0")(y)
        y = act(layers.Norm(self.affine, name="norm1")(y))
        y = layers.Conv(self.features, impl=self.impl, name="conv1")(y)
        # A 1x1 convolution commutes with upsampling: it is cheaper before.
        x = layers.Conv(
            self.features, (1, 1), use_bias=False, impl=self.impl, scale=1.0, name="skip"
        )(x)
        return (layers.upsample(x) + y) / 2**0.5  # the sum keeps the variance of its terms


class Down(nn.Module):
    """[n, 2h, 2w, c] -> [n, h, w, features]. The first block sees an image: nothing to activate."""

    features: int
    activation: str
    impl: str
    first: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        act = layers.activation(self.activation)
        y = layers.Conv(self.features, impl=self.impl, name="conv0")(x if self.first else act(x))
        y = layers.Conv(self.features, impl=self.impl, name="conv1")(act(y))
        x = layers.Conv(
            self.features, (1, 1), use_bias=False, impl=self.impl, scale=1.0, name="skip"
        )(layers.downsample(x))
        return (x + layers.downsample(y)) / 2**0.5


class Generator(layers.Net):
    """Latents [n, latent] -> images [n, h, w, c] in (-1, 1)."""

    @nn.compact
    def __call__(self, z: Array) -> Array:
        channels = self.channels()
        z = layers.Mapper(self.mapper, self.activation, name="mapper")(z)
        x = layers.Stem(self.coarsest(), channels[-1], self.affine, name="stem")(z)
        for i, features in enumerate([*reversed(channels[:-1]), channels[0]]):
            x = Up(features, self.activation, self.affine, self.impl, name=f"block{i}")(x)
        x = layers.activation(self.activation)(layers.Norm(self.affine, name="norm")(x))
        x = layers.Conv(self.image_shape[-1], impl=self.impl, scale=1.0, name="head")(x)
        return jnp.tanh(Place(self.place, name="place")(x, z))


class Discriminator(layers.Net):
    """Images [n, h, w, c] -> logits [n]; with `features`, (logits, [output of each block])."""

    @nn.compact
    def __call__(self, x: Array, features: bool = False):
        outputs = []
        for i, channels in enumerate(self.channels()):
            x = Down(channels, self.activation, self.impl, first=i == 0, name=f"block{i}")(x)
            outputs.append(x)
        x = layers.activation(self.activation)(x).mean((1, 2))
        logits = nn.Dense(1, kernel_init=layers.kernel_init(1.0), name="head")(x)[:, 0]
        return (logits, outputs) if features else logits
