"""The energy distance and its pixel features against references and hand-made cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from fsgan.features import pixels
from fsgan.metrics import energy


def test_energy_equals_scipy_distances(key):
    real, fake = jax.random.normal(key, (7, 5)), jax.random.normal(key, (4, 5)) + 0.5
    between = cdist(real, fake).mean()
    within = [cdist(x, x)[~np.eye(len(x), dtype=bool)].mean() for x in (real, fake)]
    np.testing.assert_allclose(energy.compute(real, fake), 2 * between - sum(within), rtol=1e-4)


def test_energy_is_unbiased_and_sees_a_shift(key):
    """Its mean is 0 for equal distributions even with 3 samples, and positive for others."""
    samples = jax.random.normal(key, (2, 4000, 3, 2))
    same = jax.vmap(energy.compute)(*samples)
    assert abs(same.mean()) < 4 * same.std() / len(same) ** 0.5
    assert jax.vmap(energy.compute)(samples[0], samples[1] + 1).mean() > 0.3
    assert same.min() < 0


def test_energy_ignores_order_and_has_finite_gradients_at_equal_rows(key):
    real, fake = jax.random.normal(key, (6, 3)), jnp.ones((5, 3))
    value = energy.compute(real, fake)
    np.testing.assert_allclose(energy.compute(real[::-1], fake), value, rtol=1e-5)
    assert np.isfinite(jax.grad(energy.compute, 1)(real, fake)).all()


def test_energy_needs_two_samples_a_side():
    with pytest.raises(ValueError, match="needs 2 samples a side, got 1 real and 3 fake"):
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
