"""What several methods look at: the outputs of a network's blocks."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from fsgan.types import Array, Params


def blocks(net, params: Params, x: Array) -> list[Array]:
    """The outputs [n, ...] of block0, block1, ... of a linen module applied to x."""
    _, state = net.apply(
        {"params": params},
        x,
        capture_intermediates=lambda module, _: re.fullmatch(r"block\d+", module.name or ""),
        mutable=["intermediates"],
    )
    outputs = state["intermediates"]
    return [outputs[f"block{i}"]["__call__"][0] for i in range(len(outputs))]


def cosines(a: Array, b: Array) -> Array:
    """Cosine of every pair, [n, ...] and [m, ...] -> [n, m]."""
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    # eps inside the root: a feature that is all zero has finite derivatives, too.
    a, b = (x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-12) for x in (a, b))
    return a @ b.T


def off_diagonal(square: Array) -> Array:
    """[n, n] -> [n, n - 1]: each row without its diagonal entry."""
    n = len(square)
    others = np.array([[j for j in range(n) if j != i] for i in range(n)], int).reshape(n, n - 1)
    return jnp.take_along_axis(square, others, 1)
