"""LeCam regularisation (Tseng et al. 2021).

The logits of real images are pulled to the moving average a_F of those of generated images where
they are above it, those of generated images to the average a_R where they are below:

    E relu(D(x) - a_F)^2 + E relu(a_R - D(G(z)))^2
"""

import jax
import jax.numpy as jnp
from jax.nn import relu

from fsgan.types import Array, Method


def make(*, weight: float = 0.01, decay: float = 0.99) -> Method:
    """The averages begin with the first batch: as they start from zero, they are divided by
    1 - decay^steps.

    The released weights are 0.3 for BigGAN's hinge loss and 1e-6 for StyleGAN2-ADA. With the
    non-saturating loss, on MNIST's validation digits, 0.3 makes all samples alike; 0.01 does not.
    """

    def follow(memory, real: Array, fake: Array):
        """The averages with one more batch."""
        new = {"real": real, "fake": fake, "one": 1.0}
        return {name: decay * memory[name] + (1 - decay) * new[name] for name in new}

    def d_loss(game, play, loss):
        means = (jax.lax.stop_gradient(x.mean()) for x in (play.on_real, play.on_fake))
        now = follow(play.memory, *means)
        above = relu(play.on_real - now["fake"] / now["one"])
        below = relu(now["real"] / now["one"] - play.on_fake)
        return loss + weight * (jnp.square(above).mean() + jnp.square(below).mean())

    def finish(game, before, after, real, metrics):
        return after.replace(memory=follow(after.memory, metrics["d_real"], metrics["d_fake"]))

    return Method(
        start=lambda game, source, real, key: (
            source,
            dict.fromkeys(("real", "fake", "one"), jnp.zeros(())),
        ),
        d_loss=d_loss,
        finish=finish,
    )
