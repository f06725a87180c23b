"""FSGAN (Robb et al. 2020): only the singular values of all kernels are trained, in both players.

The singular vectors stay the source's; biases and norms are frozen.
"""

from fsgan import subspaces
from fsgan.types import Method, Pair


def make() -> Method:
    space = subspaces.singular_values()
    return Method(subspace=Pair(space, space))
