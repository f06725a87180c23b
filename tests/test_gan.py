"""The core: steps, averages, subspaces, and the foreign transforms that they must survive."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys

from fsgan import Method, Pair, gan, losses, subspaces
from fsgan.transfer import imle


def tree_equal(a, b) -> bool:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in leaves)


@pytest.fixture
def begun(key):
    game, tx = toys.game(), toys.sgd()
    return game, tx, gan.start(gan.init(key, game), key, tx)


def test_step_is_one_descent_of_each_player_in_turn(key, begun):
    """By hand: D descends at the initial weights, then G at the updated discriminator."""
    game, tx, state = begun
    real = toys.images(key, 5)
    after, metrics = jax.jit(gan.make_step(game, tx))(state, real)

    players = gan.objectives(game)
    d_key, g_key = jax.random.split(jax.random.fold_in(key, 0))
    start = state.params
    (d_loss, _), d_grad = jax.value_and_grad(
        lambda d: players.d(start._replace(d=d), real, d_key, {}), has_aux=True
    )(start.d)
    middle = start._replace(d=jax.tree.map(lambda w, g: w - 0.1 * g, start.d, d_grad))
    (g_loss, _), g_grad = jax.value_and_grad(
        lambda g: players.g(middle._replace(g=g), real, g_key, {}), has_aux=True
    )(start.g)
    end = middle._replace(g=jax.tree.map(lambda w, g: w - 0.1 * g, start.g, g_grad))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), after.params, end
    )
    np.testing.assert_allclose([metrics["d_loss"], metrics["g_loss"]], [d_loss, g_loss], rtol=1e-5)
    assert set(metrics) == {"g_loss", "d_loss", "d_real", "d_fake"}


def test_adapt_is_a_loop_of_steps(key, begun):
    game, tx, state = begun
    step = gan.make_step(game, tx)
    batches = toys.images(key, 3, 5)
    scanned, metrics = jax.jit(lambda s, b: gan.adapt(step, s, b))(state, batches)
    looped = state
    for batch in batches:
        looped, _ = jax.jit(step)(looped, batch)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)  # noqa: E731
    jax.tree.map(close, scanned.params, looped.params)
    assert int(scanned.step) == 3
    assert metrics["g_loss"].shape == (3,)


def test_latents_are_fresh_in_every_step_and_decided_by_key_and_step(key, begun):
    game, tx, state = begun
    step, real = jax.jit(gan.make_step(game, tx)), toys.images(key, 5)
    assert tree_equal(step(state, real)[0].params, step(state, real)[0].params)
    later = state.replace(step=state.step + 1)
    assert not tree_equal(step(state, real)[0].params, step(later, real)[0].params)
    assert not tree_equal(
        step(state, real)[0].params, step(state.replace(key=jax.random.key(1)), real)[0].params
    )


def test_d_steps_take_a_batch_each(key):
    game, tx = toys.game(d_steps=2), toys.sgd()
    state = gan.start(gan.init(key, game), key, tx)
    step, real = jax.jit(gan.make_step(game, tx)), toys.images(key, 2, 5)
    after, _ = step(state, real)
    other, _ = step(state, real.at[0].set(-real[0]))  # only the first D step sees it
    assert int(after.step) == 1
    assert not tree_equal(after.params.d, other.params.d)


@pytest.mark.parametrize("loss", losses.ADVERSARIAL)
def test_repeat_is_a_batch_of_repeated_images(key, loss):
    """Of which each is judged once: losses and slopes of both players are the same."""
    penalty = losses.penalty(gradient_penalty=1.0, r1=0.5)
    once = toys.game(loss, penalty=penalty, method=imle.make(shift=1))
    thrice = gan.objectives(dataclasses.replace(once, repeat=3))
    once, params = gan.objectives(once), gan.init(key, once)
    real = toys.images(key, 5)

    def of(player, real):
        (value, metrics), slope = jax.value_and_grad(player, has_aux=True)(params, real, key, {})
        return value, metrics, slope

    for short, long in zip(thrice, once, strict=True):
        found, expected = of(short, real), of(long, jnp.tile(real, (3, 1, 1, 1)))
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
        jax.tree.map(close, found, expected)
        assert abs(found[0] - of(long, real)[0]) > 1e-3  # whose latents are others


def test_uniform_average():
    """A decay of 1: the mean of the parameters after each step, without the first ones."""
    seen = [jnp.array([3.0]), jnp.array([4.0]), jnp.array([8.0])]
    state = gan.GANState(jnp.zeros((), int), None, None, {}, {}, Pair(jnp.array([100.0]), {}), {})
    for params in seen:
        state = gan.average(state.replace(params=Pair(params, {})), 1)
    np.testing.assert_allclose(state.ema.g, [5.0], rtol=1e-6)


def test_ema_follows_the_generator_and_warms_up(key, begun):
    game, tx, state = begun
    step = jax.jit(gan.make_step(game, tx, ema_decay=0.5))
    after, _ = step(state, toys.images(key, 5))
    # the first decay is (1 + 0) / (10 + 0) = 0.1
    expected = jax.tree.map(lambda e, p: 0.1 * e + 0.9 * p, state.ema.g, after.params.g)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), after.ema.g, expected)
    assert after.ema.d == {}
    assert tree_equal(gan.weights(after).g, after.ema.g)
    assert tree_equal(gan.weights(after, ema=False).g, after.params.g)


def test_penalty_and_method_hooks_reach_the_losses(key):
    real = toys.images(key, 5)
    hooked = Method(
        latents=lambda key, z, memory: 0.5 * z,
        augment=lambda key, images, memory: -images,
        g_loss=lambda game, play, loss: 2 * loss + play.memory["extra"] + 0 * play.fake.sum(),
        d_loss=lambda game, play, loss: loss + play.on_real.sum() + play.augment(play.real).sum(),
        report=lambda play: {"largest": play.on_fake.max()},
    )
    game = toys.game(method=hooked, penalty=losses.penalty(r1=3.0))
    params, memory = gan.init(key, game), {"extra": jnp.ones(())}
    g_loss, g_metrics = gan.objectives(game).g(params, real, key, memory)
    d_loss, d_metrics = gan.objectives(game).d(params, real, key, memory)

    z_key = jax.random.split(key, 5)[0]
    fake = game.nets.g.apply({"params": params.g}, 0.5 * gan.latents(z_key, 5, 3))
    critic = lambda x: game.nets.d.apply({"params": params.d}, -x)  # noqa: E731
    on_real, on_fake = critic(real), critic(fake)
    np.testing.assert_allclose(g_loss, 2 * game.loss.g(on_real, on_fake) + 1, rtol=1e-5)
    r1 = losses.penalty(r1=3.0)(critic, real, fake, key)
    expected = game.loss.d(on_real, on_fake) + on_real.sum() - real.sum() + r1
    np.testing.assert_allclose(d_loss, expected, rtol=1e-5)
    assert set(g_metrics) == {"g_loss"}
    np.testing.assert_allclose(d_metrics["largest"], on_fake.max(), rtol=1e-5)


def test_finish_sees_the_step_and_decides_what_is_left_of_it(key):
    def finish(game, before, after, real, metrics):
        params = after.params._replace(g=before.params.g)
        memory = {"mean": real.mean(), "loss": metrics["g_loss"] + 0 * before.memory["loss"]}
        return after.replace(params=params, memory=memory)

    method, tx = Method(finish=finish), toys.sgd()
    game, real = toys.game(method=method), toys.images(key, 5)
    memory = {"mean": jnp.zeros(()), "loss": jnp.zeros(())}
    begun = gan.start(gan.init(key, game), key, tx, method, memory=memory)
    after, metrics = jax.jit(gan.make_step(game, tx))(begun, real)
    assert tree_equal(after.params.g, begun.params.g)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6)  # noqa: E731
    jax.tree.map(close, after.ema.g, begun.params.g)  # averaged is what `finish` returned
    assert not tree_equal(after.params.d, begun.params.d)
    np.testing.assert_allclose(after.memory["mean"], real.mean(), rtol=1e-5)
    assert after.memory["loss"] == metrics["g_loss"]


class TestSubspaces:
    def test_join_inverts_split_and_parts_are_disjoint(self, key):
        params = gan.init(key, toys.game()).d
        for space in (subspaces.everything, subspaces.named("head"), subspaces.freeze("block0")):
            trainable, frozen = space.split(params)
            assert tree_equal(space.join(trainable, frozen), params)
            count = len(jax.tree.leaves(trainable)) + len(jax.tree.leaves(frozen))
            assert count == len(jax.tree.leaves(params))

    def test_frozen_weights_are_bit_equal_and_have_no_optimizer_state(self, key):
        method = Method(subspace=Pair(subspaces.named("head"), subspaces.freeze("block0")))
        game = toys.game(method=method)
        tx = Pair(optax.adam(0.1), optax.adam(0.1))
        source = gan.init(key, game)
        state = gan.start(source, key, tx, method)
        state, _ = gan.adapt(gan.make_step(game, tx), state, toys.images(key, 3, 5))
        end = gan.weights(state, method, ema=False)
        for before, after in zip(source, end, strict=True):
            assert tree_equal(before["block0"], after["block0"])
            assert not tree_equal(before["head"], after["head"])
        moments = jax.tree.leaves(state.opt.g[0].mu)
        assert sum(m.size for m in moments) == 6 * 16 + 16

    def test_a_pattern_matches_whole_path_parts(self, key):
        params = {"block1": {"kernel": jnp.ones(1)}, "block10": {"kernel": jnp.zeros(1)}}
        trainable, _ = subspaces.named("block1").split(params)
        assert set(trainable) == {"block1/kernel"}

    def test_an_empty_selection_is_an_error_that_lists_the_names(self, key):
        params = gan.init(key, toys.game()).d
        with pytest.raises(ValueError, match=r"'tail' leaves nothing.*block0/kernel.*head/bias"):
            subspaces.named("tail").split(params)
        with pytest.raises(ValueError, match="leaves nothing to train"):
            subspaces.freeze("block0", "head").split(params)
        with pytest.raises(ValueError, match=r"no layer 'tail' to freeze among: .*head/bias"):
            subspaces.freeze("block0", "tail").split(params)


def test_truncation_scales_the_latents_of_samples_alone(key):
    game = toys.game()
    params = gan.init(key, game)
    truncated = dataclasses.replace(game, truncation=0.5)
    expected = game.nets.g.apply({"params": params.g}, 0.5 * gan.latents(key, 4, 3))
    np.testing.assert_array_equal(gan.sample(truncated, params, key, 4), expected)
    real = toys.images(key, 4)
    whole, half = (gan.objectives(each).g(params, real, key, {})[0] for each in (game, truncated))
    assert whole == half


def test_steps_run_under_foreign_transforms(key, begun):
    """vmap over seeds, grad through adaptation, and scan inside somebody else's jit."""
    game, tx, _ = begun
    step = gan.make_step(game, tx)
    batches = toys.images(key, 2, 5)

    def train(key, scale):
        params = jax.tree.map(lambda x: scale * x, gan.init(key, game))
        state, _ = gan.adapt(step, gan.start(params, key, tx), batches)
        return gan.sample(game, gan.weights(state), key, 2).mean()

    keys = jax.random.split(key, 3)
    many = jax.jit(jax.vmap(train, (0, None)))(keys, 1.0)
    alone = [train(k, 1.0) for k in keys]
    np.testing.assert_allclose(many, alone, rtol=1e-4, atol=1e-6)
    slope = jax.jit(jax.grad(train, 1))(key, 1.0)
    assert np.isfinite(slope)
    assert slope != 0


def test_state_holds_arrays_only_and_can_be_donated(key):
    game, tx = toys.game(), toys.sgd()
    state = jax.jit(lambda k: gan.start(gan.init(k, game), k, tx))(key)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    step = jax.jit(gan.make_step(game, tx), donate_argnums=0)
    after, _ = step(state, toys.images(key, 5))
    assert jax.tree.leaves(state.params)[0].is_deleted()
    assert jax.tree.structure(after) == jax.tree.structure(state)
