"""The matrix product against `jnp.matmul`: values, derivatives of any order and mode, vmap."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fsgan.nets._product import product


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def factors(key, *leading: int):
    one, two = jax.random.split(key)
    return jax.random.normal(one, (*leading, 5, 3)), jax.random.normal(two, (*leading, 3, 4))


def same(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_value_eager_and_compiled(key, leading):
    x, w = factors(key, *leading)
    same(product(x, w), x @ w)
    same(jax.jit(product)(x, w), x @ w)


@pytest.mark.parametrize("leading", [(), (2,)])
def test_derivatives_of_three_orders_in_both_modes(key, leading):
    """Against finite differences; the squares give the higher orders something to find."""
    check_grads(lambda *xw: jnp.square(product(*xw)), factors(key, *leading), order=3)


@pytest.mark.parametrize("axes", [a for a in itertools.product((None, 0, 1), repeat=2) if any(
    i is not None for i in a)])  # fmt: skip
@pytest.mark.parametrize("leading", [(), (2,)])
def test_vmap_over_either_factor_or_both(key, leading, axes):
    x, w = factors(key, *leading)
    x, w = (
        a if i is None else jnp.stack([a, 2 * a, a**2], i)
        for a, i in zip((x, w), axes, strict=True)
    )
    same(jax.vmap(product, axes)(x, w), jax.vmap(jnp.matmul, axes)(x, w))


def test_gradient_under_vmap_over_tasks(key):
    """Weights shared by all tasks, gradients for each of them: as a meta-learner takes them."""
    x, w = factors(key)
    xs = jnp.stack([x, 2 * x])
    of = lambda f: jax.vmap(jax.grad(lambda w, x: jnp.sin(f(x, w)).sum()), (None, 0))(w, xs)  # noqa: E731
    same(of(product), of(jnp.matmul))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the form is for CPUs")
def test_the_compiler_folds_no_transpose_into_a_product():
    """Not in second derivatives either: each is summed over its first factor's last axis."""

    def loss(w, x):
        return jnp.sin(product(jnp.sin(product(x, w)), w.T)).sum()

    def forms(f):
        x, w = jnp.zeros((96, 64), jnp.float32), jnp.zeros((64, 48), jnp.float32)
        twice = jax.grad(lambda w, x: jnp.square(jax.grad(f)(w, x)).sum(), argnums=(0, 1))
        text = jax.jit(twice).lower(w, x).compile().as_text()
        return set(re.findall(r"lhs_contracting_dims=\{(\d)\}", text))

    assert forms(loss) == {"1"}
    assert "0" in forms(lambda w, x: jnp.sin(jnp.sin(x @ w) @ w.T).sum())
