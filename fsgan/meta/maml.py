"""MAML (Finn et al. 2017) for both players, exact through the whole unrolled game."""

from __future__ import annotations

import jax

from fsgan import gan, tasks
from fsgan.types import Array, Episode, Game, Pair


def make(
    game: Game, tx: Pair, *, steps: int, first_order_steps: int = 0, unroll: int = 1
) -> tasks.TaskGradient:
    """Each player descends its own loss on the query images after adaptation to the support.

    Generator d L_G(query; w_n) / d g_0 and discriminator d L_D(query; w_n) / d d_0, where w_n are
    both players' adapted parameters: from one forward pass through the game, two backward ones.

    Args:
      game, tx: what is played inside and the inner optimizers.
      steps: number of inner steps.
      first_order_steps: for so many outer steps the inner updates count as constants (FOMAML), then
        the gradient is exact: derivative-order annealing (Antoniou et al. 2019). 0 is MAML from the
        start, more than the outer steps is FOMAML.
      unroll: inner steps per iteration of the compiled loop.
    """
    players = gan.objectives(game)

    def meta_gradient(first_order: bool):
        adapt = tasks.make_adapt(game, tx, steps=steps, first_order=first_order, unroll=unroll)

        def losses(params: Pair, key: Array, episode: Episode):
            inner, g_key, d_key = jax.random.split(key, 3)
            adapted, _ = adapt(params, inner, episode.support)
            g_loss, g_metrics = players.g(adapted, episode.query, g_key, {})
            d_loss, d_metrics = players.d(adapted, episode.query, d_key, {})
            return Pair(g_loss, d_loss), {**g_metrics, **d_metrics}

        def gradient(params: Pair, key: Array, episode: Episode):
            values, pull, metrics = jax.vjp(lambda p: losses(p, key, episode), params, has_aux=True)
            one, zero = jax.numpy.ones_like(values.g), jax.numpy.zeros_like(values.g)
            (of_g,), (of_d,) = pull(Pair(one, zero)), pull(Pair(zero, one))
            return Pair(of_g.g, of_d.d), metrics

        return gradient

    first, exact = meta_gradient(True), meta_gradient(False)

    def gradient(params: Pair, key: Array, episode: Episode, step: Array):
        if first_order_steps == 0:
            return exact(params, key, episode)
        return jax.lax.cond(step < first_order_steps, first, exact, params, key, episode)

    return gradient
