"""The contract of all metrics; the energy distance and its pixel features."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

import fsgan.metrics
from fsgan import plugins
from fsgan.features import pixels
from fsgan.metrics import _distances, check_finite, energy

OPTIONS = {
    "inception_score": {"splits": 1},  # parts in the order given cannot be invariant to order
    "modes": {"classes": 4},
    "recognisability": {"ways": 3, "trials": 5},
    "classification_accuracy": {"classes": 4, "steps": 5},
}


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


REAL, FAKE = normal(2, 24, 5) + np.array([[[0.0]], [[0.3]]], np.float32)
ARGUMENTS = {  # what `compute` may ask for, by name
    "real": REAL,
    "fake": FAKE,
    "support": normal(4, 5),
    "real_by_class": REAL.reshape(4, 6, 5),
    "fake_by_class": FAKE.reshape(4, 6, 5),
    "logits": normal(24, 4),
    "labels": np.arange(24) % 3,
    "real_labels": np.arange(24) % 4,
    "fake_labels": np.arange(24) % 4,
}


@pytest.mark.parametrize("name", plugins.names(fsgan.metrics))
class TestEveryMetric:
    def function(self, name, key):
        """A function of its arrays, and the arrays by name."""
        compute = plugins.find(fsgan.metrics, name).compute
        known = {**ARGUMENTS, "key": key}
        given = {k: known[k] for k in inspect.signature(compute).parameters if k in known}
        return lambda arrays: compute(**arrays, **OPTIONS.get(name, {})), given

    def test_gives_finite_scalars_whatever_the_order_under_jit_and_vmap(self, name, key):
        function, given = self.function(name, key)
        turned = {name: x if x is key else x[::-1] for name, x in given.items()}
        both = {
            name: jax.random.split(x) if x is key else np.stack([x, turned[name]])
            for name, x in given.items()
        }
        scores = jax.jit(jax.vmap(function))(both)
        for value in jax.tree.leaves(scores):
            assert value.shape == (2,)
            assert np.isfinite(value).all()
            if "key" not in given:
                np.testing.assert_allclose(value[0], value[1], rtol=1e-4)

    def test_names_the_number_of_samples_that_it_needs(self, name, key):
        function, given = self.function(name, key)
        with pytest.raises(ValueError, match=r"needs .* got .*0"):
            function({name: x if x is key else x[:0] for name, x in given.items()})

    def test_refuses_features_of_different_networks(self, name, key):
        function, given = self.function(name, key)
        first, *others = (k for k in given if k not in ("key", "real_labels", "fake_labels"))
        if others:  # it compares sets
            with pytest.raises(ValueError, match="features of one network, got"):
                function({**given, first: given[first][..., :-1]})


def test_all_scores_have_different_names(key):
    found = []
    for name in plugins.names(fsgan.metrics):
        scores = jax.eval_shape(*TestEveryMetric().function(name, key))
        found += list(scores) if isinstance(scores, dict) else [name]
    assert len(found) == len(set(found)) > len(plugins.names(fsgan.metrics))


def test_features_that_are_not_finite_are_counted():
    check_finite("KID", real=REAL, fake=jnp.asarray(FAKE))
    fake = FAKE.copy()
    fake[1, 0], fake[4] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"^KID .*: 2 of 24 rows of the fake features are not f"):
        check_finite("KID", real=REAL, fake=jnp.asarray(fake))


def test_distances_in_pieces_equal_scipy(monkeypatch):
    a, b = REAL[:7], FAKE[:4]
    monkeypatch.setattr(_distances, "BUDGET", 3 * b.size)  # three rows at a time, and one left
    np.testing.assert_allclose(_distances.rows(lambda d: d, a, b), cdist(a, b), rtol=1e-5)
    np.testing.assert_allclose(_distances.nearest(a, b), cdist(a, b).min(1), rtol=1e-5)
    expected = np.sort(cdist(a, a))[:, 2]
    np.testing.assert_allclose(_distances.kth_nearest(a, 2), expected, rtol=1e-5)


def test_small_distances_are_exact_far_from_the_origin():
    """Whoever multiplies out the square gets 0 or noise here."""
    a = jnp.full((1, 64), 100.0)
    np.testing.assert_allclose(_distances.nearest(a, a + 2**-10), 8 * 2**-10, rtol=1e-3)


def test_energy_equals_scipy_distances():
    expected = 2 * cdist(REAL, FAKE[:9]).mean() - pdist(REAL).mean() - pdist(FAKE[:9]).mean()
    np.testing.assert_allclose(jax.jit(energy.compute)(REAL, FAKE[:9]), expected, rtol=1e-4)


def test_energy_is_unbiased_and_sees_a_shift():
    """Its mean is 0 for equal distributions even with 3 samples, and positive for others."""
    real, fake = normal(2, 4000, 3, 2)
    compute = jax.jit(jax.vmap(energy.compute))
    same, shifted = jax.device_get((compute(real, fake), compute(real, fake + 1)))
    assert abs(same.mean()) < 4 * same.std() / len(same) ** 0.5
    assert shifted.mean() > 0.3
    assert same.min() < 0


def test_energy_has_finite_gradients_at_equal_rows():
    assert np.isfinite(jax.jit(jax.grad(energy.compute, 1))(REAL, np.ones((5, 5)))).all()


def test_energy_needs_two_samples_a_side():
    with pytest.raises(ValueError, match="needs 2 or more samples of each, got 1 real and 3 fake"):
        energy.compute(jnp.ones((1, 2)), jnp.ones((3, 2)))


def test_pixel_distance_is_the_sum_over_scales_of_mean_squares(key):
    a, b = jax.random.normal(key, (2, 1, 8, 12, 3))
    pair = pixels.features(jnp.concatenate([a, b]))
    expected, difference = 0.0, np.asarray(a - b)[0]
    for size in (1, 2, 4):
        h, w, c = 8 // size, 12 // size, 3
        level = difference.reshape(h, size, w, size, c).mean((1, 3))
        expected += (level**2).mean()
    np.testing.assert_allclose(jnp.square(pair[0] - pair[1]).sum(), expected, rtol=1e-5)
