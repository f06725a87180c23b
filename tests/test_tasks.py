"""Meta-learners: exact gradients in float64, identities between them, and means over tasks."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys

import fsgan.meta
from fsgan import Episode, Method, Pair, gan, losses, plugins, sharding, subspaces, tasks
from fsgan.meta import fomaml, maml, reptile
from fsgan.tasks import Inner


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def episodes(key, *leading: int, shots: int = 3, queries: int = 2) -> Episode:
    s, q = jax.random.split(key)
    return Episode(
        support=toys.images(s, *leading, shots),
        query=toys.images(q, *leading, queries),
        label=jnp.zeros(leading, jnp.int32),
    )


def allclose(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def query_losses(game, tx, steps, key, episode):
    """The two outer losses as functions of the initial parameters, as MAML defines them."""
    adapt = tasks.make_adapt(Inner(game, tx, steps=steps))
    players = gan.objectives(game)
    inner, g_key, d_key = maml_keys(key)

    def both(params):
        adapted, _ = adapt(params, inner, episode.support)
        return Pair(
            players.g(adapted, episode.query, g_key, {})[0],
            players.d(adapted, episode.query, d_key, {})[0],
        )

    return both


def maml_keys(key):
    """The keys of the inner loop and of the two query losses."""
    inner, outer = jax.random.split(key)
    return inner, *jax.random.split(outer)


def own_gradients(players, params, query, g_key, d_key):
    """Each player's gradient of its own loss, without any adaptation."""

    @jax.jit
    def both(params):
        of_g = jax.grad(lambda p: players.g(p, query, g_key, {})[0])(params)
        of_d = jax.grad(lambda p: players.d(p, query, d_key, {})[0])(params)
        return of_g.g, of_d.d

    return both(params)


def exact_gradient(game, tx, params, key, episode, steps=3):
    learner = maml.make(Inner(game, tx, steps=steps))
    return jax.jit(learner.gradient)(params, key, episode, jnp.int32(0))


def along(gradient, direction):
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))


def directional(function, params, direction, h=1e-5):
    """Central difference of order 4 along a direction in parameter space."""
    at = lambda t: function(jax.tree.map(lambda p, d: p + t * d, params, direction))  # noqa: E731
    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


GAMES = {
    "non_saturating": {},
    "relativistic": {"penalty": losses.penalty(r1=0.3, r2=0.2)},
    "wasserstein": {"penalty": losses.penalty(gradient_penalty=1.0), "d_steps": 2},
}
OPTIMIZERS = {"non_saturating": Pair(*(optax.adam(0.05, eps_root=1e-8),) * 2)}


@pytest.mark.parametrize("name", GAMES)
def test_maml_gradient_is_exact_through_the_whole_game(key, name):
    """Finite differences of each player's query loss, in each player's initial parameters."""
    game, tx = toys.game(name, **GAMES[name]), OPTIMIZERS.get(name, toys.sgd(0.2))
    params, episode = toys.params(key, game), episodes(key)
    gradient, _ = exact_gradient(game, tx, params, key, episode)
    both = jax.jit(query_losses(game, tx, 3, key, episode))
    noise = jax.tree.map(lambda p: jax.random.normal(key, p.shape), params)
    still = jax.tree.map(jnp.zeros_like, params)
    for player in ("g", "d"):
        direction = still._replace(**{player: getattr(noise, player)})
        expected = directional(lambda p, n=player: getattr(both(p), n), params, direction)
        found = along(getattr(gradient, player), getattr(noise, player))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_first_order_is_the_query_gradient_at_the_adapted_parameters(key):
    game, tx = toys.game(), toys.sgd(0.2)
    params, episode = toys.params(key, game), episodes(key)
    learner = maml.make(Inner(game, tx, steps=3), first_order_steps=5).gradient
    first, _ = jax.jit(learner)(params, key, episode, jnp.int32(4))
    inner, g_key, d_key = maml_keys(key)
    adapted, _ = jax.jit(tasks.make_adapt(Inner(game, tx, steps=3)))(params, inner, episode.support)
    players = gan.objectives(game)
    of_g, of_d = own_gradients(players, adapted, episode.query, g_key, d_key)
    allclose(first, Pair(of_g, of_d), rtol=1e-9)

    later, _ = jax.jit(learner)(params, key, episode, jnp.int32(5))
    exact, _ = exact_gradient(game, tx, params, key, episode)
    allclose(later, exact, rtol=1e-9)
    assert not np.allclose(first.g["head"]["bias"], exact.g["head"]["bias"], rtol=1e-3)


