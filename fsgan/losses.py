"""Adversarial losses and gradient penalties: arrays -> scalar.

An adversarial loss is a `Pair` of functions `(real, fake) -> scalar` of the discriminator's logits
[n] on real and [m] on generated images; each player minimises its own. Formulas use softplus, whose
derivatives of every order are finite, so that they can be differentiated through. Where a real and
a generated image make a pair, and there are more generated ones, the real ones are taken again.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn import relu, softplus

from fsgan import plugins
from fsgan.types import Array, Pair


def _paired(real: Array, fake: Array) -> Array:
    """Real images or logits, one for each generated one."""
    return jnp.resize(real, fake.shape)


ADVERSARIAL = {
    # Goodfellow et al. 2014, eq. 1: the generator minimises E log(1 - D(G(z))), which saturates.
    "minimax": Pair(
        g=lambda real, fake: -softplus(fake).mean(),
        d=lambda real, fake: softplus(-real).mean() + softplus(fake).mean(),
    ),
    # Goodfellow et al. 2014, section 3: the generator maximises E log D(G(z)) instead.
    "non_saturating": Pair(
        g=lambda real, fake: softplus(-fake).mean(),
        d=lambda real, fake: softplus(-real).mean() + softplus(fake).mean(),
    ),
    # Lim and Ye 2017; Miyato et al. 2018, eqs. 16 and 17.
    "hinge": Pair(
        g=lambda real, fake: -fake.mean(),
        d=lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(),
    ),
    # Mao et al. 2017, eq. 9: targets 1 for real, 0 for fake, 1 for the generator.
    "least_squares": Pair(
        g=lambda real, fake: jnp.square(fake - 1).mean() / 2,
        d=lambda real, fake: (jnp.square(real - 1).mean() + jnp.square(fake).mean()) / 2,
    ),
    # Arjovsky et al. 2017; the Lipschitz constraint comes from `gradient_penalty`.
    "wasserstein": Pair(
        g=lambda real, fake: -fake.mean(),
        d=lambda real, fake: fake.mean() - real.mean(),
    ),
    # RpGAN (Jolicoeur-Martineau 2019; R3GAN, Huang et al. 2024): each fake is judged against the
    # real image it is paired with, so both players see both. Wants R1 and R2.
    "relativistic": Pair(
        g=lambda real, fake: softplus(_paired(real, fake) - fake).mean(),
        d=lambda real, fake: softplus(fake - _paired(real, fake)).mean(),
    ),
}


def adversarial(name: str) -> Pair:
    """The adversarial loss of that name; ValueError listing the right names if there is none."""
    if name not in ADVERSARIAL:
        raise plugins.unknown("loss", name, ADVERSARIAL)
    return ADVERSARIAL[name]


# A penalty is `(critic, real, fake, key) -> scalar`, `critic` being images [n, ...] -> logits [n].
Penalty = Callable[[Callable[[Array], Array], Array, Array, Array], Array]


def _gradient_square(critic: Callable[[Array], Array], images: Array) -> Array:
    """||d critic / d image||^2 for each image [n], summed over all of its values."""
    gradient = jax.grad(lambda x: critic(x).sum())(images)
    return jnp.square(gradient).sum(axis=range(1, gradient.ndim))


def r1(critic, real, fake, key) -> Array:
    """E ||grad D(x)||^2 / 2 on real images (Mescheder et al. 2018, eq. 9): its weight is gamma."""
    return _gradient_square(critic, real).mean() / 2


def r2(critic, real, fake, key) -> Array:
    """E ||grad D(G(z))||^2 / 2 on generated images (Mescheder et al. 2018, eq. 10)."""
    return _gradient_square(critic, fake).mean() / 2


def gradient_penalty(critic, real, fake, key) -> Array:
    """E (||grad D(x')|| - 1)^2 between paired real and fake images (Gulrajani et al. 2017).

    The norm is over all of an image's values, not over its channels alone.
    """
    # The small constant keeps the derivative finite where the gradient is exactly zero.
    norm = jnp.sqrt(_gradient_square(critic, _between(real, fake, key)) + 1e-12)
    return jnp.square(norm - 1).mean()


def pixel_gradient_penalty(critic, real, fake, key) -> Array:
    """The same with one norm for each pixel, over its channels [n, h, w, c] alone.

    FIGR's released code has it so, where the whole image's norm is meant: with one channel every
    pixel's slope is drawn to 1, an image's norm to 32 at 32x32. For reproducing it, no more.
    """
    gradient = jax.grad(lambda x: critic(x).sum())(_between(real, fake, key))
    norm = jnp.sqrt(jnp.square(gradient).sum(-1) + 1e-12)
    return jnp.square(norm - 1).mean()


def _between(real: Array, fake: Array, key: Array) -> Array:
    """A random point on the line between each pair of images."""
    real, shape = _paired(real, fake), (fake.shape[0],) + (1,) * (fake.ndim - 1)
    return real + jax.random.uniform(key, shape, real.dtype) * (fake - real)


PENALTIES: dict[str, Penalty] = {
    "r1": r1,
    "r2": r2,
    "gradient_penalty": gradient_penalty,
    "pixel_gradient_penalty": pixel_gradient_penalty,
}


def penalty(**weights: float) -> Penalty:
    """The weighted sum of penalties: `penalty(r1=1.0, r2=1.0)`. A weight of 0 costs nothing."""
    for name in weights:
        if name not in PENALTIES:
            raise plugins.unknown("penalty", name, PENALTIES)
    terms = [(PENALTIES[name], weight) for name, weight in weights.items() if weight]

    def total(critic, real, fake, key) -> Array:
        value = jnp.zeros((), real.dtype)
        for i, (term, weight) in enumerate(terms):
            value += weight * term(critic, real, fake, jax.random.fold_in(key, i))
        return value

    return total
