"""Adaptive discriminator augmentation (Karras et al. 2020).

The probability p of each augmentation follows a sign of overfitting, r_t = E sign D(augmented real
images), reported as `d_sign`: it rises while r_t is above the target, and falls below.
"""

import jax.numpy as jnp

from fsgan import augment
from fsgan.types import Method


def make(*, target: float = 0.6, images: int = 500_000, p: float = 0.0) -> Method:
    """p starts as given, and from 0 to 1 takes so many `images`. The released code moves it every
    four minibatches, here it moves in every step.
    """

    def finish(game, before, after, real, metrics):
        seen = real.shape[0] * real.shape[1]
        change = jnp.sign(metrics["d_sign"] - target) * seen / images
        return after.replace(memory={"p": jnp.clip(after.memory["p"] + change, 0, 1)})

    return Method(
        start=lambda game, source, real, key: (source, {"p": jnp.asarray(p, jnp.float32)}),
        augment=lambda key, x, memory: augment.ada(key, x, memory["p"]),
        report=lambda play: {"d_sign": jnp.sign(play.on_real).mean(), "ada_p": play.memory["p"]},
        finish=finish,
    )