def test_warm_up_is_reptile(key):
    game, tx = toys.game(), toys.sgd(0.2)
    params, episode = toys.params(key, game), episodes(key)
    made = maml.make(Inner(game, tx, steps=3), warm_up_steps=5, first_order_steps=6)
    learner = jax.jit(made.gradient)
    follow = jax.jit(reptile.make(Inner(game, tx, steps=3)).gradient)
    back, _ = follow(params, key, episode, jnp.int32(4))
    allclose(learner(params, key, episode, jnp.int32(4))[0], back, rtol=1e-9, atol=1e-12)
    stages = [learner(params, key, episode, jnp.int32(t))[0].g["head"]["bias"] for t in (4, 5, 6)]
    assert not any(np.allclose(a, b) for a, b in itertools.pairwise(stages))


def test_multi_step_loss_counts_every_inner_step(key):
    """MAML++: the query losses after 1, 2 and 3 steps, weighted as at that outer step."""
    game, tx = toys.game(), toys.sgd(0.2)
    params, episode = toys.params(key, game), episodes(key)
    learner = maml.make(Inner(game, tx, steps=3), multi_step_steps=10).gradient
    gradient, _ = jax.jit(learner)(params, key, episode, jnp.int32(4))
    weights = [0.2, 0.2, 0.6]  # (1 - 4/10) / 3 each, the last one takes the rest
    np.testing.assert_allclose(maml.step_weights(jnp.int32(4), 3, 10), weights)
    np.testing.assert_allclose(maml.step_weights(jnp.int32(99), 3, 10), [0.01, 0.01, 0.98])

    players, (inner, outer) = gan.objectives(game), jax.random.split(key)
    keys = [jax.random.split(k) for k in jax.random.split(outer, 3)]

    def g_loss(params):
        total = 0.0
        for n, weight in enumerate(weights):
            path, _ = tasks.make_adapt(Inner(game, tx, steps=n + 1))(params, inner, episode.support)
            total += weight * players.g(path, episode.query, keys[n][0], {})[0]
        return total

    noise = jax.tree.map(lambda p: jax.random.normal(key, p.shape), params)
    still = jax.tree.map(jnp.zeros_like, params)
    expected = directional(jax.jit(g_loss), params, still._replace(g=noise.g))
    np.testing.assert_allclose(along(gradient.g, noise.g), expected, rtol=1e-6)


def test_maml_without_inner_steps_is_joint_training(key):
    game = toys.game()
    params, episode = toys.params(key, game), episodes(key)
    gradient, _ = exact_gradient(game, toys.sgd(), params, key, episode, steps=0)
    _, g_key, d_key = maml_keys(key)
    players = gan.objectives(game)
    of_g, of_d = own_gradients(players, params, episode.query, g_key, d_key)
    allclose(gradient, Pair(of_g, of_d), rtol=1e-9)


def test_first_order_costs_adaptation_and_each_players_own_gradient(key):
    """Nothing is pulled back along the other player's loss only to be thrown away."""
    game, tx = toys.game(nets=toys.CONV), toys.sgd()
    params, episode = toys.params(key, game), episodes(key)
    players, adapt = gan.objectives(game), tasks.make_adapt(Inner(game, tx, steps=1))

    def flops(function, *args) -> float:
        return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]

    needed = flops(lambda p: own_gradients(players, p, episode.query, key, key), params)
    needed += flops(lambda p: adapt(p, key, episode.support)[0], params)
    learner = fomaml.make(Inner(game, tx, steps=1)).gradient
    assert flops(learner, params, key, episode, jnp.int32(0)) < 1.05 * needed


