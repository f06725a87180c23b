"""Augmentation of all that the discriminator sees: `(key, images) -> images`, differentiable.

Images are float32 [n, h, w, c] in [-1, 1] with 1, 3 or 4 channels. Each is augmented by draws of
its own, and nothing is clipped. Colour operations leave a fourth channel (alpha) as it is. One
channel is a colour on the grey axis: brightness and contrast act on it as on three equal channels,
the luma flip is its negative, and saturation and hue, which move colours around that axis, change
nothing.

An augmentation leaks if generated images may differ from real ones while their augmented
distributions are equal: the generator then learns to make augmented images. Each operation of `ada`
is the identity with probability 1 - p or more, so that below p = 1 the map from distributions to
augmented distributions has an inverse (Karras et al. 2020, section 2.2 and appendix C).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from fsgan import plugins
from fsgan.types import Array

# (u, x) -> x: all chance comes in as three independent numbers u, uniform in (-1, 1). x is one
# image [h, w, c]; or a grid: two arrays [h, w] that say for each pixel from which row and column,
# counted from the centre of the image, it is read.
Operation = Callable[[Array, Any], Any]


def _chain(operations: Sequence[Operation]) -> Operation:
    """All of them, the first one first: u [operations, 3]."""

    def apply(u: Array, x):
        for operation, own in zip(operations, u, strict=True):
            x = operation(own, x)
        return x

    return apply


def _each(operation: Operation, key: Array, images: Array, draws: int) -> Array:
    """The operation on every image, with u [draws, 3] of its own."""
    above = np.nextafter(np.float32(-1), np.float32(0))  # -1 itself would be -inf as a normal
    u = jax.random.uniform(key, (len(images), draws, 3), jnp.float32, above, 1)
    return jax.vmap(operation)(u, images)


def _integer(u: Array, n: int) -> Array:
    """Uniform in 0 to n - 1."""
    return jnp.floor((u + 1) / 2 * n).astype(int)


def _normal(u: Array) -> Array:
    return 2**0.5 * jax.lax.erf_inv(u)


def _on_colours(operation: Operation) -> Operation:
    def apply(u: Array, image: Array) -> Array:
        colours, alpha = image[..., :3], image[..., 3:]
        return jnp.concatenate([operation(u, colours), alpha], -1)

    return apply


def _grey(image: Array) -> Array:
    """The part of every colour along the grey axis: the mean over the channels [h, w, 1]."""
    return image.mean(-1, keepdims=True)


def _stretch(image: Array, centre: Array, factor: Array) -> Array:
    return centre + factor * (image - centre)


# DiffAugment (Zhao et al. 2020, section 4.1), with the strengths of the released code.


def _recolour(u: Array, image: Array) -> Array:
    image = image + u[0] / 2  # brightness
    image = _stretch(image, _grey(image), 1 + u[1])  # saturation
    return _stretch(image, image.mean(), 1 + u[2] / 2)  # contrast


def _translation(u: Array, image: Array) -> Array:
    """Shift by whole pixels, by up to 1/8 of the size; 0, mid-grey, comes in."""
    h, w, _ = image.shape
    down, right = (h + 4) // 8, (w + 4) // 8
    padded = jnp.pad(image, [(down, down), (right, right), (0, 0)])
    begin = _integer(u[0], 2 * down + 1), _integer(u[1], 2 * right + 1), 0
    return jax.lax.dynamic_slice(padded, begin, image.shape)


def _cutout(u: Array, image: Array) -> Array:
    """Set to 0 a rectangle of half the size with its middle anywhere, cut off at the border."""

    def covered(u: Array, size: int) -> Array:
        width = (size + 1) // 2
        begin = _integer(u, size + 1 - width % 2) - width // 2
        at = jnp.arange(size)
        return (begin <= at) & (at < begin + width)

    rows, columns = map(covered, u[:2], image.shape[:2])
    return jnp.where((rows[:, None] & columns)[..., None], 0, image)


DIFF_AUGMENT = {
    "color": _on_colours(_recolour),
    "translation": _translation,
    "cutout": _cutout,
}


def diff_augment(
    key: Array, images: Array, *, policy: Sequence[str] = ("color", "translation", "cutout")
) -> Array:
    """DiffAugment: every operation of the policy, in its order, on every image.

    ValueError listing the right names if one is unknown. The default is the paper's for a hundred
    images or fewer; for more it leaves "color" out. 0 comes in for what is moved or cut out, in
    alpha, too.
    """
    for name in policy:
        if name not in DIFF_AUGMENT:
            raise plugins.unknown("augmentation", name, DIFF_AUGMENT)
    return _each(_chain([DIFF_AUGMENT[name] for name in policy]), key, images, len(policy))


# ADA (Karras et al. 2020, appendix B): pixel blitting, general geometry and colour.


Grid = tuple[Array, Array]


def _sometimes(p: Array, operation: Operation) -> Operation:
    """The operation with probability p, otherwise the identity: u[2] decides."""

    def apply(u: Array, x):
        acts = u[2] < 2 * p - 1
        return jax.tree.map(lambda new, old: jnp.where(acts, new, old), operation(u, x), x)

    return apply


def _rotate(grid: Grid, cos: Array, sin: Array) -> Grid:
    y, x = grid
    return cos * y - sin * x, sin * y + cos * x


def _move(grid: Grid, pixels: Array) -> Grid:
    y, x = grid
    return y - pixels[0], x - pixels[1]


def _eighths(grid: Grid) -> np.ndarray:
    """An eighth of height and width, in pixels."""
    return np.array(grid[0].shape) / 8


def _flip(u: Array, grid: Grid) -> Grid:
    y, x = grid
    return y, jnp.where(u[0] < 0, -x, x)


def _quarter_turns(u: Array, grid: Grid) -> Grid:
    angle = jnp.pi / 2 * _integer(u[0], 4)
    # Rounded, so that whole pixels stay whole.
    return _rotate(grid, jnp.round(jnp.cos(angle)), jnp.round(jnp.sin(angle)))


def _whole_pixels(u: Array, grid: Grid) -> Grid:
    return _move(grid, jnp.round(u[:2] * _eighths(grid)))


def _zoom(u: Array, grid: Grid) -> Grid:
    y, x = grid
    scale = jnp.exp2(0.2 * _normal(u[0]))
    return y / scale, x / scale


def _rotation(u: Array, grid: Grid) -> Grid:
    angle = jnp.pi * u[0]
    return _rotate(grid, jnp.cos(angle), jnp.sin(angle))


def _aspect(u: Array, grid: Grid) -> Grid:
    y, x = grid
    scale = jnp.exp2(0.2 * _normal(u[0]))
    return y * scale, x / scale


def _subpixels(u: Array, grid: Grid) -> Grid:
    return _move(grid, _normal(u[:2]) * _eighths(grid))


def _brightness(u: Array, image: Array) -> Array:
    return image + 0.2 * _normal(u[0])


def _contrast(u: Array, image: Array) -> Array:
    return image * jnp.exp2(0.5 * _normal(u[0]))


def _luma_flip(u: Array, image: Array) -> Array:
    """Mirror the colours at the plane through 0 that is perpendicular to the grey axis."""
    return jnp.where(u[0] < 0, image - 2 * _grey(image), image)


def _hue(u: Array, image: Array) -> Array:
    """Turn the colours around the grey axis (Rodrigues' formula)."""
    angle = jnp.pi * u[0]
    across = (jnp.roll(image, 1, -1) - jnp.roll(image, -1, -1)) / 3**0.5  # axis x colour
    return _stretch(image, _grey(image), jnp.cos(angle)) + jnp.sin(angle) * across


def _saturation(u: Array, image: Array) -> Array:
    return _stretch(image, _grey(image), jnp.exp2(_normal(u[0])))


def _geometry(p: Array) -> list[Operation]:
    """All that moves pixels. Places are looked up from the last operation back to the first."""
    some = functools.partial(_sometimes, p)
    # There are two, around the change of aspect: with probability p an image is rotated at all.
    rotation = _sometimes(1 - jnp.sqrt(1 - p), _rotation)
    blit = [some(_flip), some(_quarter_turns), some(_whole_pixels)]
    return [*blit, some(_zoom), rotation, some(_aspect), rotation, some(_subpixels)][::-1]


def _colour(p: Array) -> list[Operation]:
    operations = (_brightness, _contrast, _luma_flip, _hue, _saturation)
    return [_sometimes(p, operation) for operation in operations]


def _read(image: Array, grid: Grid) -> Array:
    """The image at the places of a grid: bilinear, mirrored beyond the outermost pixels."""
    places = [at + (size - 1) / 2 for at, size in zip(grid, image.shape[:2], strict=True)]
    return jax.vmap(lambda x: map_coordinates(x, places, order=1, mode="mirror"), -1, -1)(image)


def ada(key: Array, images: Array, p: Array) -> Array:
    """The augmentation of ADA: each operation with probability p, a scalar in [0, 1].

    All that moves pixels is composed and read once, by bilinear interpolation, where the released
    code filters at twice the resolution. What comes in from outside is the image mirrored. Quarter
    turns of an image that is not square keep its middle. p = 0 is the identity, bit for bit.
    """
    geometry, colour = _geometry(p), _colour(p)

    def one(u: Array, image: Array) -> Array:
        h, w, _ = image.shape
        rows, columns = (jnp.arange(n, dtype=u.dtype) - (n - 1) / 2 for n in (h, w))
        grid = tuple(jnp.meshgrid(rows, columns, indexing="ij"))
        image = _read(image, _chain(geometry)(u[: len(geometry)], grid))
        return _on_colours(_chain(colour))(u[len(geometry) :], image)

    return _each(one, key, images, len(geometry) + len(colour))


def adapt_p(p: Array, logits: Array, *, target: float = 0.6, images: int = 500_000) -> Array:
    """The next p, from the discriminator's logits [n] on the real images since the last update.

    A discriminator that overfits is sure of the training images: r_t = E sign(D(x)) is near 1 (eq.
    1). p moves by n / `images` up if r_t is above the target and down if it is below, so that it
    goes from 0 to 1 within `images` real images, and stays in [0, 1]. The paper updates it once in
    four batches.
    """
    overfitting = jnp.sign(logits).mean()
    return jnp.clip(p + jnp.sign(overfitting - target) * logits.size / images, 0, 1)
