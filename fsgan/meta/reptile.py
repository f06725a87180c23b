"""Reptile (Nichol et al. 2018) for both players; with Adam outside it is FIGR (Clouatre 2019)."""

from __future__ import annotations

import jax

from fsgan import tasks
from fsgan.types import Array, Episode, Game, Pair


def make(game: Game, tx: Pair, *, steps: int) -> tasks.TaskGradient:
    """The outer gradient is the way back from the adapted parameters: w - adapt(w).

    With outer SGD at rate e this is w <- w + e (mean over tasks of adapt(w) - w).
    """
    adapt = tasks.make_adapt(game, tx, steps=steps)

    def gradient(params: Pair, key: Array, episode: Episode, step: Array):
        adapted, metrics = adapt(params, key, episode.support)
        back = jax.tree.map(lambda start, end: start - end, params, adapted)
        return back, {name: value[-1] for name, value in metrics.items()}

    return gradient
