"""VGG16 and VGG19 (Simonyan and Zisserman 2015) as torchvision lays them out, without BatchNorm."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn

from fsgan.features import _nets
from fsgan.features._base import Features
from fsgan.types import Array

BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # convolutions before each max-pooling
CHANNELS = (64, 128, 256, 512, 512)


class VGG(_nets.Net):
    """Outputs: relu1_1, relu1_2, pool1, relu2_1, ..., pool5; for 224x224 also fc6, fc7, fc8.

    fc6 and fc7 are rectified, [n, 4096]; fc8 are the logits, [n, 1000].
    """

    depth: int = 16

    smallest = 32

    def layers(self):
        for block, (convs, channels) in enumerate(
            zip(BLOCKS[self.depth], CHANNELS, strict=True), 1
        ):
            for i in range(1, convs + 1):
                yield f"relu{block}_{i}", _nets.conv_relu(channels, name=f"conv{block}_{i}")
            yield f"pool{block}", lambda x: _nets.max_pool(x, 2, 2)
        yield "fc6", self._dense(4096, "fc6")
        yield "fc7", self._dense(4096, "fc7")
        yield "fc8", nn.Dense(1000, name="fc8")

    def _dense(self, features: int, name: str):
        module = nn.Dense(features, name=name)
        return lambda x: nn.relu(module(_flat(x)))


def _flat(x: Array) -> Array:
    if x.ndim == 4 and x.shape[1:3] != (7, 7):
        raise ValueError(
            f"VGG's dense layers need images of 224x224, which give maps of 7x7, not "
            f"{x.shape[1]}x{x.shape[2]}: give size=224, or take pool5"
        )
    return x.reshape(len(x), -1)


def load(
    image_shape: Sequence[int],
    *,
    depth: int = 16,
    outputs: tuple[str, ...] = ("relu5_3",),
    size: int | None = 224,
    path: str | None = None,
) -> Features:
    """Means over the positions of `outputs`; fc7 of VGG16 is what improved precision and recall
    take (Kynkaanniemi et al. 2019).

    `depth` is 16 or 19; the other options are those of `squeezenet.load`. Style and perceptual
    losses take the maps themselves: `VGG(outputs, depth).apply({"params": features.params}, rgb)`.
    """
    if depth not in BLOCKS:
        raise ValueError(f"VGG has depth 16 or 19, not {depth}")
    net = VGG(tuple(outputs), depth)
    return _nets.load(f"vgg{depth}", net, image_shape, size=size, path=path)
