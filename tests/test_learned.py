"""Learned settings of the inner loop, its variants, and outer losses: all against references."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys
from test_tasks import allclose, along, directional, episodes, float64  # noqa: F401

from fsgan import Method, Pair, gan, learned, losses, outer_losses, subspaces, tasks
from fsgan.meta import anil, dawson, fomaml, maml, reptile
from fsgan.tasks import Inner

PENALTY = losses.penalty(r1=0.3)  # costs much compilation: for those alone who ask for it


def noise_like(key, tree):
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves) or 1)[: len(leaves)]
    noise = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return structure.unflatten(noise)


def setting(key, names=(), steps=3, **options):
    """An inner loop, its meta-parameters moved off their start, and an episode."""
    game = toys.game(penalty=PENALTY if "penalty" in names else None)
    inner = Inner(
        game, toys.sgd(0.2), steps=steps, learned=learned.make(names, steps=steps), **options
    )
    networks = toys.params(key, game)
    settings = jax.tree.map(lambda x: jnp.asarray(x, float), inner.learned.init(networks))
    moved = jax.tree.map(lambda x, e: x + 0.1 * e, settings, noise_like(key, settings))
    return inner, tasks.unite(networks, moved), episodes(key)


def query_loss(inner, loss, key, episode, **options):
    """The outer losses of the meta-parameters, put together by hand."""
    adapt = tasks.make_adapt(inner, **options)
    inner_key, outer = jax.random.split(key)
    return jax.jit(
        lambda p: loss(inner.game, adapt(p, inner_key, episode.support)[0], episode.query, outer)[0]
    )


def check_gradient(gradient, of_g, of_d, params, key):
    """Each player's gradient, along a random direction, against finite differences of its loss."""
    for player, function in (("g", of_g), ("d", of_d)):
        own = getattr(params, player)
        direction = noise_like(key, own)
        expected = directional(
            lambda own, n=player, f=function: f(params._replace(**{n: own})), own, direction
        )
        found = along(getattr(gradient, player), direction)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_gradients_of_learned_settings_are_exact(key):
    """All settings at once, then each by itself, in one compiled program."""
    inner, params, episode = setting(key, learned.SETTINGS)
    gradient, _ = jax.jit(maml.make(inner).gradient)(params, key, episode, jnp.int32(0))
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    both = query_loss(inner, outer_losses.adversarial, key, episode)
    check_gradient(gradient, lambda p: both(p).g, lambda p: both(p).d, params, key)
    for name in learned.SETTINGS:
        for player in Pair._fields:
            own = getattr(params, player)
            if not jax.tree.leaves(own["inner"][name]):
                continue  # the penalty is the discriminator's alone

            def loss(x, player=player, own=own, name=name):
                moved = {**own, "inner": {**own["inner"], name: x}}
                return getattr(both(params._replace(**{player: moved})), player)

            direction = noise_like(key, own["inner"][name])
            expected = directional(loss, own["inner"][name], direction)
            found = along(getattr(gradient, player)["inner"][name], direction)
            np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=f"{name} of {player}")
            assert expected != 0


def test_settings_begin_as_the_plain_inner_loop(key):
    """All but the schedule's slow fall and the momentum of 0.1."""
    inner, params, episode = setting(key, sorted(set(learned.SETTINGS) - {"schedule", "momentum"}))
    networks, _ = tasks.separate(params)
    begin = tasks.unite(networks, inner.learned.init(networks))
    plain = dataclasses.replace(inner, learned=learned.nothing)
    ours, _ = jax.jit(tasks.make_adapt(inner))(begin, key, episode.support)
    expected, _ = jax.jit(tasks.make_adapt(plain))(networks, key, episode.support)
    allclose(ours, expected, rtol=1e-6)


def test_schedule_is_the_exponential(key):
    """Updates of 1 come out as eta0 exp(-eta1 t), t = 0, 1, 2."""
    arrays = {"schedule": {"a": jnp.log(0.5), "b": jnp.log(jnp.expm1(0.3))}}
    _, tx = learned.make(["schedule"], steps=3).bind(Pair(arrays, arrays), None, toys.sgd(1.0))
    state = tx.g.init({"w": jnp.zeros(())})
    for t in range(3):
        update, state = tx.g.update({"w": jnp.ones(())}, state)
        np.testing.assert_allclose(update["w"], -0.5 * np.exp(-0.3 * t), rtol=1e-9)


