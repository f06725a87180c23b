"""Consistency regularisation (Zhang et al. 2020; balanced, bCR: Zhao et al. 2021).

The discriminator shall judge an image like the same image moved: E (D(x) - D(T(x)))^2.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fsgan import augment
from fsgan.types import Array, Method


def make(*, weight: float = 10.0, fake_weight: float = 0.0, flip: bool = True) -> Method:
    """T shifts by up to an eighth of the size and, with `flip`, mirrors every other image (not for
    characters). `weight` is that of real images; with `fake_weight`, 10 there, too, it is bCR.
    """

    def d_loss(game, play, loss):
        def judge(images: Array) -> Array:
            return game.nets.d.apply({"params": play.params.d}, images)

        keys = jax.random.split(play.key)
        pairs = (weight, play.real, keys[0]), (fake_weight, play.fake, keys[1])
        for factor, images, key in pairs:
            if factor:
                change = judge(images) - judge(moved(key, images, flip))
                loss = loss + factor * jnp.square(change).mean()
        return loss

    return Method(d_loss=d_loss)


def moved(key: Array, images: Array, flip: bool) -> Array:
    """Images [n, h, w, c], each shifted and perhaps mirrored by draws of its own."""
    shift_key, flip_key = jax.random.split(key)
    images = augment.diff_augment(shift_key, images, policy=("translation",))
    mirror = jax.random.bernoulli(flip_key, 0.5 if flip else 0.0, (len(images), 1, 1, 1))
    return jnp.where(mirror, images[:, :, ::-1], images)
