"""Pixels at three scales: features that need no training and no weights."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from fsgan.features import _base
from fsgan.types import Array


def features(images: Array) -> Array:
    """Images [n, h, w, c] in [-1, 1] at full, half and quarter size: float32 [n, d].

    The scales count alike: the squared distance of two vectors is the sum over scales of the mean
    squared difference of their pixels. h and w are divisible by 4.
    """
    levels, level = [], images
    for factor in (1, 2, 2):
        n, h, w, c = level.shape
        level = level.reshape(n, h // factor, factor, w // factor, factor, c).mean((2, 4))
        flat = level.reshape(n, -1)
        levels.append(flat / jnp.sqrt(flat.shape[1]))
    return jnp.concatenate(levels, 1)


def load(image_shape: Sequence[int]) -> _base.Features:
    """`features` of images of that shape, (height, width, channels), sides divisible by 4."""
    h, w, _ = image_shape
    if h % 4 or w % 4:
        raise ValueError(f"pixel features need sides divisible by 4, not {h}x{w}")
    name = f"pixels@{h}x{w}"
    return _base.make(name, lambda params, images: features(images), {}, image_shape)
