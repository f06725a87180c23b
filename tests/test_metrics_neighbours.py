"""Metrics of nearest neighbours: precision, recall, density, coverage, two samples, copying."""

from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.spatial import cKDTree

from fsgan.metrics import copying, density_coverage, precision_recall, two_sample

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics.npz")
REAL, FAKE = (GOLDEN[name].astype(np.float32) for name in ("real", "fake"))
compute_copying = jax.jit(copying.compute)
compute_two_sample = jax.jit(two_sample.compute)
compute_precision_recall = jax.jit(precision_recall.compute, static_argnames="k")
compute_density_coverage = jax.jit(density_coverage.compute, static_argnames="k")


def check(scores, expected: dict[str, float], rtol=1e-6, atol=0) -> None:
    """The same names, and the same values but where None is expected."""
    assert set(scores) == set(expected)
    for name, value in expected.items():
        if value is not None:
            np.testing.assert_allclose(scores[name], value, rtol=rtol, atol=atol, err_msg=name)


def test_precision_and_recall_equal_torch_fidelity_and_prdc():
    for k, (precision, recall) in ((3, GOLDEN["precision_recall"]), (5, GOLDEN["prdc"][:2])):
        scores = compute_precision_recall(REAL, FAKE, k=k)
        check(scores, {"precision": precision, "recall": recall})


def test_density_and_coverage_equal_prdc():
    density, coverage = GOLDEN["prdc"][2:]
    check(compute_density_coverage(REAL, FAKE, k=5), {"density": density, "coverage": coverage})


def test_equal_sets_have_all_four_at_one():
    check(compute_precision_recall(REAL, REAL), {"precision": 1, "recall": 1})
    check(compute_density_coverage(REAL, REAL), {"density": 1, "coverage": 1})


def test_density_and_coverage_of_equal_distributions_are_as_documented(key):
    n, m, k = 12, 20, 3
    samples = jax.random.normal(key, (500, n + m, 2))
    run = jax.jit(jax.vmap(lambda x: density_coverage.compute(x[:n], x[n:], k=k)))
    scores = jax.device_get(run(samples))
    i = np.arange(1, k + 1)
    expected = {"density": 1, "coverage": 1 - np.prod((n - i) / (n + m - i))}
    for name, value in expected.items():
        assert abs(scores[name].mean() - value) < 4 * scores[name].std() / 500**0.5


def test_one_repeated_image_has_precision_without_recall():
    repeated = np.tile(REAL[:1] + np.float32(1e-3), (96, 1))
    check(compute_precision_recall(REAL, repeated), {"precision": 1, "recall": 0})


def test_two_sample_accuracy_equals_a_search_in_all_samples():
    union, kind = np.concatenate([REAL[:80], FAKE]), np.repeat([0, 1], 80)
    neighbour = cKDTree(union).query(union, k=2)[1][:, 1]
    right = kind[neighbour] == kind
    expected = {
        "two_sample": right.mean(),
        "two_sample_real": right[:80].mean(),
        "two_sample_fake": right[80:].mean(),
    }
    check(compute_two_sample(REAL[:80], FAKE), expected)


def test_two_sample_accuracy_tells_failures_apart():
    x, zero = FAKE, np.zeros_like(FAKE)
    cases = [  # real, fake; accuracy of all, of the reals, of the fakes
        (x, x[::-1] + 100, 1, 1, 1),  # far apart
        (x, x + np.float32(1e-4), 0, 0, 0),  # copies of the reference
        (x, zero, None, None, 1),  # one repeated image
        (x, np.tile(x[:8], (10, 1)), None, None, 0.5),  # a real and a fake equally near
        (zero, zero, 0.5, 0.5, 0.5),
    ]
    for real, fake, *expected in cases:
        names = ("two_sample", "two_sample_real", "two_sample_fake")
        check(compute_two_sample(real, fake), dict(zip(names, expected, strict=True)))


def test_two_sample_accuracy_needs_equally_many():
    with pytest.raises(ValueError, match="as many reals as fakes, got 96 real and 80 fake"):
        two_sample.compute(REAL, FAKE)


def test_copying_ratio_equals_a_search():
    real, support = REAL[5:], REAL[:5]
    fake_to, real_to = (np.median(cKDTree(support).query(x)[0]) for x in (FAKE, real))
    expected = {
        "copying_ratio": fake_to / real_to,
        "fake_to_support": fake_to,
        "real_to_support": real_to,
    }
    check(compute_copying(real, FAKE, support), expected, rtol=1e-5)


def test_copying_ratio_sees_copies_and_passes_new_images():
    samples = np.random.default_rng(0).normal(size=(405, 4)).astype(np.float32)
    support, real, fake = np.split(samples, [5, 205])
    assert abs(compute_copying(real, fake, support)["copying_ratio"] - 1) < 0.15
    copies = np.tile(support, (40, 1)) + np.float32(0.01) * fake
    assert compute_copying(real, copies, support)["copying_ratio"] < 0.02
