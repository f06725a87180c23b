"""First-order MAML (Finn et al. 2017, section 5.2): the inner updates count as constants."""

from fsgan import outer_losses, tasks
from fsgan.meta import maml


def make(
    inner: tasks.Inner,
    loss: outer_losses.OuterLoss = outer_losses.adversarial,
    *,
    warm_up_steps: int = 0,
    multi_step_steps: int = 0,
) -> tasks.Learner:
    """MAML's `make` without second derivatives: the options are those of `maml`."""
    return maml.make(
        inner,
        loss,
        warm_up_steps=warm_up_steps,
        first_order_steps=maml.ALWAYS,
        multi_step_steps=multi_step_steps,
    )
