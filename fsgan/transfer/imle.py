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

from fsgan.types import Array, Method


def make(*, weight: float = 0.5, shift: int = 0) -> Method:
    """ValueError for a negative shift."""
    if shift < 0:
        raise ValueError(f"imle needs a shift of 0 pixels or more, got {shift}")

    def g_loss(game, play, loss):
        n, h, w, _ = play.real.shape
        around = (shift, shift)
        real = blocks(jnp.pad(play.real, ((0, 0), around, around, (0, 0)), mode="edge"))
        steps = range(2 * shift + 1)
        real = [real[:, i : i + h : 2, j : j + w : 2].reshape(n, -1) for i in steps for j in steps]
        real = jnp.stack(real, 1)  # [n, moves, means]
        fake = blocks(play.fake)[:, ::2, ::2].reshape(len(play.fake), -1)
        # Which of all are nearest has no derivative, and squares find it by a matrix product.
        square = (fake * fake).sum(-1) - 2 * real @ fake.T + (real * real).sum(-1, keepdims=True)
        move, sample = jnp.divmod(square.reshape(n, -1).argmin(1), len(fake))
        apart = real[jnp.arange(n), move] - fake[sample]
        # The small constant keeps the derivative finite where they are equal.
        return loss + weight * jnp.sqrt(jnp.square(apart).sum(-1) + 1e-12).mean()

    return Method(g_loss=g_loss)


def blocks(images: Array) -> Array:
    """Twice the mean of each 2x2 pixels, [n, h, w, c] -> [n, h - 1, w - 1, c]. A mean changes by a
    quarter of each pixel: of every other one, both ways, doubled, distances have the slope 1.
    """
    rows = images[:, 1:] + images[:, :-1]
    return (rows[:, :, 1:] + rows[:, :, :-1]) / 2