def test_reptile_with_one_task_and_rate_one_is_fine_tuning(key):
    game, tx = toys.game(), toys.sgd(0.2)
    outer = Pair(optax.sgd(1.0), optax.sgd(1.0))
    learner = reptile.make(Inner(game, tx, steps=4))
    step = tasks.make_step(learner, outer)
    state = tasks.start(toys.params(key, game), key, outer, learner)
    batch = episodes(key, 1)
    after, _ = jax.jit(step)(state, batch)

    task_key = jax.random.split(jax.random.fold_in(key, 0), 1)[0]
    tuned = gan.start(state.params, task_key, tx)
    support = jnp.broadcast_to(batch.support[0], (4, *batch.support[0].shape))
    tuned, _ = jax.jit(lambda s, b: gan.adapt(gan.make_step(game, tx), s, b))(tuned, support)
    allclose(after.params, tuned.params, rtol=1e-9, atol=1e-12)


def test_minibatches_are_all_images_in_ever_new_orders(key):
    found = np.asarray(tasks.minibatches(key, jnp.arange(7.0), 3, 5))
    assert found.shape == (5, 3)
    orders = [found[:2].ravel(), found[2:4].ravel()]
    assert [len(set(order)) for order in orders] == [6, 6]
    assert (orders[0] != orders[1]).any()
    other = tasks.minibatches(jax.random.fold_in(key, 1), jnp.arange(7.0), 3, 5)
    assert (found != other).any()


def test_steps_take_mini_batches_of_a_larger_support(key):
    """As plain training steps on these batches; of a support that is not larger, all of it."""
    game, tx = toys.game("wasserstein", d_steps=2), toys.sgd(0.1)
    params, support = toys.params(key, game), episodes(key, shots=5).support

    def adapted(batch):
        return tasks.make_adapt(Inner(game, tx, steps=3, batch=batch))(params, key, support)[0]

    found = adapted(2)
    step_key, order_key = jax.random.split(key)
    batches = tasks.minibatches(order_key, support, 2, 6)
    batches = batches.reshape(3, 2, *batches.shape[1:])
    state = gan.start(params, step_key, tx, ema=False)
    expected, _ = gan.adapt(gan.make_step(game, tx), state, batches)
    allclose(found, expected.params, rtol=1e-10)
    allclose(adapted(5), adapted(None), rtol=0)


@pytest.mark.parametrize(
    ("chunk", "devices"), [(1, 0), (2, 0), (3, 0), (6, 0), (6, 1), (1, 2), (3, 2)]
)
def test_mean_over_tasks_does_not_depend_on_chunk_and_mesh(key, chunk, devices):
    keys, batch = jax.random.split(key, 6), episodes(key, 6)

    def function(factor, key, episode):
        return {"x": episode.support.sum() * jax.random.normal(key), "y": factor * episode.query}

    mesh = sharding.make_mesh(jax.devices()[:devices]) if devices else None
    mean = tasks.mean_over_tasks(function, 2.0, keys, batch, chunk=chunk, mesh=mesh)
    each = [function(2.0, k, jax.tree.map(lambda x, i=i: x[i], batch)) for i, k in enumerate(keys)]
    allclose(mean, jax.tree.map(lambda *x: sum(x) / 6, *each), rtol=1e-12)


def test_tasks_that_do_not_divide_into_chunks_are_an_error(key):
    with pytest.raises(ValueError, match="6 tasks cannot be taken 4 at a time"):
        tasks.mean_over_tasks(
            lambda s, k, e: k, None, jax.random.split(key, 6), episodes(key, 6), chunk=4
        )
    mesh = sharding.make_mesh()
    with pytest.raises(ValueError, match="6 tasks cannot be taken 2 at a time on 2 devices"):
        tasks.mean_over_tasks(
            lambda s, k, e: k, None, jax.random.split(key, 6), episodes(key, 6), chunk=2, mesh=mesh
        )


