"""Feature extraction: the last layer of each network is trained, all below are fixed features."""

from fsgan import gan, subspaces
from fsgan.types import Method, Pair


def make(*, fresh: bool = True) -> Method:
    """With `fresh` the discriminator's head is a new one; the generator keeps the source's."""

    def start(game, params, real, key):
        if fresh:
            params = params._replace(d={**params.d, "head": gan.init(key, game).d["head"]})
        return params, {}

    return Method(subspace=Pair(subspaces.head, subspaces.head), start=start)
