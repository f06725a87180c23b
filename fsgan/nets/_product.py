"""The matrix product of `layers`, with derivatives in the form that XLA's CPU backend runs fast."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from fsgan.types import Array


def product(x: Array, w: Array) -> Array:
    """`x @ w`, x [..., m, k], w [..., k, n] with the same leading axes: [..., m, n].

    A product is fast if its first factor is summed over the last axis. The derivative in w is
    x^T g, and the compiler folds such a transpose into the product, which then takes about twice
    as long; so there g^T x is computed instead, from a transpose that is kept in memory. It is
    bilinear, so that its derivatives of any order are products of this kind.
    """
    return _product.bind(x, w)


def _flip(x: Array) -> Array:
    return jnp.swapaxes(x, -1, -2)


def _kept(x: Array, w: Array) -> Array:
    keep = lax.optimization_barrier
    return keep(keep(x) @ w)  # no transpose before or after is folded into the product


def _shape(x, w):
    return x.update(shape=(*x.shape[:-1], w.shape[-1]))


def _batched(args, axes):
    """Under vmap: one factor for all is multiplied by the other's matrices side by side."""
    (x, w), (of_x, of_w) = args, axes
    if of_w is None and x.ndim == 3:
        x = jnp.moveaxis(x, of_x, 0)
        return product(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], -1), 0
    if of_x is None and w.ndim == 3:
        w = jnp.moveaxis(w, of_w, 1)  # [k, batch, n]
        return product(x, w.reshape(len(w), -1)).reshape(len(x), *w.shape[1:]), 1
    n = next(a.shape[i] for a, i in zip(args, axes, strict=True) if i is not None)
    x, w = (
        jnp.broadcast_to(a, (n, *a.shape)) if i is None else jnp.moveaxis(a, i, 0)
        for a, i in zip(args, axes, strict=True)
    )
    return product(x, w), 0


_product = Primitive("product")
_product.def_impl(jax.jit(_kept))
_product.def_abstract_eval(_shape)
mlir.register_lowering(_product, mlir.lower_fun(jnp.matmul, multiple_results=False))
mlir.register_lowering(_product, mlir.lower_fun(_kept, multiple_results=False), platform="cpu")
ad.defbilinear(
    _product,
    lambda g, x, w: product(g, _flip(w)),
    lambda g, x, w: _flip(product(_flip(g), x)),
)
batching.primitive_batchers[_product] = _batched
