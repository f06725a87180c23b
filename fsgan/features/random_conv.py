"""Convolutions with random weights: a feature space without data, for losses and as a baseline.

Random networks separate images well enough to compare distributions by (Saxe et al. 2011;
Naeem et al. 2020), and one seed is the same space for everybody. It is smooth, so that losses in
it can be differentiated twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from fsgan.features import _base
from fsgan.nets import layers
from fsgan.types import Array, Params


def init(seed: int, channels: int, *, width: int, depth: int) -> Params:
    """Kernels 3x3 of `depth` levels, with `width` channels at the first, doubled at each."""
    sizes = [channels, *(width * 2**i for i in range(depth))]
    keys = jax.random.split(jax.random.key(seed), depth)
    scale = 2.8  # keeps mean squares of 1 behind silu
    return {
        f"level{i}": layers.kernel_init(scale)(key, (3, 3, *sizes[i : i + 2]), jnp.float32)
        for i, key in enumerate(keys)
    }


def features(params: Params, images: Array) -> Array:
    """Images [n, h, w, c] in [-1, 1] -> float32 [n, d]: each level after it was halved in size.

    The levels count alike: the squared distance of two vectors is the sum over levels of the mean
    squared difference of their activations. Sides are divisible by two to the number of levels.
    """
    parts, x = [], images
    for kernel in params.values():
        x = layers.downsample(nn.silu(layers.conv(x, kernel)))
        flat = x.reshape(len(x), -1)
        parts.append(flat / jnp.sqrt(flat.shape[1]))
    return jnp.concatenate(parts, 1)


def load(
    image_shape: Sequence[int], *, seed: int = 0, width: int = 32, depth: int = 2
) -> _base.Features:
    """Random features for images (height, width, channels), sides divisible by 2^depth.

    Args:
      image_shape: that of the images to come.
      seed: says which weights.
      width: channels at half of the image's size, doubled at each further level.
      depth: number of levels.
    """
    h, w, c = image_shape
    if depth < 1 or h % 2**depth or w % 2**depth:
        raise ValueError(f"random_conv: {h}x{w} cannot be halved depth={depth} times: choose fewer")
    params = init(seed, c, width=width, depth=depth)
    name = f"random_conv/seed{seed}/{width}x{depth}@{h}x{w}x{c}"
    return _base.make(name, features, params, image_shape, hashed=False)