def test_history_ends_in_the_adapted_parameters(key):
    game, tx = toys.game(), toys.sgd(0.2)
    params, support = toys.params(key, game), episodes(key).support
    path, _ = jax.jit(tasks.make_adapt(Inner(game, tx, steps=3), history=True))(
        params, key, support
    )
    end, _ = jax.jit(tasks.make_adapt(Inner(game, tx, steps=3)))(params, key, support)
    allclose(jax.tree.map(lambda x: x[-1], path), end, rtol=1e-12)
    short, _ = jax.jit(tasks.make_adapt(Inner(game, tx, steps=1)))(params, key, support)
    allclose(jax.tree.map(lambda x: x[0], path), short, rtol=1e-12)


@pytest.mark.parametrize("module", [maml, reptile])
def test_inner_subspace_limits_the_inner_loop_only(key, module):
    """ANIL: the inner loop moves the heads alone, the outer loop everything."""
    head = subspaces.named("head")
    game, tx = toys.game(method=Method(subspace=Pair(head, head))), toys.sgd()
    learner, params = module.make(Inner(game, tx, steps=2)), toys.params(key, game)
    adapted, _ = jax.jit(tasks.make_adapt(learner.inner))(params, key, episodes(key).support)
    allclose(adapted.g["block0"], params.g["block0"], rtol=0)
    state = tasks.start(params, key, tx, learner)
    after, _ = jax.jit(tasks.make_step(learner, tx))(state, episodes(key, 4))
    moved = not np.allclose(after.params.g["block0"]["kernel"], params.g["block0"]["kernel"])
    assert moved == (module is maml)  # Reptile only follows what the inner loop moved


@pytest.mark.parametrize("name", plugins.names(fsgan.meta))
class TestEveryLearner:
    """The contract: every file of fsgan/meta is tested by existing."""

    def make(self, name, game, tx, **how):
        module = importlib.import_module(f"fsgan.meta.{name}")
        outer = Pair(optax.adam(1e-2), optax.adam(1e-2))
        learner = module.make(Inner(game, tx, steps=2))
        state = tasks.start(toys.params(jax.random.key(0), game), jax.random.key(0), outer, learner)
        return state, tasks.make_step(learner, outer, **how)

    def test_two_devices_share_the_tasks(self, key, name):
        """The sum is taken once; the inner optimizers' states begin on each device for itself."""
        batch, ends = episodes(key, 4), []
        momentum = Pair(optax.sgd(0.1, 0.9), optax.sgd(0.1, 0.9))
        for mesh in (None, sharding.make_mesh()):
            state, step = self.make(name, toys.game(), momentum, mesh=mesh)
            if mesh:
                state = jax.device_put(state, sharding.replicated(mesh))
            after, metrics = jax.jit(step)(state, batch)
            ends.append((after.params, metrics))
        allclose(*ends, rtol=1e-8, atol=1e-12)

    def test_step_keeps_the_state_and_moves_both_players(self, key, name):
        """And is deterministic, compiled once, and finite."""
        before, step = self.make(name, toys.game(), toys.sgd(), chunk=2)
        traces = []
        jitted = jax.jit(lambda s, b: traces.append(0) or step(s, b))
        after, metrics = jitted(before, episodes(key, 4))
        again, _ = jitted(before, episodes(key, 4))
        jitted(after, episodes(key, 4))
        allclose(after.params, again.params, rtol=0)
        assert len(traces) == 1
        assert jax.tree.structure(before) == jax.tree.structure(after)
        shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (before, after)]
        assert shapes[0] == shapes[1]
        for a, b in zip(before.params, after.params, strict=True):
            assert not np.allclose(a["head"]["kernel"], b["head"]["kernel"])
        assert all(np.isfinite(value) and value.ndim == 0 for value in metrics.values())
        for settings in (tasks.separate(state.params)[1] for state in (before, after)):
            assert (settings.g != {}) == (name in ("meta_sgd", "maml_plus_plus"))
        still = jax.tree.map(
            np.array_equal, *(tasks.separate(state.params)[1] for state in (before, after))
        )
        assert not any(jax.tree.leaves(still))  # what is learned besides moves, too
        assert int(after.step) == 1
