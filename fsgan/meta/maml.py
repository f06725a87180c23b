"""MAML (Finn et al. 2017) for both players, exact through the whole unrolled game."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fsgan import gan, tasks
from fsgan.meta import reptile
from fsgan.types import Array, Episode, Game, Pair


def make(
    game: Game,
    tx: Pair,
    *,
    steps: int,
    warm_up_steps: int = 0,
    first_order_steps: int = 0,
    multi_step_steps: int = 0,
    unroll: int = 1,
) -> tasks.TaskGradient:
    """Each player descends its own loss on the query images after adaptation to the support.

    Generator d L_G(query; w_n) / d g_0 and discriminator d L_D(query; w_n) / d d_0, where w_n are
    both players' adapted parameters: from one forward pass through the game, two backward ones.

    Args:
      game, tx: what is played inside and the inner optimizers.
      steps: number of inner steps.
      warm_up_steps: until this outer step the direction is Reptile's: from scratch the exact
        gradient learns nothing, because the first discriminators are not worth adapting along.
      first_order_steps: until this outer step the inner updates count as constants (FOMAML), then
        the gradient is exact: derivative-order annealing (Antoniou et al. 2019). 0 is exact from
        the start, at least as many as there are outer steps is FOMAML.
      multi_step_steps: for so many outer steps the query losses after all inner steps count, the
        last one ever more (`step_weights`); 0 is the loss after the last inner step alone.
      unroll: inner steps per iteration of the compiled loop.
    """
    players = gan.objectives(game)

    def meta_gradient(first_order: bool):
        adapt = tasks.make_adapt(
            game,
            tx,
            steps=steps,
            first_order=first_order,
            unroll=unroll,
            history=multi_step_steps > 0,
        )

        def query(adapted: Pair, episode: Episode, key: Array):
            g_key, d_key = jax.random.split(key)
            g_loss, g_metrics = players.g(adapted, episode.query, g_key, {})
            d_loss, d_metrics = players.d(adapted, episode.query, d_key, {})
            return Pair(g_loss, d_loss), {**g_metrics, **d_metrics}

        def losses(params: Pair, key: Array, episode: Episode, step: Array):
            inner, outer = jax.random.split(key)
            adapted, _ = adapt(params, inner, episode.support)
            if multi_step_steps == 0:
                return query(adapted, episode, outer)
            values, metrics = jax.lax.map(
                lambda at: query(at[0], episode, at[1]), (adapted, jax.random.split(outer, steps))
            )
            weights = step_weights(step, steps, multi_step_steps)
            last = {name: value[-1] for name, value in metrics.items()}
            return Pair(*(jnp.vdot(weights, value) for value in values)), last

        def gradient(params: Pair, key: Array, episode: Episode, step: Array):
            values, pull, metrics = jax.vjp(
                lambda p: losses(p, key, episode, step), params, has_aux=True
            )
            one, zero = jnp.ones_like(values.g), jnp.zeros_like(values.g)
            (of_g,), (of_d,) = pull(Pair(one, zero)), pull(Pair(zero, one))
            return Pair(of_g.g, of_d.d), metrics

        return gradient

    follow = reptile.make(game, tx, steps=steps)
    first, exact = meta_gradient(True), meta_gradient(False)

    def gradient(params: Pair, key: Array, episode: Episode, step: Array):
        args = params, key, episode, step
        if warm_up_steps == first_order_steps == 0:
            return exact(*args)
        stage = jnp.where(step < warm_up_steps, 0, jnp.where(step < first_order_steps, 1, 2))
        return jax.lax.switch(stage, (follow, first, exact), *args)

    return gradient


def step_weights(step: Array, n: int, anneal: int) -> Array:
    """Weights [n] of the losses after each inner step at an outer step, summing to 1.

    The multi-step loss of MAML++ (Antoniou et al. 2019): equal at first, then the weight of all but
    the last falls linearly, within `anneal` outer steps, down to 0.03 / n.
    """
    others = jnp.maximum((1 - step / anneal) / n, 0.03 / n)
    return jnp.full(n, others).at[-1].set(1 - (n - 1) * others)
