"""Where adaptation may move: `split(params) -> (trainable, frozen)` and its inverse `join`.

`selection` chooses among the parameters as they are, `kernels` writes every kernel as a frozen one
and a small change of it. At the start the change is nothing: `join(*split(params))` is `params`.
"""

from fsgan.subspaces.kernels import (
    adafm,
    kernel_modulation,
    lora,
    reparametrize,
    scale_shift,
    singular_values,
)
from fsgan.subspaces.selection import freeze, freeze_blocks, head, named, nothing, select
from fsgan.types import everything

__all__ = [
    "adafm",
    "everything",
    "freeze",
    "freeze_blocks",
    "head",
    "kernel_modulation",
    "lora",
    "named",
    "nothing",
    "reparametrize",
    "scale_shift",
    "select",
    "singular_values",
]
