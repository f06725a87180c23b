"""LoRA (Hu et al. 2022) for both players: every kernel plus a product of two thin matrices."""

from fsgan import subspaces
from fsgan.types import Method, Pair

LEARNING_RATE = 1e-2  # ten times that of whole kernels, as is usual for it


def make(*, rank: int = 4, alpha: float | None = None) -> Method:
    """See `subspaces.lora`."""
    space = subspaces.lora(rank, alpha=alpha)
    return Method(subspace=Pair(space, space))
