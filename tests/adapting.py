"""Transfer methods at play on the toys: for the tests of fsgan/transfer."""

import functools
import importlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import toys

from fsgan import gan
from fsgan.types import Play

REAL = toys.images(jax.random.key(5), 3)  # target images
SEEDS = jax.random.split(jax.random.key(0), 2)


def equal(a, b) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@functools.cache
def pretrained(nets=toys.DENSE):
    return jax.jit(lambda key: gan.init(key, toys.game(nets=nets)))(jax.random.key(1))


def play(params, memory=None, real=REAL, nets=toys.DENSE):
    """What is played, and what a hook sees of it."""
    game, key = toys.game(nets=nets), SEEDS[0]
    z = jax.random.normal(key, (len(real), 3))
    fake = nets.g.apply({"params": params.g}, z)
    on_real, on_fake = (nets.d.apply({"params": params.d}, x) for x in (real, fake))
    return game, Play(params, z, real, fake, on_real, on_fake, lambda x: x, key, memory)


def adapt(method):
    """A method's three steps on a single target image, in batches of four copies, for two seeds.

    `train`: seeds -> (states in the beginning, states after training, metrics), which are `begun`,
    `after` and `metrics`; `traces` has an entry for each compilation.
    """
    game, source = method.extend(toys.game(method=method)), pretrained()
    batches, traces = jnp.broadcast_to(REAL[0], (3, 4, *toys.SHAPE)), []

    @jax.jit
    @jax.vmap
    def train(key):
        traces.append(key)
        params, memory = method.start(game, source, REAL[:1], key)
        begun = gan.start(params, key, toys.sgd(), method, memory=memory)
        return begun, *gan.adapt(gan.make_step(game, toys.sgd()), begun, batches)

    begun, after, metrics = train(SEEDS)
    return SimpleNamespace(**locals())


@functools.cache
def adapted(name):
    """`adapt` for the method of that name at its defaults."""
    return adapt(importlib.import_module(f"fsgan.transfer.{name}").make())


def weights(run, states):
    """The parameters of both networks in the first seed's state."""
    first = jax.tree.map(lambda x: np.asarray(x)[0], (states.params, states.frozen))
    return gan.join(run.method, *first)
