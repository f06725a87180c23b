"""Mode seeking (Mao et al. 2019): latents that differ shall give images that differ.

The generator's loss gets 1 / (|x1 - x2| / |z1 - z2| + 1e-5), mean absolute differences between the
two halves of the batch.
"""

import jax.numpy as jnp

from fsgan.types import Method


def make(*, weight: float = 1.0) -> Method:
    def g_loss(game, play, loss):
        half = len(play.z) // 2
        if not half:
            raise ValueError("mode_seeking compares generated images: choose a batch of 2 or more")
        images, latents = (
            jnp.abs(x[:half] - x[half : 2 * half]).mean() for x in (play.fake, play.z)
        )
        return loss + weight / (images / latents + 1e-5)

    return Method(g_loss=g_loss)
