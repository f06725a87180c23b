"""Adversarial losses and penalties against values computed by hand, and their signs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsgan import losses

REAL, FAKE = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def mean(function, *columns):
    return sum(function(*row) for row in zip(*columns, strict=True)) / len(columns[0])


# Each written from the paper's formula with log and sigmoid, on the logits above.
R, F = (1.0, -2.0), (0.5, 3.0)
D_GOODFELLOW = -mean(lambda r: math.log(sigmoid(r)), R) - mean(
    lambda f: math.log(1 - sigmoid(f)), F
)
EXPECTED = {
    "minimax": (mean(lambda f: math.log(1 - sigmoid(f)), F), D_GOODFELLOW),
    "non_saturating": (-mean(lambda f: math.log(sigmoid(f)), F), D_GOODFELLOW),
    "hinge": (-1.75, (0 + 3) / 2 + (1.5 + 4) / 2),
    "least_squares": ((0.25 + 4) / 4, (0 + 9) / 4 + (0.25 + 9) / 4),
    "wasserstein": (-1.75, 1.75 + 0.5),
    "relativistic": (
        -mean(lambda r, f: math.log(sigmoid(f - r)), R, F),
        -mean(lambda r, f: math.log(sigmoid(r - f)), R, F),
    ),
}


@pytest.mark.parametrize("name", sorted(losses.ADVERSARIAL))
def test_value_by_hand(name):
    loss = losses.adversarial(name)
    np.testing.assert_allclose((loss.g(REAL, FAKE), loss.d(REAL, FAKE)), EXPECTED[name], rtol=1e-6)


@pytest.mark.parametrize("name", sorted(losses.ADVERSARIAL))
def test_signs(name):
    """The discriminator wants reals up and fakes down, the generator wants fakes up."""
    loss = losses.adversarial(name)
    at = jnp.array([0.1, -0.2]), jnp.array([0.3, 0.4])
    d_real, d_fake = jax.grad(loss.d, (0, 1))(*at)
    g_fake = jax.grad(loss.g, 1)(*at)
    assert (d_real < 0).all()
    assert (d_fake > 0).all()
    assert (g_fake < 0).all()


@pytest.mark.parametrize("name", ["minimax", "non_saturating", "relativistic"])
def test_extreme_logits_stay_finite(name):
    loss = losses.adversarial(name)
    for player in loss:
        value, slope = jax.value_and_grad(lambda f, player=player: player(jnp.array([-1e4]), f))(
            jnp.array([1e4])
        )
        assert np.isfinite(value)
        assert np.isfinite(slope).all()


def linear_critic(weight):
    return lambda images: (images * weight).sum((1, 2, 3))


@pytest.mark.parametrize(("name", "which"), [("r1", 0), ("r2", 1)])
def test_r1_and_r2_by_hand(key, name, which):
    """For D(x) = sum x^3, grad D = 3 x^2 and the penalty is E sum (3 x^2)^2 / 2."""
    pair = [jax.random.normal(k, (3, 4, 4, 2)) for k in jax.random.split(key)]
    value = losses.penalty(**{name: 2.0})(lambda x: (x**3).sum((1, 2, 3)), *pair, key)
    expected = 2.0 * (9 * np.asarray(pair[which]) ** 4).reshape(3, -1).sum(1).mean() / 2
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_gradient_penalty_norm_is_over_all_values(key):
    """A linear critic has gradient w everywhere: the penalty is (||w|| - 1)^2 over h, w and c."""
    weight = jax.random.normal(key, (4, 4, 2))
    real, fake = jnp.zeros((3, 4, 4, 2)), jnp.ones((3, 4, 4, 2))
    value = losses.gradient_penalty(linear_critic(weight), real, fake, key)
    np.testing.assert_allclose(value, (np.linalg.norm(weight) - 1) ** 2, rtol=1e-5)


def test_pixel_gradient_penalty_norm_is_over_channels_alone(key):
    weight = jax.random.normal(key, (4, 4, 2))
    real, fake = jnp.zeros((3, 4, 4, 2)), jnp.ones((3, 4, 4, 2))
    value = losses.pixel_gradient_penalty(linear_critic(weight), real, fake, key)
    expected = np.square(np.linalg.norm(weight, axis=-1) - 1).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_gradient_penalty_is_taken_between_paired_images(key):
    """With D(x) = sum x^2 / 2 the norm at x' = (1 - u) real + u fake is |x'|, in [1, 3] here."""
    real, fake = jnp.full((64, 1, 1, 1), 1.0), jnp.full((64, 1, 1, 1), 3.0)
    value = losses.gradient_penalty(lambda x: (x**2).sum((1, 2, 3)) / 2, real, fake, key)
    # E (1 + 2u - 1)^2 = 4/3 for u uniform in [0, 1]
    np.testing.assert_allclose(value, 4 / 3, atol=0.3)


def test_gradient_penalty_is_finite_at_zero_gradient(key):
    images = jnp.ones((2, 2, 2, 1))
    slope = jax.grad(lambda w: losses.gradient_penalty(linear_critic(w), images, -images, key))(0.0)
    assert np.isfinite(slope)


def test_penalties_add_up_and_vanish_at_weight_zero(key):
    args = linear_critic(2.0), jnp.ones((2, 2, 2, 1)), jnp.zeros((2, 2, 2, 1)), key
    assert losses.penalty(r1=0.0)(*args) == 0
    both = losses.penalty(r1=0.5, r2=3.0)(*args)
    np.testing.assert_allclose(both, (0.5 + 3.0) * (4 * 4) / 2)


def test_unknown_names_are_answered_with_the_right_ones():
    with pytest.raises(
        ValueError, match=r"unknown loss 'hing'; did you mean 'hinge'\?.*wasserstein"
    ):
        losses.adversarial("hing")
    with pytest.raises(ValueError, match="unknown penalty 'r3'"):
        losses.penalty(r3=1.0)
