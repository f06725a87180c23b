"""Intra-cluster diversity and the Vendi score."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from fsgan.metrics import diversity, vendi

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics.npz")
NOISE = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
compute_diversity = jax.jit(diversity.compute)
score = jax.jit(vendi.score)


def test_diversity_equals_a_loop_over_clusters():
    """Five clusters: two filled, one of a single sample, two empty."""
    support = np.array([[0.0, 0], [10, 0], [20, 0], [30, 0], [40, 0]])
    members = np.array([0] * 6 + [1] * 3 + [3])
    fake = support[members] + NOISE[:10, :2]
    means = [pdist(fake[members == i]).mean() for i in (0, 1)]
    shares = np.array([0.6, 0.3, 0.1])
    expected = {
        "diversity": sum(means) / 5,
        "diversity_non_empty": sum(means) / 2,
        "empty_clusters": 2,
        "assignment_entropy": -(shares * np.log(shares)).sum(),
    }
    found = compute_diversity(support, fake)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)
    matrices = jax.jit(diversity.of_distances)(cdist(fake, support), cdist(fake, fake))
    assert all(np.isclose(matrices[name], found[name], rtol=1e-5) for name in expected)


def test_diversity_of_images_under_another_distance():
    """Any function of two sets of images will do; here the largest difference of a pixel."""

    def largest(a, b):
        return jnp.abs(a[:, None] - b[None]).max((2, 3, 4))

    support, fake = np.zeros((1, 2, 2, 1)), NOISE.reshape(40, 2, 2, 1)
    expected = pdist(NOISE, "chebyshev").mean()
    found = jax.jit(lambda s, x: diversity.compute(s, x, distance=largest))(support, fake)
    np.testing.assert_allclose(found["diversity"], expected, rtol=1e-5)


def test_diversity_sees_collapse_and_missing_clusters():
    support = 10 * np.eye(4)
    copied, half = np.tile(support, (10, 1)), np.tile(support[:2], (20, 1))
    full, missing, copies = (
        compute_diversity(support, x) for x in (copied + NOISE, half + NOISE, copied)
    )
    np.testing.assert_allclose(full["assignment_entropy"], np.log(4), rtol=1e-5)
    assert missing["empty_clusters"] == 2
    assert missing["diversity"] < 0.6 * full["diversity"]
    assert missing["diversity_non_empty"] > 0.9 * full["diversity_non_empty"]  # does not see it
    assert copies["diversity"] < 1e-5


def test_vendi_equals_the_reference():
    fake = GOLDEN["fake"].astype(np.float32)
    scores = jax.jit(vendi.compute)(fake, fake)
    np.testing.assert_allclose(scores["vendi"], GOLDEN["vendi"], rtol=1e-5)
    np.testing.assert_allclose(scores["vendi_real"], GOLDEN["vendi"], rtol=1e-5)


def test_vendi_counts_different_samples():
    few = np.repeat(np.eye(3, 12), 4, 0) * np.arange(1.0, 13)[:, None]  # three directions
    for features, count in ((few, 3), (np.eye(12), 12), (np.ones((12, 12)), 1)):
        np.testing.assert_allclose(score(features), count, rtol=1e-5)
    with pytest.raises(ValueError, match="as many reals as fakes, got 12 real and 5 fake"):
        vendi.compute(few, few[:5])
