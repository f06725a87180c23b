"""Subspaces that write every kernel W as a frozen one and a small change of it.

Kernels are [kh, kw, cin, cout] or [cin, cout], for a convolution or a dense layer. Where a matrix
is meant it is W reshaped to [kh * kw * cin, cout]: rows are what a filter looks at, columns the
filters.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from fsgan.subspaces.selection import matcher
from fsgan.types import Array, Params, Subspace

Parts = dict[str, Array]


def reparametrize(
    begin: Callable[[Array, int], tuple[Parts, Parts]],
    kernel: Callable[[Parts, Parts], Array],
    *,
    also: str | None = None,
) -> Subspace:
    """Each kernel of the network as `kernel(trainable, fixed)`.

    Args:
      begin: (W, its number) -> (trainable, fixed), dicts of arrays such that `kernel` gives W.
      kernel: (trainable, fixed) -> W.
      also: regular expression for the names of other parameters to train ("head/bias"); the rest
        is frozen.

    Both parts are flat dicts {name: array, or dict of arrays for a kernel}.
    """
    match = (lambda name: False) if also is None else matcher(also)

    def split(params: Params):
        trainable, frozen = {}, {}
        for i, (name, leaf) in enumerate(sorted(flatten_dict(params, sep="/").items())):
            if is_kernel(name):
                trainable[name], frozen[name] = begin(leaf, i)
            else:
                (trainable if match(name) else frozen)[name] = leaf
        return trainable, frozen

    def join(trainable, frozen) -> Params:
        made = {
            name: kernel(parts, frozen[name])
            for name, parts in trainable.items()
            if is_kernel(name)
        }
        return unflatten_dict({**frozen, **trainable, **made}, sep="/")

    return Subspace(split, join)


def is_kernel(name: str) -> bool:
    """Whether "block0/conv/kernel" is one."""
    return name.rpartition("/")[2] == "kernel"


def matrix(kernel: Array) -> Array:
    """[..., cout] -> [rows, cout]."""
    return kernel.reshape(-1, kernel.shape[-1])


def scale_shift(*, also: str | None = ".*(bias|scale)") -> Subspace:
    """A scale and a shift for each output channel, y -> scale y + shift (Noguchi and Harada 2019).

    The scale multiplies the kernel; a bias is itself trained in place of the shift, and so are the
    scale and the bias of a norm.
    """
    return reparametrize(
        lambda w, i: ({"scale": jnp.ones(w.shape[-1], w.dtype)}, {"kernel": w}),
        lambda trainable, fixed: fixed["kernel"] * trainable["scale"],
        also=also,
    )


def singular_values(*, also: str | None = None) -> Subspace:
    """W = U diag(scale s) V^T, the scales trained (FSGAN, Robb et al. 2020).

    U, s and V are those of the source, so a scale may change its sign; min(rows, cout) for each.
    """

    def begin(w: Array, i: int) -> tuple[Parts, Parts]:
        u, s, vt = jnp.linalg.svd(matrix(w), full_matrices=False)
        # W itself is kept as well: where all scales are 1, so is the kernel to the last bit.
        return {"scale": jnp.ones_like(s)}, {"kernel": w, "left": u * s, "right": vt}

    def kernel(trainable: Parts, fixed: Parts) -> Array:
        change = fixed["left"] * (trainable["scale"] - 1) @ fixed["right"]
        return fixed["kernel"] + change.reshape(fixed["kernel"].shape)

    return reparametrize(begin, kernel, also=also)


def lora(rank: int, *, alpha: float | None = None, also: str | None = None) -> Subspace:
    """W + (alpha / rank) A B, A [rows, rank] and B [rank, cout] trained (Hu et al. 2022).

    B begins with zeros, A with normal numbers of variance 1 / rows, drawn from a fixed key: a
    subspace is a function of the parameters alone. `alpha` is `rank` unless given.
    """
    if rank < 1:
        raise ValueError(f"LoRA needs a rank of 1 or more, got {rank}")
    scale = 1.0 if alpha is None else alpha / rank

    def begin(w: Array, i: int) -> tuple[Parts, Parts]:
        rows, cout = matrix(w).shape
        a = jax.random.normal(jax.random.key(i), (rows, rank), w.dtype) / rows**0.5
        return {"a": a, "b": jnp.zeros((rank, cout), w.dtype)}, {"kernel": w}

    def kernel(trainable: Parts, fixed: Parts) -> Array:
        change = scale * trainable["a"] @ trainable["b"]
        return fixed["kernel"] + change.reshape(fixed["kernel"].shape)

    return reparametrize(begin, kernel, also=also)


def kernel_modulation(*, also: str | None = ".*(bias|scale)") -> Subspace:
    """W * (1 + u v^T) of rank one, u [rows] and v [cout] trained (AdAM, Zhao et al. 2022).

    Its modulation of a bias is additive, which is to train the bias. u begins with ones and v with
    zeros: were both zero, neither had a gradient.
    """

    return reparametrize(
        lambda w, i: (modulation(w), {"kernel": w}),
        lambda trainable, fixed: modulated(**fixed, **trainable),
        also=also,
    )


def modulation(w: Array) -> Parts:
    """The u and v of a kernel that modulate nothing yet."""
    rows, cout = matrix(w).shape
    return {"u": jnp.ones(rows, w.dtype), "v": jnp.zeros(cout, w.dtype)}


def modulated(kernel: Array, u: Array, v: Array) -> Array:
    """W * (1 + u v^T), the outer product in the shape of W."""
    return kernel * (1 + jnp.outer(u, v).reshape(kernel.shape))


def adafm(*, also: str | None = None) -> Subspace:
    """scale W + shift, one of each for every pair of channels (AdaFM, Zhao et al. 2020).

    Both are [cin, cout], alike at all places of a convolution's kernel.
    """

    def begin(w: Array, i: int) -> tuple[Parts, Parts]:
        shape = w.shape[-2:]
        return {"scale": jnp.ones(shape, w.dtype), "shift": jnp.zeros(shape, w.dtype)}, {
            "kernel": w
        }

    return reparametrize(
        begin,
        lambda trainable, fixed: trainable["scale"] * fixed["kernel"] + trainable["shift"],
        also=also,
    )
