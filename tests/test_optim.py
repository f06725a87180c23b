"""The transformations that optax lacks, against optax and the published recursions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fsgan import build, optim


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def run(tx, start, gradients):
    """The iterates of an optimizer on given gradients."""
    params, state, path = start, tx.init(start), []
    for g in gradients:
        updates, state = tx.update({"w": g}, state, params)
        params = optax.apply_updates(params, updates)
        path.append(np.asarray(params["w"]))
    return np.array(path)


def gradients(key, steps=6):
    return list(jax.random.normal(key, (steps, 3), float))


def test_clipping_is_optax_with_finite_derivatives_at_zero(key):
    tree = {"a": jax.random.normal(key, (3,)), "b": jax.random.normal(key, (2, 2))}
    for largest in (0.5, 1e3):
        clip, oracle = optim.clip_by_norm(largest), optax.clip_by_global_norm(largest)
        state = clip.init(tree)
        expected = oracle.update(tree, oracle.init(tree))[0]
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9),
            clip.update(tree, state)[0],
            expected,
        )
    slope = jax.grad(lambda x: clip.update({"a": x}, state)[0]["a"].sum())(jnp.zeros(3))
    assert np.isfinite(slope).all()


def test_ftrl_is_the_published_recursion(key):
    """McMahan et al. 2013, algorithm 1, with beta, l1 and l2, coordinate by coordinate."""
    rate, l1, l2, beta = 0.3, 0.4, 0.2, 1.0
    given = gradients(key)
    found = run(
        optim.ftrl(rate, l1=l1, l2=l2, beta=beta, initial_accumulator=0.0),
        {"w": jnp.zeros(3)},
        given,
    )
    z, n, w, path = np.zeros(3), np.zeros(3), np.zeros(3), []
    for g in map(np.asarray, given):
        for i in range(3):
            sigma = (np.sqrt(n[i] + g[i] ** 2) - np.sqrt(n[i])) / rate
            z[i] += g[i] - sigma * w[i]
            n[i] += g[i] ** 2
            denominator = (beta + np.sqrt(n[i])) / rate + l2
            w[i] = 0 if abs(z[i]) <= l1 else -(z[i] - np.sign(z[i]) * l1) / denominator
        path.append(w.copy())
    np.testing.assert_allclose(found, path, rtol=1e-9)
    assert (found == 0).any()  # l1 makes zeros


def test_ftrl_without_regularisation_is_adagrad_from_any_start(key):
    start, given = {"w": jnp.array([1.0, -2.0, 0.5])}, gradients(key)
    ours = run(optim.ftrl(0.3), start, given)
    adagrad = run(optax.adagrad(0.3, initial_accumulator_value=0.1, eps=0.0), start, given)
    np.testing.assert_allclose(ours, adagrad, rtol=1e-9)


def test_ftrl_stays_where_it_starts_without_gradients():
    tx, start = optim.ftrl(0.3, l1=0.1, l2=0.5, beta=1.0), {"w": jnp.array([1.0, -2.0, 0.0])}
    updates, _ = tx.update({"w": jnp.zeros(3)}, tx.init(start), start)
    np.testing.assert_allclose(updates["w"], 0, atol=1e-12)
    slope = jax.grad(lambda g: tx.update({"w": g}, tx.init(start), start)[0]["w"].sum())
    assert np.isfinite(slope(jnp.zeros(3))).all()


def test_lookahead_is_optax_lookahead(key):
    start, given = {"w": jnp.array([1.0, -2.0, 0.5])}, gradients(key)
    found = run(optim.lookahead(optax.adam(0.1), 2, rate=0.3), start, given)
    oracle = optax.lookahead(optax.adam(0.1), sync_period=2, slow_step_size=0.3)
    params = optax.LookaheadParams.init_synced(start)
    state, path = oracle.init(params), []
    for g in given:
        updates, state = oracle.update({"w": g}, state, params)
        params = optax.apply_updates(params, updates)
        path.append(np.asarray(params.fast["w"]))
    np.testing.assert_allclose(found, path, rtol=1e-9)


def test_layers_have_rates_of_their_own():
    tx = optax.chain(optax.sgd(1.0), optim.scale_layers({"stem": 3.0, "stem/norm|head": 2.0}))
    zero = jnp.zeros(())
    params = {"stem": {"norm": zero, "dense": zero}, "head": zero}
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    assert jax.tree.map(float, updates) == {"stem": {"norm": -6.0, "dense": -3.0}, "head": -2.0}
    with pytest.raises(ValueError, match="no layer 'ste' to scale among: head, stem/dense"):
        optim.scale_layers({"ste": 2.0}).init(params)


def test_wrong_options_are_errors():
    with pytest.raises(ValueError, match="leave its schedule constant"):
        optim.ftrl(optax.constant_schedule(0.1))
    with pytest.raises(ValueError, match="period of 1 or more"):
        optim.lookahead(optax.sgd(0.1), 0)
    for layers in ({"stem": 2.0}, {"g/": 2.0}, {"g/stem": "fast"}):
        with pytest.raises(ValueError, match="give a player, its layer and a factor"):
            build.layer_factors(layers)
    assert build.layer_factors({"g/stem": 2.0, "d/head": 3}) == {
        "g": {"stem": 2.0},
        "d": {"head": 3},
    }
