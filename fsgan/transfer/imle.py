"""Implicit maximum likelihood estimation (Li and Malik 2018): every image is to have a sample near.

The generator's loss gets `weight` times the mean, over the real images of the batch, of the
distance to the nearest generated one. A critic's slope says how samples in general should change;
this gives each real image one sample that is to become it, so that two ways of drawing a thing are
not drawn over each other, and small parts that stand elsewhere each time are not lost.

The paper's distances are squared; these pull as strongly from afar as from near, with a slope of 1
like a critic under a gradient penalty. They are Euclidean, of means of 2x2 pixels: thin strokes
that lie side by side are near. Half a critic's strength, the default, drew classes of Omniglot that
were held out for validation better than one and a half times it.

With `shift` an image counts as near where it is so after a move by up to so many pixels along each
axis, and pulls from there: a sample that is the thing, but elsewhere, is to change its strokes and
not to draw others beside them. Where things stand is then the critic's matter alone.
"""

import jax.numpy as jnp
from jax import lax

from fsgan.nets.layers import downsample
from fsgan.types import Array, Method


def make(*, weight: float = 0.5, shift: int = 0) -> Method:
    """ValueError for a negative shift."""
    if shift < 0:
        raise ValueError(f"imle needs a shift of 0 pixels or more, got {shift}")

    def g_loss(game, play, loss):
        real, fake = means(places(play.real, shift)), means(play.fake)
        # Which of all are nearest has no derivative, and squares find it by a matrix product.
        y = lax.stop_gradient(fake)
        square = (y * y).sum(-1) - 2 * real @ y.T + (real * real).sum(-1, keepdims=True)
        nearest = square.transpose(1, 0, 2).reshape(len(play.real), -1).argmin(1)
        move, sample = jnp.divmod(nearest, len(fake))
        apart = real[move, jnp.arange(len(move))] - fake[sample]
        # The small constant keeps the derivative finite where they are equal.
        return loss + weight * jnp.sqrt(jnp.square(apart).sum(-1) + 1e-12).mean()

    return Method(g_loss=g_loss)


def places(images: Array, shift: int) -> Array:
    """Images [n, h, w, c] in all places [(2 shift + 1)^2, n, h, w, c], their edges continued."""
    _, h, w, _ = images.shape
    around = (shift, shift)
    wide = jnp.pad(images, ((0, 0), around, around, (0, 0)), mode="edge")
    steps = range(2 * shift + 1)
    return jnp.stack([wide[:, i : i + h, j : j + w] for i in steps for j in steps])


def means(images: Array) -> Array:
    """Of 2x2 pixels [..., h, w, c] -> [..., h w c / 4], so scaled that their distances have the
    slope 1: a mean of 4 pixels changes by a quarter of each.
    """
    *several, h, w, c = images.shape
    return 2 * downsample(images.reshape(-1, h, w, c)).reshape(*several, -1)
