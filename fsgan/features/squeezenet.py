"""SqueezeNet v1.1 (Iandola et al. 2016): small and fast, 1.2 million parameters.

Distances in its features are comparable with nothing measured on Inception; they are not LPIPS.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from fsgan.features import _nets
from fsgan.features._base import Features
from fsgan.types import Array

# Channels of the squeeze layer; each of the two expand layers has as many as `EXPAND`.
SQUEEZE = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}
EXPAND = {2: 64, 3: 64, 4: 128, 5: 128, 6: 192, 7: 192, 8: 256, 9: 256}
POOLED = (1, 3, 5)  # layers with a max-pooling behind them


class Fire(nn.Module):
    """1x1 to few channels, then 1x1 and 3x3 side by side: [n, h, w, c] -> [n, h, w, 2 expand]."""

    squeeze: int
    expand: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = _nets.conv_relu(self.squeeze, (1, 1), name="squeeze1x1")(x)
        sides = [_nets.conv_relu(self.expand, (k, k), name=f"expand{k}x{k}")(x) for k in (1, 3)]
        return jnp.concatenate(sides, -1)


class SqueezeNet(_nets.Net):
    """Outputs: relu1, pool1, fire2, fire3, pool3, ..., fire9, conv10 (1000 classes, rectified)."""

    smallest = 17

    def layers(self):
        def pool(x):
            return _nets.max_pool(x, 3, 2, ceil=True)

        yield "relu1", _nets.conv_relu(64, name="conv1", strides=(2, 2), padding="VALID")
        yield "pool1", pool
        for i in SQUEEZE:
            yield f"fire{i}", Fire(SQUEEZE[i], EXPAND[i], name=f"fire{i}")
            if i in POOLED:
                yield f"pool{i}", pool
        yield "conv10", _nets.conv_relu(1000, (1, 1), name="conv10")


def load(
    image_shape: Sequence[int],
    *,
    outputs: tuple[str, ...] = ("fire9",),
    size: int | None = 227,
    weights: str = "squeezenet_v1.1_imagenet",
    path: str | None = None,
) -> Features:
    """Means over the positions of `outputs`: 512 numbers for fire9, 1000 logits for conv10.

    Args:
      image_shape: (height, width, 1 or 3) of the images to come.
      outputs: layers, see `SqueezeNet`; their means are put side by side.
      size: side to which images are resized (bilinear); None leaves them as they are.
      weights: "squeezenet_v1.1_imagenet" (the Caffe model) or "squeezenet1_1" (torchvision).
      path: an .npz file of your own instead.

    Raises ValueError or FileNotFoundError, see `features.load`.
    """
    net = SqueezeNet(tuple(outputs))
    return _nets.load(weights, net, image_shape, size=size, path=path, adapt=from_caffe)


def from_caffe(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The Caffe model takes BGR minus a mean; its file does not say so. Others stay as they are."""
    if "input/mean" in arrays or "conv1/kernel" not in arrays:
        return arrays
    return arrays | {
        "conv1/kernel": arrays["conv1/kernel"][:, :, ::-1],
        "input/mean": np.array([123.0, 117.0, 104.0], np.float32),
        "input/std": np.ones(3, np.float32),
    }
