"""A scale and a shift for each channel of both players, trained by the adversarial loss.

The parameters are those of Noguchi and Harada (2019), the loss is the baseline's in
Robb et al. (2020). Their released baseline trains singular values besides, by a condition that is
always true: see `as_released`.
"""

from __future__ import annotations

from fsgan import subspaces
from fsgan.types import Method, Pair, Params, Subspace


def make(*, as_released: bool = False) -> Method:
    """`as_released`: train the singular values of every kernel besides its scales, so that what is
    compared with FSGAN has FSGAN in it.
    """
    space = with_singular_values() if as_released else subspaces.scale_shift()
    return Method(subspace=Pair(space, space))


def with_singular_values() -> Subspace:
    """Kernels U diag(value s) V^T diag(scale); values, scales, biases and norms are trained."""
    values, scales = subspaces.singular_values(), subspaces.scale_shift()

    def split(params: Params):
        of_values, frozen = values.split(params)
        return {"values": of_values, "scales": scales.split(params)[0]}, frozen

    def join(trainable, frozen) -> Params:
        _, kernels = scales.split(values.join(trainable["values"], frozen))
        return scales.join(trainable["scales"], kernels)

    return Subspace(split, join)
