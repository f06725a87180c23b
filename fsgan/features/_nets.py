"""What the networks made for ImageNet share: named outputs, input, pooling, loading."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fsgan import plugins
from fsgan.features import _base, weights
from fsgan.features._base import Features
from fsgan.nets import layers
from fsgan.types import Array, Params


class Input(nn.Module):
    """RGB in [-1, 1] -> (x - mean) / std with the network's own mean and std [3] of 0..255."""

    @nn.compact
    def __call__(self, images: Array) -> Array:
        mean = self.param("mean", nn.initializers.zeros, (3,))
        std = self.param("std", nn.initializers.ones, (3,))
        return ((images + 1) * 127.5 - mean) / std


class Net(nn.Module):
    """A chain of named layers, RGB images [n, h, w, 3] in [-1, 1] -> {name: array} of `outputs`.

    What lies behind the last of the outputs is not computed and has no parameters.
    """

    outputs: tuple[str, ...]

    smallest = 1  # height and width that every layer can work with

    def layers(self) -> Iterator[tuple[str, Callable[[Array], Array]]]:
        """The layers in order, each with the name of its output; made as they are asked for."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, images: Array) -> dict[str, Array]:
        x, names, found = Input(name="input")(images), [], {}
        for name, layer in self.layers():
            x = layer(x)
            names.append(name)
            if name in self.outputs:
                found[name] = x
            if len(found) == len(set(self.outputs)):
                return {name: found[name] for name in self.outputs}
        wrong = next(name for name in self.outputs if name not in names)
        raise plugins.unknown(f"output of {type(self).__name__}", wrong, names)


def conv_relu(
    features: int,
    kernel: Sequence[int] = (3, 3),
    *,
    name: str,
    strides: Sequence[int] = (1, 1),
    padding: layers.Padding = "SAME",
) -> Callable[[Array], Array]:
    """A convolution with bias and a rectifier, its parameters under `name`."""
    # Forwards alone, and wide: here lax is the faster form on CPU, too, and compiles sooner.
    module = layers.Conv(features, kernel, strides, padding, impl="lax", name=name)
    return lambda x: nn.relu(module(x))


def _pool(x: Array, window: int, stride: int, pads, combine, fill: float) -> Array:
    # One axis after the other, whole slices at a time: lax.reduce_window is slow on CPU.
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    for axis in (1, 2):
        end = x.shape[axis] - window + 1
        slices = (lax.slice_in_dim(x, i, end + i, stride, axis) for i in range(window))
        x = functools.reduce(combine, slices)
    return x


def max_pool(x: Array, window: int, stride: int, *, pad: int = 0, ceil: bool = False) -> Array:
    """Max-pooling of [n, h, w, c]. With `ceil` a last window may begin inside and end outside."""
    rests = [-(side + 2 * pad - window) % stride if ceil else 0 for side in x.shape[1:3]]
    pads = [(pad, pad + rest) for rest in rests]
    return _pool(x, window, stride, pads, jnp.maximum, -jnp.inf)


def mean_pool(x: Array, window: int) -> Array:
    """The mean over the window around each pixel, zeros beyond the border not counted."""
    pads = [(window // 2, window // 2)] * 2
    count = _pool(jnp.ones((1, *x.shape[1:3], 1), x.dtype), window, 1, pads, jnp.add, 0.0)
    return _pool(x, window, 1, pads, jnp.add, 0.0) / count


def prepare(images: Array, size: Sequence[int] | None) -> Array:
    """RGB of that size, or of their own: bilinear with antialiasing, in [-1, 1]."""
    images = _base.rgb(images)
    return images if size is None else _base.resize(images, size, "bilinear")


def embed(net: Net, size: Sequence[int] | None, params: Params, images: Array) -> Array:
    """The mean over positions of each of the net's outputs, side by side: [n, d]."""
    outputs = net.apply({"params": params}, prepare(images, size)).values()
    return jnp.concatenate([x.reshape(len(x), -1, x.shape[-1]).mean(1) for x in outputs], 1)


def expected(net: Net, image_shape: Sequence[int], size: int | None) -> tuple:
    """The input's (height, width) and the shapes of the net's parameters for it.

    Raises ValueError if the images do not fit the network.
    """
    _base.check_channels(image_shape)
    h, w = (size, size) if size else image_shape[:2]
    if min(h, w) < net.smallest:
        raise ValueError(
            f"{type(net).__name__} needs images of {net.smallest}x{net.smallest} or more, got "
            f"{h}x{w}: give a size to which they are resized, for example size={net.smallest}"
        )
    images = jax.ShapeDtypeStruct((1, h, w, 3), jnp.float32)
    return (h, w), jax.eval_shape(net.init, jax.random.key(0), images)["params"]


def load(
    name: str,
    net: Net,
    image_shape: Sequence[int],
    *,
    size: int | None,
    path: str | None,
    adapt: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda arrays: arrays,
) -> Features:
    """`Features` of a network with the weights `name`: means over the positions of its outputs.

    The images are resized to size x size, or kept as they are with None. `adapt` makes this
    network's weights of those in the file.
    """
    (h, w), shapes = expected(net, image_shape, size)
    params = weights.load(name, shapes, path, adapt=adapt)
    title = f"{name}/{'+'.join(net.outputs)}@{h}x{w}"
    apply = functools.partial(embed, net, (h, w))
    return _base.make(title, apply, params, image_shape)
