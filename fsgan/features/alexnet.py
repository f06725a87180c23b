"""AlexNet in one column (Krizhevsky 2014), its convolutions: a backbone of LPIPS."""

from __future__ import annotations

from collections.abc import Sequence

from fsgan.features import _nets
from fsgan.features._base import Features

# Channels, kernel, stride, padding.
CONVS = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
POOLED = (1, 2, 5)  # layers with a max-pooling behind them


class AlexNet(_nets.Net):
    """Outputs: relu1, pool1, relu2, pool2, relu3, relu4, relu5, pool5."""

    smallest = 63

    def layers(self):
        for i, (channels, kernel, stride, pad) in enumerate(CONVS, 1):
            yield (
                f"relu{i}",
                _nets.conv_relu(
                    channels,
                    (kernel, kernel),
                    name=f"conv{i}",
                    strides=(stride, stride),
                    padding=((pad, pad), (pad, pad)),
                ),
            )
            if i in POOLED:
                yield f"pool{i}", lambda x: _nets.max_pool(x, 3, 2)


def load(
    image_shape: Sequence[int],
    *,
    outputs: tuple[str, ...] = ("pool5",),
    size: int | None = 224,
    path: str | None = None,
) -> Features:
    """Means over the positions of `outputs`. The options are those of `squeezenet.load`."""
    return _nets.load("alexnet", AlexNet(tuple(outputs)), image_shape, size=size, path=path)
