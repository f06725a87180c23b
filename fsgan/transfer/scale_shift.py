"""A scale and a shift for each channel of both players, trained by the adversarial loss.

The parameters are those of Noguchi and Harada (2019), the loss is the baseline's in
Robb et al. (2020). Their released baseline trains singular values besides, by a condition that is
always true; here it is scales and shifts alone.
"""

from fsgan import subspaces
from fsgan.types import Method, Pair


def make() -> Method:
    space = subspaces.scale_shift()
    return Method(subspace=Pair(space, space))
