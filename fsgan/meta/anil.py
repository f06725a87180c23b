"""ANIL (Raghu et al. 2020): the inner loop moves the heads alone, the outer loop everything."""

import dataclasses

from fsgan import outer_losses, subspaces, tasks
from fsgan.meta import maml
from fsgan.types import Method, Pair


def make(
    inner: tasks.Inner,
    loss: outer_losses.OuterLoss = outer_losses.adversarial,
    *,
    g_head: str = "head",
    d_head: str = "head",
    warm_up_steps: int = 0,
    first_order_steps: int = 0,
) -> tasks.Learner:
    """MAML whose inner set is the layers matching `g_head` and `d_head` (`subspaces.named`).

    "no layer" errors come from there. The other options are those of `maml`. ValueError if the
    inner loop has a subspace already.
    """
    if inner.game.method.subspace != Method().subspace:
        raise ValueError("anil has an inner set of its own: give g_head and d_head, no subspace")
    heads = Pair(subspaces.named(g_head), subspaces.named(d_head))
    method = dataclasses.replace(inner.game.method, subspace=heads)
    game = dataclasses.replace(inner.game, method=method)
    return maml.make(
        dataclasses.replace(inner, game=game),
        loss,
        warm_up_steps=warm_up_steps,
        first_order_steps=first_order_steps,
    )
