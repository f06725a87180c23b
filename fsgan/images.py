"""Pixels: uint8 outside, float32 in [-1, 1] inside. The only place that converts."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from fsgan.types import Array, Images


def to_float(images: Array) -> Array:
    """Float32 in [-1, 1] of uint8 images of any shape."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1


def to_uint8(images: Array) -> Array:
    """uint8 of images in [-1, 1], any shape: rounded, clipped beyond. Inverse of `to_float`."""
    return jnp.clip(jnp.round(127.5 * (jnp.asarray(images) + 1)), 0, 255).astype(jnp.uint8)


def take_classes(images: Images, keep: Sequence[int]) -> Images:
    """The classes `keep` (indices) of an image set, labelled anew in the order of `keep`."""
    new = np.full(len(images.classes), -1, np.int32)
    new[list(keep)] = np.arange(len(keep), dtype=np.int32)
    labels = new[images.labels]
    kept = labels >= 0
    return Images(images.images[kept], labels[kept], tuple(images.classes[i] for i in keep))
