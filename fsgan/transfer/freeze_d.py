"""FreezeD (Mo et al. 2020): fine-tune with the lowest layers of the discriminator frozen."""

from fsgan import subspaces
from fsgan.types import Method, Pair


def make(*, blocks: int = 1) -> Method:
    """Freeze the first `blocks` blocks from the image on; ValueError if there are fewer."""
    if blocks < 1:
        raise ValueError(f"freeze_d needs 1 block or more to freeze, got {blocks}")
    frozen = (f"block{i}" for i in range(blocks))
    return Method(subspace=Pair(subspaces.everything, subspaces.freeze(*frozen)))
