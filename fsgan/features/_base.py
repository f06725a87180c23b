"""What a feature space is, and what all of them do first with an image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from fsgan import trees
from fsgan.types import Array, Params

MARGIN = 1e-3  # beyond [-1, 1], for rounding


@flax.struct.dataclass
class Features:
    """A feature space: `features(images)` maps [n, h, w, c] in [-1, 1] to float32 [n, dim].

    It is a pytree whose leaves are the weights. Give it to a jitted function as an argument, like
    parameters: closed over, the weights would be compiled into the program as constants.
    Images of another shape or range are a ValueError, see `check_images`.
    """

    params: Params
    name: str = flax.struct.field(pytree_node=False)  # with all settings
    shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)  # of the images it takes
    dim: int = flax.struct.field(pytree_node=False)
    hash: str = flax.struct.field(pytree_node=False)  # 12 hex digits: of the name and the weights
    apply: Callable[[Params, Array], Array] = flax.struct.field(pytree_node=False)  # pure

    def __call__(self, images: Array) -> Array:
        check_images(images, self.shape)
        return self.apply(self.params, images)


def make(
    name: str,
    apply: Callable[[Params, Array], Array],
    params: Params,
    image_shape: Sequence[int],
    *,
    hashed: bool = True,
) -> Features:
    """`Features` of a pure function for images of that shape; `name` tells all settings.

    Not `hashed` are weights that follow from the name, whose last bits depend on the machine.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    dim = jax.eval_shape(apply, params, images).shape[1]
    digest = fingerprint(name, params if hashed else {})
    return Features(params, name, tuple(image_shape), dim, digest, apply)


def check_images(images: Array, shape: Sequence[int]) -> None:
    """ValueError unless images are float [n, *shape] in [-1, 1].

    Values, NaN among them, are looked at outside of jit alone; within, there are none to see.
    """
    if images.shape[1:] != tuple(shape):
        raise ValueError(
            f"these features take images of {tuple(shape)}, got {images.shape[1:]}: "
            "load the features for that shape, or the images in this one"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"features take floats in [-1, 1], got {images.dtype}: convert by images.to_float"
        )
    if not isinstance(images, jax.core.Tracer):
        largest = float(jnp.abs(images).max(initial=0))
        if not largest <= 1 + MARGIN:  # nor NaN
            raise ValueError(
                f"features take images in [-1, 1], got magnitudes up to {largest:.3g}: scale them"
            )


def fingerprint(name: str, params: Params) -> str:
    """12 hexadecimal digits that tell one feature space from another."""
    digest = hashlib.sha256(name.encode())
    for key, leaf in sorted(trees.named(params).items()):
        leaf = np.ascontiguousarray(leaf)
        digest.update(f"{key} {leaf.dtype} {leaf.shape} ".encode())
        digest.update(leaf)
    return digest.hexdigest()[:12]


def check_channels(image_shape: Sequence[int]) -> None:
    """ValueError unless `image_shape` is (height, width, channels) with 1 or 3 channels."""
    if len(image_shape) != 3 or image_shape[2] not in (1, 3):
        raise ValueError(
            f"features need images of shape (height, width, 1 or 3), not {tuple(image_shape)}: "
            "load the data with data.channels 1 or 3"
        )


def rgb(images: Array) -> Array:
    """[n, h, w, 1 or 3] -> [n, h, w, 3]: grey is repeated."""
    return jnp.broadcast_to(images, (*images.shape[:-1], 3))


def resize(images: Array, size: Sequence[int], method: str, *, antialias: bool = True) -> Array:
    """[n, h, w, c] -> [n, *size, c], `method` being "bilinear" or "bicubic", values not clipped.

    With `antialias` it is what Pillow does with float images (mode F): when shrinking, the filter
    grows with the factor. Without, it is `torch.nn.functional.interpolate(align_corners=False)`.
    """
    n, h, w, c = images.shape
    if (h, w) == tuple(size):
        return images
    return jax.image.resize(images, (n, *size, c), method, antialias=antialias)
