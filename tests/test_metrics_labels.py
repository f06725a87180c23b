"""Metrics of classes: Inception Score, modes, recognisability, classification accuracy score."""

from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from fsgan.metrics import classification_accuracy, inception_score, modes, recognisability

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics.npz")
LOGITS, TRAIN, TEST = (GOLDEN[name].astype(np.float32) for name in ("logits", "train", "test"))
LABELS = GOLDEN["labels"]


def test_inception_score_equals_torch_fidelity():
    scores = jax.jit(inception_score.compute)(LOGITS)
    assert set(scores) == {"inception_score", "inception_score_std"}
    for name, value in scores.items():
        np.testing.assert_allclose(value, GOLDEN[name], rtol=1e-5)


def test_inception_score_of_one_part_equals_scipy_and_has_its_bounds():
    certain = 1e4 * np.eye(7)
    p = softmax(LOGITS[:7].astype(np.float64), 1)
    expected = np.exp(np.mean(entropy(p, p.mean(0, keepdims=True), axis=1)))
    compute = jax.jit(lambda logits: inception_score.compute(logits, splits=1)["inception_score"])
    cases = ((LOGITS[:7], expected), (certain, 7), (certain[[2] * 7], 1), (np.ones((7, 7)), 1))
    for logits, score in cases:
        np.testing.assert_allclose(compute(logits), score, rtol=1e-5)
    with pytest.raises(ValueError, match="in 10 splits needs 10 images, got 7"):
        inception_score.compute(certain)


def test_modes_equal_a_count_and_scipy_entropy():
    compute = jax.jit(modes.compute, static_argnames="classes")
    some, even = np.array([0, 0, 0, 2, 2, 999]), np.arange(2000) % 1000
    shares = np.bincount(some, minlength=1000) / 6
    cases = (
        (some, 3, entropy(shares, np.full(1000, 1e-3))),
        (even, 1000, 0),
        (0 * even, 1, np.log(1000)),
    )
    for labels, found, kl in cases:
        scores = compute(labels, classes=1000)
        assert scores["modes"] == found
        np.testing.assert_allclose(scores["modes_kl"], kl, rtol=1e-5, atol=1e-5)


def test_modes_kl_of_uniform_labels_is_as_documented():
    labels = np.random.default_rng(0).integers(0, 20, (200, 1000))
    found = jax.jit(jax.vmap(lambda x: modes.compute(x, classes=20)))(labels)["modes_kl"]
    np.testing.assert_allclose(np.mean(found), 19 / 2000, rtol=0.1)


def test_recognisability_equals_a_count_over_all_trials(key):
    """Two classes of two images, 2-way: all choices of prototypes and query, by hand."""
    real = np.array([[[0.0], [4.0]], [[5.0], [9.0]]])
    fake = np.array([[[1.0], [6.0]], [[7.5], [4.2]]])
    right = [
        abs(fake[c, q, 0] - real[c, i, 0]) < abs(fake[c, q, 0] - real[1 - c, j, 0])
        for c in (0, 1)
        for q in (0, 1)
        for i in (0, 1)
        for j in (0, 1)
    ]
    compute = jax.jit(lambda *x: recognisability.compute(*x, ways=2, trials=4000))
    value = compute(real, fake, key)
    assert 0.2 < np.mean(right) < 0.9
    np.testing.assert_allclose(value, np.mean(right), atol=0.02)


def test_recognisability_is_one_apart_and_chance_without_classes(key):
    centres = 100 * np.eye(12)[:, None]
    real, fake = centres + np.random.default_rng(0).normal(size=(2, 12, 5, 12))
    compute = jax.jit(lambda fake: recognisability.compute(real, fake, key, ways=8, trials=400))
    assert compute(fake) == 1
    np.testing.assert_allclose(compute(fake - centres), 1 / 8, atol=0.03)
    with pytest.raises(ValueError, match="20-way recognisability needs 20 or more classes"):
        recognisability.compute(real, fake, key)


def test_logistic_regression_equals_scikit_learn():
    fit = classification_accuracy.fit
    params = jax.jit(lambda x, y: fit(x, y, classes=3, decay=1e-3, steps=100))(TRAIN, LABELS)
    found = np.vstack([params["w"], params["b"]])
    found, expected = (x - x.mean(1, keepdims=True) for x in (found, GOLDEN["logistic"]))
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_classification_accuracy_score():
    """That of scikit-learn on its data, whatever the scale; that of guessing after a collapse."""
    score = jax.jit(
        lambda real, fake: classification_accuracy.compute(real, fake, LABELS, LABELS, classes=3)
    )
    np.testing.assert_allclose(score(TEST, TRAIN), GOLDEN["accuracy"], atol=0.01)
    np.testing.assert_allclose(score(5 + 9 * TEST, 5 + 9 * TRAIN), GOLDEN["accuracy"], atol=0.01)
    np.testing.assert_allclose(score(TEST, 0 * TRAIN), 1 / 3, atol=1e-6)
