"""LPIPS, the learned perceptual distance of Zhang et al. (2018), version 0.1, as a feature space.

The paper's eq. 1 is a weighted squared difference of unit vectors, so that with the roots of the
weights multiplied in, LPIPS is the squared Euclidean distance of two feature vectors: all pairs of
n images cost n passes through the network, not n squared.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from fsgan import plugins
from fsgan.features import _base, _nets, weights
from fsgan.features._base import Features
from fsgan.features.alexnet import AlexNet
from fsgan.features.squeezenet import SqueezeNet
from fsgan.features.vgg import VGG
from fsgan.types import Array, Params

# Network and the weights that the heads were fitted to.
BACKBONES = {
    "alexnet": (AlexNet(("relu1", "relu2", "relu3", "relu4", "relu5")), "alexnet"),
    "squeezenet": (
        SqueezeNet(("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")),
        "squeezenet1_1",
    ),
    "vgg16": (VGG(("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")), "vgg16"),
}


def distance(a: Array, b: Array) -> Array:
    """LPIPS between the rows of two feature arrays [..., d]: [...]."""
    return jnp.square(a - b).sum(-1)


def embed(net: _nets.Net, size: Sequence[int], params: Params, images: Array) -> Array:
    """Vectors [n, d] whose squared distances are LPIPS."""
    maps = net.apply({"params": params["backbone"]}, _nets.prepare(images, size)).values()
    parts = []
    for x, head in zip(maps, params["heads"].values(), strict=True):
        # The small constant keeps derivatives finite where all channels are 0.
        unit = x * lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-20)
        n, h, w, _ = x.shape
        parts.append((unit * jnp.sqrt(head / (h * w))).reshape(n, -1))
    return jnp.concatenate(parts, 1)


def load(
    image_shape: Sequence[int],
    *,
    backbone: str = "vgg16",
    size: int | None = None,
    path: str | None = None,
    heads: str | None = None,
) -> Features:
    """Vectors whose squared Euclidean distance is LPIPS, many numbers: 1.9 million at 128x128.

    Args:
      image_shape: (height, width, 1 or 3) of the images to come.
      backbone: "vgg16", "squeezenet" or "alexnet".
      size: side to which images are resized (bilinear); None, the original, leaves them as they
        are. State it with the score: distances change with it.
      path: an .npz file of your own for the backbone.
      heads: the same for the weights of the channels, "lin0", "lin1", ... [c], none negative.

    Raises ValueError or FileNotFoundError, see `features.load`.
    """
    if backbone not in BACKBONES:
        raise plugins.unknown("backbone", backbone, BACKBONES)
    net, name = BACKBONES[backbone]
    (h, w), shapes = _nets.expected(net, image_shape, size)
    images = jax.ShapeDtypeStruct((1, h, w, 3), jnp.float32)
    maps = jax.eval_shape(lambda p, x: net.apply({"params": p}, x), shapes, images)
    channels = {
        f"lin{i}": jax.ShapeDtypeStruct(maps[out].shape[-1:], jnp.float32)
        for i, out in enumerate(net.outputs)
    }
    params = {
        "backbone": weights.load(name, shapes, path),
        "heads": weights.load(f"lpips_{backbone}", channels, heads),
    }
    if any((head < 0).any() for head in params["heads"].values()):
        raise ValueError("LPIPS weighs squared differences: its heads cannot be negative")
    apply = functools.partial(embed, net, (h, w))
    return _base.make(f"lpips_{backbone}@{h}x{w}", apply, params, image_shape)