def test_rates_for_each_step_are_used_in_turn_and_the_last_one_beyond(key):
    arrays = {"per_leaf_and_step": {"w": jnp.log(jnp.array([1.0, 2.0]))}}
    _, tx = learned.make(["per_leaf_and_step"], steps=2).bind(
        Pair(arrays, arrays), None, toys.sgd(1.0)
    )
    state, found = tx.d.init({"w": jnp.zeros(())}), []
    for _ in range(3):
        update, state = tx.d.update({"w": jnp.ones(())}, state)
        found.append(float(update["w"]))
    np.testing.assert_allclose(found, [-1.0, -2.0, -2.0])


def test_first_order_rates_need_no_hessian(key):
    """d L / d a = -sum_t alpha <grad L(w_n), g_t>, the gradients taken as constants."""
    inner, params, episode = setting(key, ["per_leaf"])
    gradient, _ = jax.jit(fomaml.make(inner).gradient)(params, key, episode, jnp.int32(0))
    inner_key, outer = jax.random.split(key)
    path, _ = jax.jit(tasks.make_adapt(inner, history=True))(params, inner_key, episode.support)
    networks, _ = tasks.separate(params)
    end = jax.tree.map(lambda x: x[-1], path)
    slope = jax.grad(lambda p: outer_losses.adversarial(inner.game, p, episode.query, outer)[0].g)(
        end
    ).g
    # With plain SGD inside, sum_t alpha g_t is the way from the end back to the start.
    expected = jax.tree.map(lambda s, a, b: jnp.vdot(s, b - a), slope, networks.g, end.g)
    allclose(gradient.g["inner"]["per_leaf"], expected, rtol=1e-9)


def test_averages_of_the_inner_iterates(key):
    inner, params, episode = setting(key, steps=5)
    path, _ = jax.jit(tasks.make_adapt(inner, history=True))(params, key, episode.support)
    means = {"uniform": jax.tree.map(lambda x: x.mean(0), path)}
    # Uniform over the first three steps; then each next one has a weight of 1 - sqrt(1/2).
    s = 1 - 0.5**0.5
    weights = jnp.array([(1 - s) ** 2 / 3] * 3 + [(1 - s) * s, s])
    means["ema"] = jax.tree.map(lambda x: jnp.tensordot(weights, x, 1), path)
    for average, expected in means.items():
        averaged = dataclasses.replace(inner, average=average)
        found, _ = jax.jit(tasks.make_adapt(averaged))(params, key, episode.support)
        allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_remat_and_unroll_change_nothing(key):
    inner, params, episode = setting(key, ["per_leaf"])
    inner = dataclasses.replace(inner, steps=4)  # with remat, two stretches of two
    gradients = [
        jax.jit(maml.make(dataclasses.replace(inner, **options), multi_step_steps=2).gradient)(
            params, key, episode, jnp.int32(0)
        )[0]
        for options in ({}, {"remat": True, "unroll": 2})
    ]
    allclose(*gradients, rtol=1e-9, atol=1e-14)


def test_number_of_inner_steps_is_drawn_from_the_key(key):
    inner, params, episode = setting(key, fewest=1)
    drawn = tasks.make_adapt(inner, draw=True)
    ends = jax.jit(lambda k: drawn(params, k, episode.support)[0].g["head"]["bias"])
    path_of = jax.jit(tasks.make_adapt(inner, history=True))
    found = set()
    for k in jax.random.split(key, 12):
        inner_key, _ = jax.random.split(k)
        path, _ = path_of(params, inner_key, episode.support)
        steps = [n for n in range(3) if np.allclose(path.g["head"]["bias"][n], ends(k), rtol=1e-9)]
        found.add(*steps)
    assert found == {0, 1, 2}


def test_distance_teaches_both_players(key):
    inner, params, episode = setting(key)
    loss = outer_losses.distance(samples=4)
    gradient, metrics = jax.jit(maml.make(inner, loss).gradient)(params, key, episode, jnp.int32(0))
    value = query_loss(inner, loss, key, episode)
    check_gradient(gradient, value, value, params, key)
    np.testing.assert_allclose(metrics["distance"], value(params), rtol=1e-9)
    first, _ = jax.jit(fomaml.make(inner, loss).gradient)(params, key, episode, jnp.int32(0))
    assert not any(np.any(x) for x in jax.tree.leaves(first.d))


def test_mixed_adds_the_distance_to_both_losses(key):
    inner, params, episode = setting(key)
    networks, _ = tasks.separate(params)
    other = outer_losses.distance(samples=4)
    own_key, other_key = jax.random.split(key)
    args = inner.game, networks, episode.query
    mixed, _ = outer_losses.mixed(0.5, other)(*args, key)
    own, _ = outer_losses.adversarial(*args, own_key)
    value, _ = other(*args, other_key)
    allclose(mixed, Pair(own.g + 0.5 * value, own.d + 0.5 * value), rtol=1e-12)


