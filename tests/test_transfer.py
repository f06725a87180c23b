"""Every file of fsgan/transfer keeps the contract; and what makes each method that method."""

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import fsgan.transfer
from fsgan import gan, plugins
from fsgan.transfer import finetune, freeze_d


def adapted(key, method, steps=3):
    """Source parameters, and the state after a few steps on four target images."""
    game = toys.game(method=method)
    tx = toys.sgd(0.1)
    source, real = gan.init(key, game), toys.images(key, 4)
    params, memory = method.start(source, real, key)
    state = gan.start(params, key, tx, method, memory=memory)
    batches = jnp.broadcast_to(real, (steps, *real.shape))
    return source, *jax.jit(lambda s, b: gan.adapt(gan.make_step(game, tx), s, b))(state, batches)


def equal(a, b) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize("name", plugins.names(fsgan.transfer))
class TestEveryMethod:
    def make(self, name):
        return importlib.import_module(f"fsgan.transfer.{name}").make()

    def test_keeps_structure_and_frozen_leaves_and_trains_the_rest(self, key, name):
        method = self.make(name)
        source, state, metrics = adapted(key, method)
        params, memory = method.start(source, toys.images(key, 4), key)
        begun = gan.start(params, key, toys.sgd(), method, memory=memory)
        assert jax.tree.structure(begun) == jax.tree.structure(state)
        assert equal(begun.frozen, state.frozen)
        for before, after in zip(begun.params, state.params, strict=True):
            assert not equal(before, after)
        assert all(np.isfinite(value).all() for value in metrics.values())
        end = gan.weights(state, method)
        assert jax.tree.structure(end) == jax.tree.structure(params)

    def test_is_deterministic_and_runs_under_vmap_over_seeds(self, key, name):
        method = self.make(name)
        _, once, _ = adapted(key, method)
        _, again, _ = adapted(key, method)
        assert equal(once.params, again.params)
        seeds = jax.random.split(key, 2)
        many = jax.vmap(lambda k: adapted(k, method)[1].params)(seeds)
        alone = adapted(seeds[1], method)[1].params
        jax.tree.map(
            lambda m, a: np.testing.assert_allclose(m[1], a, rtol=1e-4, atol=1e-6), many, alone
        )

    def test_every_option_has_a_default(self, name):
        module = importlib.import_module(f"fsgan.transfer.{name}")
        assert set(inspect.signature(module.make).parameters) == set(plugins.defaults(module.make))
        assert module.__doc__


def test_finetune_trains_everything(key):
    source, state, _ = adapted(key, finetune.make())
    assert jax.tree.structure(state.params) == jax.tree.structure(source)
    assert state.frozen == ({}, {})


def test_freeze_d_keeps_the_first_blocks_of_the_discriminator(key):
    source, state, _ = adapted(key, freeze_d.make(blocks=1))
    end = gan.weights(state, freeze_d.make(blocks=1), ema=False)
    assert equal(end.d["block0"], source.d["block0"])
    assert not equal(end.d["head"], source.d["head"])
    assert not equal(end.g["block0"], source.g["block0"])
    assert set(state.params.d) == {"head/kernel", "head/bias"}


def test_freeze_d_beyond_the_network_is_an_error(key):
    with pytest.raises(ValueError, match="no layer 'block1' to freeze"):
        adapted(key, freeze_d.make(blocks=8))
