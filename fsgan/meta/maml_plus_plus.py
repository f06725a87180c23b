"""MAML++ (Antoniou et al. 2019): multi-step loss, learned rates per array and step, annealed order.

Its cosine outer rate is the default of the configs; batch statistics per step have no place here,
as no network normalises over the batch.
"""

import dataclasses

from fsgan import learned, outer_losses, tasks
from fsgan.meta import maml


def make(
    inner: tasks.Inner,
    loss: outer_losses.OuterLoss = outer_losses.adversarial,
    *,
    warm_up_steps: int = 0,
    first_order_steps: int = 0,
    multi_step_steps: int = 100,
) -> tasks.Learner:
    """The rates begin as the inner optimizer's own. The options are those of `maml`."""
    rates = learned.per_leaf_and_step(steps=inner.steps)
    both = learned.combine({"all": inner.learned, "per_leaf_and_step": rates})
    return maml.make(
        dataclasses.replace(inner, learned=both),
        loss,
        warm_up_steps=warm_up_steps,
        first_order_steps=first_order_steps,
        multi_step_steps=multi_step_steps,
    )
