"""Inception-v3 as FID needs it: TensorFlow's network of 2015-12-05 with its 1008 classes.

Features are comparable with published FIDs only if three things are right, all of which differ
from torchvision's network: the weights (ported to PyTorch by pytorch-fid), average pooling that
does not count the border's zeros and a max-pooling in the last block, and the resize. BatchNorm is
folded into the convolutions (Szegedy et al. 2016; Heusel et al. 2017; Parmar et al. 2022).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from fsgan import plugins
from fsgan.features import _base, _nets, weights
from fsgan.features._base import Features
from fsgan.types import Array, Params

POOLS = {
    "mean": lambda x: _nets.mean_pool(x, 3),
    "max": lambda x: _nets.max_pool(x, 3, 1, pad=1),
    "halve": lambda x: _nets.max_pool(x, 3, 2),
}


def _conv(name: str, features: int, kernel: Sequence[int] = (1, 1), *, halve: bool = False):
    """What `_nets.conv_relu` is to be called with."""
    strides, padding = ((2, 2), "VALID") if halve else ((1, 1), "SAME")
    size = {"features": features, "kernel": kernel}
    return {"name": name, **size, "strides": strides, "padding": padding}


# A block is branches side by side. A branch is a chain of poolings, convolutions, and tuples of
# convolutions that are put side by side.
def _block_a(pooled: int) -> list:
    return [
        [_conv("branch1x1", 64)],
        [_conv("branch5x5_1", 48), _conv("branch5x5_2", 64, (5, 5))],
        [
            _conv("branch3x3dbl_1", 64),
            _conv("branch3x3dbl_2", 96, (3, 3)),
            _conv("branch3x3dbl_3", 96, (3, 3)),
        ],
        ["mean", _conv("branch_pool", pooled)],
    ]


def _block_b() -> list:
    return [
        [_conv("branch3x3", 384, (3, 3), halve=True)],
        [
            _conv("branch3x3dbl_1", 64),
            _conv("branch3x3dbl_2", 96, (3, 3)),
            _conv("branch3x3dbl_3", 96, (3, 3), halve=True),
        ],
        ["halve"],
    ]


def _block_c(c: int) -> list:
    return [
        [_conv("branch1x1", 192)],
        [
            _conv("branch7x7_1", c),
            _conv("branch7x7_2", c, (1, 7)),
            _conv("branch7x7_3", 192, (7, 1)),
        ],
        [
            _conv("branch7x7dbl_1", c),
            _conv("branch7x7dbl_2", c, (7, 1)),
            _conv("branch7x7dbl_3", c, (1, 7)),
            _conv("branch7x7dbl_4", c, (7, 1)),
            _conv("branch7x7dbl_5", 192, (1, 7)),
        ],
        ["mean", _conv("branch_pool", 192)],
    ]


def _block_d() -> list:
    return [
        [_conv("branch3x3_1", 192), _conv("branch3x3_2", 320, (3, 3), halve=True)],
        [
            _conv("branch7x7x3_1", 192),
            _conv("branch7x7x3_2", 192, (1, 7)),
            _conv("branch7x7x3_3", 192, (7, 1)),
            _conv("branch7x7x3_4", 192, (3, 3), halve=True),
        ],
        ["halve"],
    ]


def _block_e(pool: str) -> list:
    def cross(name: str) -> tuple:
        return _conv(f"{name}a", 384, (1, 3)), _conv(f"{name}b", 384, (3, 1))

    return [
        [_conv("branch1x1", 320)],
        [_conv("branch3x3_1", 384), cross("branch3x3_2")],
        [
            _conv("branch3x3dbl_1", 448),
            _conv("branch3x3dbl_2", 384, (3, 3)),
            cross("branch3x3dbl_3"),
        ],
        [pool, _conv("branch_pool", 192)],
    ]


BLOCKS = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _block_b(),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _block_d(),
    "Mixed_7b": _block_e("mean"),
    "Mixed_7c": _block_e("max"),
}


class Mixed(nn.Module):
    """A block of `BLOCKS`, by its name."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def link(x: Array, part) -> Array:
            if isinstance(part, str):
                return POOLS[part](x)
            if isinstance(part, tuple):
                return jnp.concatenate([link(x, one) for one in part], -1)
            return _nets.conv_relu(**part)(x)

        branches = [functools.reduce(link, branch, x) for branch in BLOCKS[self.name]]
        return jnp.concatenate(branches, -1)


