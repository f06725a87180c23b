"""The panel on hand-made features, where it is known what it should say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsgan import panel
from fsgan.metrics import kid

CLASSES, SHOTS, N, M, D = 8, 3, 4, 8, 84  # as in test_evaluate.py, so that one compilation does
KEY = jax.random.key(7)


def draw(seed: int, n: int, spread: float = 0.3):
    """n images of each class: class means of length sqrt(D), and noise."""
    mean_key, key = jax.random.split(jax.random.key(0))
    means = jax.random.normal(mean_key, (CLASSES, 1, D))
    return means + spread * jax.random.normal(jax.random.fold_in(key, seed), (CLASSES, n, D))


@pytest.fixture(scope="module")
def reals():
    return panel.Reals(draw(1, SHOTS), draw(2, N), draw(3, N))


@pytest.fixture(scope="module")
def floor(reals):
    return panel.score(reals, None, KEY)


def values(reals, fake):
    return {name: s.value for name, s in panel.score(reals, fake, KEY, errors=False).items()}


def test_real_images_score_as_the_floor(reals, floor):
    scores = panel.score(reals, draw(4, M), KEY)
    assert set(scores) == set(floor) == set(panel.SCORES)
    for found in (scores, floor):
        assert abs(found["kid"].value) < 4 * found["kid"].error
        assert abs(found["class_kid"].value) < 4 * found["class_kid"].error
        assert found["copying_ratio"].value == pytest.approx(1, abs=0.05)
        assert found["recognisability"].value > 0.99
        assert found["classification_accuracy"].value == 1
        assert found["coverage"].value == 1
        assert found["spread"].value == pytest.approx(0.3 * (2 * D) ** 0.5, rel=0.03)


def test_copies_of_the_support_are_found_out(reals, floor):
    copies = reals.support[:, np.array([0, 0, 1, 1] * 2)]
    scores = values(reals, copies)
    assert scores["copying_ratio"] == pytest.approx(0, abs=1e-4)
    assert scores["two_sample_fake"] == 1
    assert scores["spread"] < 0.8 * floor["spread"].value
    assert scores["diversity"] == pytest.approx(0, abs=1e-4)
    assert scores["empty_clusters"] == 1
    assert scores["recognisability"] > 0.99  # which does not see it


def test_noise_is_found_out(reals, floor):
    scores = values(reals, jax.random.normal(jax.random.key(5), (CLASSES, M, D)))
    assert scores["kid"] > 20 * floor["kid"].error
    assert scores["precision"] == 0
    assert scores["copying_ratio"] > 2
    assert scores["recognisability"] < 0.3


def test_one_image_for_each_class_is_found_out(reals, floor):
    scores = values(reals, jnp.repeat(draw(6, 1), M, 1))
    assert scores["spread"] == pytest.approx(0, abs=1e-4)
    assert scores["recognisability"] > 0.99  # which does not see it
    assert scores["two_sample_fake"] == 1
    assert scores["vendi"] < floor["vendi"].value
    assert (scores["empty_clusters"], scores["assignment_entropy"]) == (SHOTS - 1, 0)


class TestShortcomings:
    """Each failure falls short at least in what is there to find it; real images in nothing."""

    def test_of_failures(self, reals, floor):
        def of(fake):
            return set(panel.shortcomings(panel.score(reals, fake, KEY, errors=False), floor))

        other = draw(4, M)
        assert of(other) == set()
        assert "copying_ratio" in of(reals.support[:, np.arange(M) % SHOTS])
        assert "spread" in of(jnp.repeat(other[:, :1], M, 1))
        assert {"recall", "recognisability"} <= of(other[np.arange(CLASSES) // 2 * 2])
        noise = jax.random.normal(jax.random.key(5), (CLASSES, M, D))
        assert {"copying_ratio", "spread", "recognisability"} <= of(noise)

    @pytest.mark.parametrize(
        ("value", "others", "expected"),
        [
            (2.0, {}, []),
            (1.61, {}, []),
            (2.0, {"spread": 1.59, "kid": 9.0}, ["spread"]),
            (2.49, {}, []),
            (2.51, {}, ["copying_ratio", "spread"]),  # the others cannot be too high
            (2.0, {"recall": np.nan}, ["recall"]),
        ],
    )
    def test_of_numbers(self, value, others, expected):
        def scores(numbers):
            return {name: panel.Score(x, (), 2) for name, x in numbers.items()}

        floor = scores(dict.fromkeys([*panel.CHECKS, "kid"], 2.0))
        found = scores({**dict.fromkeys(panel.CHECKS, value), **others})
        assert panel.shortcomings(found, floor) == expected
        del found["recognisability"]  # groups have none
        assert panel.shortcomings(found, floor) == expected


def test_errors_are_those_of_a_mean_over_classes():
    """Of as many groups as classes, the jackknife of a mean is its usual standard error."""
    values = np.random.default_rng(0).normal(size=8)
    parts = (values.sum() - values) / 7
    assert panel.jackknife(parts, 8) == pytest.approx(values.std(ddof=1) / 8**0.5)


@pytest.mark.parametrize(("classes", "groups", "kept"), [(2, 2, 1), (8, 8, 7), (25, 10, 23)])
def test_groups_of_classes_are_disjoint_and_even(classes, groups, kept):
    sets = panel.kept_classes(classes)
    assert sets.shape == (groups, kept)
    dropped = [set(range(classes)) - set(s.tolist()) for s in sets]
    assert len(set.union(*dropped)) == groups * (classes - kept)


@pytest.fixture(scope="module")
def trials():
    """Real against real, 400 times: sets [trials, classes, n, d] and the discrepancies of KID."""
    keys = jax.random.split(KEY, 3)
    means = 2 * jax.random.normal(keys[0], (400, 10, 1, 4))
    x, y = (means + 0.1 * jax.random.normal(key, (400, 10, 2, 4)) for key in keys[1:])
    return np.asarray(x), np.asarray(y), np.asarray(jax.jit(jax.vmap(panel._discrepancy))(x, y))


def test_the_discrepancy_of_classes_against_sums_over_pairs(trials):
    x, y, found = (array[0].astype(np.float64) for array in trials)

    def mean(a, b, itself=1):
        pairs = np.ones((2, 2)) - (1 - itself) * np.eye(2)
        return ((a @ b.T / 4 + 1) ** 3 * pairs).sum() / pairs.sum()

    own = mean(x[2], x[2], 0) + mean(y[2], y[2], 0) - 2 * mean(x[2], y[2])
    np.testing.assert_allclose(found[2, 2], own, rtol=1e-3, atol=1e-4)
    other = mean(x[0], x[1]) + mean(y[0], y[1]) - mean(x[0], y[1]) - mean(x[1], y[0])
    np.testing.assert_allclose(found[0, 1], other, rtol=1e-3, atol=1e-4)


def test_kid_of_classes_is_unbiased_where_pooling_is_not(trials):
    x, y, found = trials
    values = found.mean((1, 2))
    error = values.std() / len(values) ** 0.5
    assert abs(values.mean()) < 4 * error
    pooled = jax.jit(jax.vmap(kid.mmd2))(*(a.reshape(len(a), -1, 4) for a in (x, y)))
    assert pooled.mean() < -50 * error


def test_errors_cover_what_other_draws_would_give(trials):
    """KID varies as much between independent sets as its errors say."""
    found, kept = trials[2], panel.kept_classes(10)
    errors = [panel.jackknife([t[k][:, k].mean() for k in kept], 10) for t in found]
    assert 0.7 < np.sqrt(np.mean(np.square(errors))) / found.mean((1, 2)).std() < 1.5


def test_the_mean_over_seeds():
    a, b = panel.Score(1.0, (0.0, 2.0), 2), panel.Score(3.0, (2.0, 6.0), 2)
    assert panel.mean([{"x": a}, {"x": b}]) == {"x": panel.Score(2.0, (1.0, 4.0), 2)}


@pytest.mark.parametrize(
    ("classes", "n", "m", "message"),
    [
        (1, 8, 16, "2 classes or more"),
        (3, 2, 8, "needs 6 reference images .* got 2 classes x 2"),
        (8, 4, 7, "needs 8 generated images of each class beside 4 real ones, got 7"),
    ],
)
def test_too_few_images(classes, n, m, message):
    x = np.zeros((classes, 16, 2), np.float32)
    reals = panel.Reals(x[:, :1], x[:, :n], x[:, :n])
    with pytest.raises(ValueError, match=message):
        panel.score(reals, x[:, :m], KEY)
