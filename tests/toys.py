"""Small, smooth games for tests on 4x4 images: dense networks, and convolutional ones."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from fsgan import Game, Pair, gan, losses
from fsgan.nets import layers

SHAPE = (4, 4, 1)


class Generator(nn.Module):
    @nn.compact
    def __call__(self, z):
        x = nn.silu(nn.Dense(6, name="block0")(z))
        x = jnp.tanh(nn.Dense(16, name="head")(x))
        return x.reshape(-1, *SHAPE)


class Discriminator(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.silu(nn.Dense(5, name="block0")(x.reshape(len(x), -1)))
        return nn.Dense(1, name="head")(x)[:, 0]


class ConvGenerator(nn.Module):
    @nn.compact
    def __call__(self, z):
        x = nn.silu(nn.Dense(12, name="stem")(z)).reshape(-1, 2, 2, 3)
        x = layers.ConvTranspose(4, use_bias=False, name="block0")(x)
        x = layers.Conv(3, name="block1")(nn.silu(layers.Norm(name="norm")(x)))
        return jnp.tanh(layers.Conv(1, name="head")(nn.silu(x)))


class ConvDiscriminator(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.silu(layers.Conv(3, strides=(2, 2), name="block0")(x))
        x = nn.silu(layers.Conv(4, name="block1")(x))
        return nn.Dense(1, name="head")(x.reshape(len(x), -1))[:, 0]


DENSE, CONV = Pair(Generator(), Discriminator()), Pair(ConvGenerator(), ConvDiscriminator())


def game(loss: str = "non_saturating", nets: Pair = DENSE, **options) -> Game:
    return Game(nets, losses.adversarial(loss), latent=3, **options)


def sgd(rate: float = 0.1) -> Pair:
    return Pair(optax.sgd(rate), optax.sgd(rate))


def images(key, *leading: int):
    return jnp.tanh(jax.random.normal(key, (*leading, *SHAPE)))


def params(key, toy: Game):
    """Fresh parameters in the default float type (float64 under enable_x64)."""
    made = gan.init(key, toy)
    return jax.tree.map(lambda x: x.astype(jnp.zeros(()).dtype), made)
