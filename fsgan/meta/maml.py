"""MAML (Finn et al. 2017) for both players, exact through the whole unrolled game."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fsgan import outer_losses, tasks
from fsgan.meta import reptile
from fsgan.types import Array, Episode, Pair

ALWAYS = 2**31 - 1  # a number of outer steps that is never reached


def make(
    inner: tasks.Inner,
    loss: outer_losses.OuterLoss = outer_losses.adversarial,
    *,
    warm_up_steps: int = 0,
    first_order_steps: int = 0,
    multi_step_steps: int = 0,
) -> tasks.Learner:
    """Each player descends its own loss on the query images after adaptation to the support.

    Generator d L_G(query; w_n) / d g_0 and discriminator d L_D(query; w_n) / d d_0, where w_n are
    both players' adapted parameters: from one forward pass through the game, two backward ones.
    What `inner.learned` adds to a player's parameters follows the same loss.

    Args:
      inner: the inner loop.
      loss: the outer loss.
      warm_up_steps: until this outer step the direction is Reptile's: from scratch the exact
        gradient learns nothing, because the first discriminators are not worth adapting along.
      first_order_steps: until this outer step the inner updates count as constants (FOMAML), then
        the gradient is exact: derivative-order annealing (Antoniou et al. 2019). 0 is exact from
        the start, at least as many as there are outer steps is FOMAML.
      multi_step_steps: for so many outer steps the query losses after all inner steps count, the
        last one ever more (`step_weights`); 0 is the loss after the last inner step alone.
    """
    game, steps = inner.game, inner.steps

    def meta_gradient(first_order: bool):
        adapt = tasks.make_adapt(
            inner, draw=True, first_order=first_order, history=multi_step_steps > 0
        )

        def losses(adapted: Pair, key: Array, episode: Episode, step: Array):
            if multi_step_steps == 0:
                return loss(game, adapted, episode.query, key)
            values, metrics = jax.lax.map(
                lambda at: loss(game, at[0], episode.query, at[1]),
                (adapted, jax.random.split(key, steps)),
            )
            weights = step_weights(step, steps, multi_step_steps)
            last = {name: value[-1] for name, value in metrics.items()}
            return jax.tree.map(lambda value: jnp.vdot(weights, value), values), last

        def gradient(params: Pair, key: Array, episode: Episode, step: Array):
            inner_key, key = jax.random.split(key)
            adapted, pull = jax.vjp(lambda p: adapt(p, inner_key, episode.support)[0], params)
            values, push, metrics = jax.linearize(
                lambda adapted: losses(adapted, key, episode, step), adapted, has_aux=True
            )

            def slope(of: Callable) -> Pair:
                """The derivative of `of(losses)` in the adapted networks, and of nothing else: the
                other player's loss, pulled back with a zero, would cost as much.
                """
                transposed = jax.linear_transpose(lambda t: of(push(t)), adapted)
                return transposed(jnp.ones_like(of(values)))[0]

            if not isinstance(values, Pair):  # one loss for both players
                return pull(slope(lambda value: value))[0], metrics
            of_g, of_d = slope(lambda values: values.g), slope(lambda values: values.d)
            if first_order:  # an opponent's constant updates lead to no parameters of one's own
                still = jax.tree.map(jnp.zeros_like, adapted)
                of_g, of_d = Pair(of_g.g, still.d), Pair(still.g, of_d.d)
            if inner.remat:  # both at once: what is computed a second time serves both
                (both,) = jax.vmap(pull)(jax.tree.map(lambda *x: jnp.stack(x), of_g, of_d))
                of_g, of_d = (jax.tree.map(lambda x, i=i: x[i], both) for i in range(2))
            else:
                (of_g,), (of_d,) = pull(of_g), pull(of_d)
            return Pair(of_g.g, of_d.d), metrics

        return gradient

    # What jit has traced for its shapes, or for one stage, is not traced again.
    first, exact = (jax.jit(meta_gradient(first_order)) for first_order in (True, False))
    follow = reptile.way_back(inner)

    def gradient(params: Pair, key: Array, episode: Episode, step: Array):
        args = params, key, episode, step
        if len(stages) == 1:
            return stages[0](*args)
        stage = sum((step >= end).astype(jnp.int32) for end in ends[:-1])
        return jax.lax.switch(stage, stages, *args)

    def warm_up(*args):
        _, metrics = jax.eval_shape(first, *args)  # those of the query, which is not looked at
        direction, found = follow(*args)
        return direction, {name: found.get(name, jnp.zeros(())) for name in metrics}

    # Only the stages that are ever reached are compiled: each with its end, in order.
    last = max(warm_up_steps, first_order_steps)
    plan = [(warm_up, warm_up_steps), (first, last), (exact, ALWAYS)]
    begins = [0, warm_up_steps, last]
    stages, ends = zip(
        *(part for part, begin in zip(plan, begins, strict=True) if begin < part[1]), strict=True
    )
    return tasks.Learner(inner, gradient)


def step_weights(step: Array, n: int, anneal: int) -> Array:
    """Weights [n] of the losses after each inner step at an outer step, summing to 1.

    The multi-step loss of MAML++ (Antoniou et al. 2019): equal at first, then the weight of all but
    the last falls linearly, within `anneal` outer steps, down to 0.03 / n.
    """
    others = jnp.maximum((1 - step / anneal) / n, 0.03 / n)
    return jnp.full(n, others).at[-1].set(1 - (n - 1) * others)