def test_anil_is_maml_on_the_heads(key):
    inner, params, episode = setting(key)
    learner = anil.make(inner)
    adapted, _ = jax.jit(tasks.make_adapt(learner.inner))(params, key, episode.support)
    allclose(adapted.g["block0"], params.g["block0"], rtol=0)
    allclose(adapted.d["block0"], params.d["block0"], rtol=0)
    assert not np.allclose(adapted.d["head"]["kernel"], params.d["head"]["kernel"])
    with pytest.raises(ValueError, match="leaves nothing to train"):
        tasks.make_adapt(anil.make(inner, d_head="tail").inner)(params, key, episode.support)


@pytest.mark.parametrize("first_order", [True, False])
def test_dawson_judges_by_the_critic_that_knows_the_query(key, first_order):
    inner, params, episode = setting(key)
    learner = dawson.make(inner, d_steps=2, first_order=first_order)
    gradient, _ = jax.jit(learner.gradient)(params, key, episode, jnp.int32(0))
    players, rate = gan.objectives(inner.game), 0.2
    s_key, q_key, g_key, last = jax.random.split(key, 4)

    def tune(g, d, images, keys):
        path = []
        for k in jax.random.split(keys, 2):
            slope = jax.grad(lambda d, k=k: players.d(Pair(g, d), images, k, {})[0])(d)
            d = jax.tree.map(lambda x, s: x - rate * s, d, slope)
            path.append(d)
        return path

    def of_d(d):
        keys = (jax.random.fold_in(last, i) for i in range(2))
        return sum(
            players.d(Pair(params.g, after), episode.query, k, {})[0]
            for after, k in zip(tune(params.g, d, episode.support, s_key), keys, strict=True)
        )

    def critics(g):
        """Those that know the support and the query: they learned against g, too."""
        return (
            tune(g, params.d, episode.support, s_key)[-1],
            tune(g, params.d, episode.query, q_key)[-1],
        )

    def g_tuned(g, d_s):
        slope = jax.grad(lambda g: players.g(Pair(g, d_s), episode.support, g_key, {})[0])(g)
        return jax.tree.map(lambda x, s: x - rate * s, g, slope)

    def of_g(g):
        d_s, d_q = critics(g)
        return players.g(Pair(g_tuned(g, d_s), d_q), episode.query, last, {})[0]

    @jax.jit
    def by_hand(g):
        d_s, d_q = critics(g)
        at = jax.grad(lambda g: players.g(Pair(g, d_q), episode.query, last, {})[0])
        return at(g_tuned(g, d_s))

    if first_order:
        allclose(gradient.g, by_hand(params.g), rtol=1e-9)
    else:
        both = jax.jit(lambda p: of_g(p.g)), jax.jit(lambda p: of_d(p.d))
        check_gradient(gradient, *both, params, key)


def test_only_what_is_named_is_meta_learned(key):
    inner, params, _ = setting(key)
    learner, tx = reptile.make(inner), Pair(optax.adam(0.1), optax.adam(0.1))
    state = tasks.start(params, key, tx, learner)
    after, _ = jax.jit(tasks.make_step(learner, tx, only="d/head"))(state, episodes(key, 2))
    allclose(after.params.g, state.params.g, rtol=0)
    allclose(after.params.d["block0"], state.params.d["block0"], rtol=0)
    assert not np.allclose(after.params.d["head"]["kernel"], state.params.d["head"]["kernel"])
    with pytest.raises(ValueError, match="leaves nothing to meta-learn"):
        tasks.make_step(learner, tx, only="tail")(state, episodes(key, 2))


def test_what_cannot_be_learned_is_an_error(key):
    with pytest.raises(ValueError, match="unknown learned setting 'rate'"):
        learned.make(["rate"], steps=2)
    inner, params, episode = setting(key, ["penalty"])
    bare = dataclasses.replace(inner, game=toys.game())
    with pytest.raises(ValueError, match="no penalty whose weight"):
        tasks.make_adapt(bare)(params, key, episode.support)
    for learner in (reptile, dawson):
        with pytest.raises(ValueError, match="learn"):
            learner.make(inner)
    head = subspaces.named("head")
    part = toys.game(method=Method(subspace=Pair(head, head)))
    with pytest.raises(ValueError, match="moves all parameters"):
        dawson.make(dataclasses.replace(inner, game=part, learned=learned.nothing))
    with pytest.raises(ValueError, match="takes all support images in each step"):
        dawson.make(dataclasses.replace(inner, batch=2, learned=learned.nothing))
