"""Meta-SGD (Li et al. 2017): MAML that also learns a rate for every single parameter."""

import dataclasses

from fsgan import learned, outer_losses, tasks
from fsgan.meta import maml


def make(
    inner: tasks.Inner,
    loss: outer_losses.OuterLoss = outer_losses.adversarial,
    *,
    warm_up_steps: int = 0,
    first_order_steps: int = 0,
) -> tasks.Learner:
    """The rates begin as the inner optimizer's own. The options are those of `maml`."""
    rates = learned.combine({"all": inner.learned, "per_parameter": learned.per_parameter()})
    return maml.make(
        dataclasses.replace(inner, learned=rates),
        loss,
        warm_up_steps=warm_up_steps,
        first_order_steps=first_order_steps,
    )