class Inception(_nets.Net):
    """Outputs: the names of PyTorch's layers, and pool3 [n, 2048], logits [n, 1008].

    `logits_unbiased` leaves the last layer's bias out: so does the original Inception Score.
    """

    smallest = 75

    def layers(self):
        stem = [
            _conv("Conv2d_1a_3x3", 32, (3, 3), halve=True),
            _conv("Conv2d_2a_3x3", 32, (3, 3)) | {"padding": "VALID"},
            _conv("Conv2d_2b_3x3", 64, (3, 3)),
            "maxpool1",
            _conv("Conv2d_3b_1x1", 80),
            _conv("Conv2d_4a_3x3", 192, (3, 3)) | {"padding": "VALID"},
            "maxpool2",
        ]
        for part in stem:
            if isinstance(part, str):
                yield part, POOLS["halve"]
            else:
                yield part["name"], _nets.conv_relu(**part)
        for name in BLOCKS:
            yield name, Mixed(name=name)
        yield "pool3", lambda x: x.mean((1, 2))
        bias = "logits_unbiased" not in self.outputs
        yield "logits" if bias else "logits_unbiased", nn.Dense(1008, use_bias=bias, name="fc")


RESIZES = {
    # Pillow's antialiased bicubic on float images, clipped, and TensorFlow's (x - 128) / 128.
    "clean_fid": ("bicubic", True, {"mean": 128.0, "std": 128.0}),
    # PyTorch's bilinear without antialiasing, and [-1, 1].
    "pytorch_fid": ("bilinear", False, {"mean": 127.5, "std": 127.5}),
}


def load(
    image_shape: Sequence[int],
    *,
    output: str = "pool3",
    resize: str = "clean_fid",
    path: str | None = None,
) -> Features:
    """Inception features of images resized to 299x299.

    Args:
      image_shape: (height, width, 1 or 3) of the images to come.
      output: "pool3" (2048, for FID and KID), "logits" or "logits_unbiased" (1008).
      resize: "clean_fid" or "pytorch_fid", whose numbers the scores are to be compared with. Both
        packages read 8-bit images: round to those first.
      path: an .npz file of your own instead of inception_fid.npz.

    Raises ValueError or FileNotFoundError, see `features.load`.
    """
    if resize not in RESIZES:
        raise plugins.unknown("resize", resize, RESIZES)
    if output not in ("pool3", "logits", "logits_unbiased"):
        raise plugins.unknown("output", output, ("pool3", "logits", "logits_unbiased"))
    method, antialias, scale = RESIZES[resize]
    net = Inception((output,))
    _, shapes = _nets.expected(net, image_shape, 299)
    own = {f"input/{name}": jnp.full(3, value) for name, value in scale.items()}
    params = weights.load("inception_fid", shapes, path, adapt=lambda arrays: arrays | own)

    def apply(params: Params, images: Array) -> Array:
        return net.apply({"params": params}, resized(images, method, antialias))[output]

    return _base.make(f"inception_fid/{output}/{resize}", apply, params, image_shape)


def resized(images: Array, method: str, antialias: bool) -> Array:
    """[n, h, w, 1 or 3] in [-1, 1] -> [n, 299, 299, 3], clipped to that range."""
    images = _base.resize(_base.rgb(images), (299, 299), method, antialias=antialias)
    return images.clip(-1, 1)
