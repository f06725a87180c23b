"""FID, its extrapolation, and KID: references in float64, closed forms, bias and error."""

from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.linalg import sqrtm

from fsgan.metrics import fid, fid_infinity, kid

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics.npz")
REAL, FAKE = (GOLDEN[name].astype(np.float32) for name in ("real", "fake"))
compute_fid = jax.jit(fid.compute)
mmd2 = jax.jit(kid.mmd2)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def frechet(real, fake) -> float:
    """FID as it is written in its paper, in float64."""
    real, fake = (np.asarray(x, np.float64) for x in (real, fake))
    a, b = np.cov(real.T), np.cov(fake.T)
    root = np.trace(sqrtm(a @ b)).real
    return np.sum((real.mean(0) - fake.mean(0)) ** 2) + np.trace(a) + np.trace(b) - 2 * root


def test_fid_equals_torch_fidelity():
    np.testing.assert_allclose(compute_fid(REAL, FAKE), GOLDEN["fid"], rtol=1e-5)
    deficient = compute_fid(REAL[:12], FAKE[:12])  # 12 samples in 16 dimensions
    np.testing.assert_allclose(deficient, GOLDEN["fid_rank_deficient"], rtol=1e-5)


@pytest.mark.parametrize(("n", "m"), [(500, 400), (30, 200), (20, 20)])
def test_fid_in_float32_equals_scipy_in_float64(n, m):
    """Also far from the origin, with a decaying spectrum, and for N below the dimension, 64."""
    real, fake = np.split(5 + normal(n + m, 64) / np.arange(1, 65, dtype=np.float32) ** 0.5, [n])
    np.testing.assert_allclose(compute_fid(real, fake), frechet(real, fake), rtol=1e-4)


def test_fid_of_two_gaussians_is_the_closed_form():
    """Samples with exactly these moments; covariances that commute: sum of (s - t)^2."""
    x = normal(40, 3)
    x -= x.mean(0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    turn = np.linalg.qr(x[:3])[0]
    s, t, shift = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 0.0]), np.array([1.0, -2.0, 0.5])
    real, fake = white * s @ turn, white[::-1] * t @ turn + shift
    expected = np.sum((s - t) ** 2) + np.sum(shift**2)
    np.testing.assert_allclose(compute_fid(real, fake), expected, rtol=1e-5)


def test_fid_of_equal_sets_is_zero():
    for x in (REAL, REAL[:12]):
        np.testing.assert_allclose(compute_fid(x, x[::-1]), 0, atol=1e-5)


def test_fid_infinity_is_the_intercept_of_a_line_through_subsets(key):
    sizes = np.linspace(8, 80, 6).round()
    ranks = jax.jit(jax.vmap(lambda k: jax.random.permutation(k, 80)))(jax.random.split(key, 6))
    values = [frechet(REAL, FAKE[rank < size]) for rank, size in zip(ranks, sizes, strict=True)]
    expected = np.polyfit(1 / sizes, values, 1)[1]
    value = jax.jit(lambda k: fid_infinity.compute(REAL, FAKE, k, points=6))(key)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_fid_infinity_removes_most_of_the_bias(key):
    """Of FID at N = 200 over that of all 2000, for equal distributions and for a shift by 1."""
    samples = normal(20_000, 8)
    real, fakes = samples[:18_000], samples[18_000:].reshape(10, 200, 8)

    @jax.jit
    def scores(fakes):
        return jax.lax.map(
            lambda x: (fid.compute(real, x[0]), fid_infinity.compute(real, *x)),
            (fakes, jax.random.split(key, 10)),
        )

    for shift in (0.0, 1.0):
        moved = fakes + shift * np.eye(8)[0]
        truth = compute_fid(real, moved.reshape(-1, 8))
        biased, extrapolated = (x.mean() - truth for x in scores(moved))
        assert biased > 0.05
        assert abs(extrapolated) < 0.3 * biased


def test_kid_equals_torch_fidelity():
    np.testing.assert_allclose(mmd2(REAL[:80], FAKE), GOLDEN["mmd2"], rtol=1e-5)


def test_the_mean_over_subsets_tends_to_the_kid_of_all_samples(key):
    scores = jax.jit(lambda k: kid.compute(REAL, FAKE, k, subsets=1000))(key)
    np.testing.assert_allclose(scores["kid"], mmd2(REAL, FAKE), rtol=0.03)


def test_kid_error_is_what_other_samples_would_give(key):
    """Right for different distributions, on the large side for equal ones."""

    def scores(key, shift):
        set_key, key = jax.random.split(key)
        real, fake = jax.random.normal(set_key, (2, 40, 3))
        return kid.compute(real, fake + shift, key, subsets=40, size=10)

    keys = jax.random.split(key, 300)
    run = jax.jit(jax.vmap(scores, (0, None)))
    apart, equal = (jax.device_get(run(keys, shift)) for shift in (1.0, 0.0))
    np.testing.assert_allclose(apart["kid_error"].mean(), apart["kid"].std(), rtol=0.2)
    assert 1 < equal["kid_error"].mean() / equal["kid"].std() < 3
    assert abs(equal["kid"].mean()) < 4 * equal["kid"].std() / 300**0.5


def test_kid_subsets_are_no_larger_than_asked(key, monkeypatch):
    sizes = []
    monkeypatch.setattr(kid, "mmd2", lambda x, y: sizes.append((len(x), len(y))) or x.sum())
    x = np.ones((50, 2), np.float32)
    jax.eval_shape(lambda x, y: kid.compute(x, y, key, subsets=2), x, x[:9])
    jax.eval_shape(lambda x, y: kid.compute(x, y, key, subsets=2, size=10), x, x)
    assert set(sizes) == {(25, 4), (10, 10)}
    with pytest.raises(ValueError, match="2 subsets of 2 or more, got 1 of 1000"):
        kid.compute(x, x, key, subsets=1)


def test_kid_sees_more_than_means_only_in_features_of_unit_scale(key):
    """Short vectors make the kernel linear: two sets with one mean and other variances look alike,
    beside sets with other means. Scaled, they differ.
    """
    x = np.asarray(jax.random.normal(key, (400, 20)))
    x = np.concatenate([x, -x])  # the mean is 0
    wider, shifted = 2 * x, x + 0.5

    def ratio(prepare):
        values = [kid.mmd2(*prepare(1e-2 * x, 1e-2 * other)) for other in (wider, shifted)]
        return values[0] / values[1]

    assert abs(ratio(lambda *sets: sets)) < 0.05
    assert ratio(kid.scaled) > 0.5
    one, other = kid.scaled(3e-3 * x, 3e-3 * wider)
    np.testing.assert_allclose(np.square(one).mean(), 1, rtol=1e-4)
    np.testing.assert_allclose(other, 2 * one, rtol=1e-4)
