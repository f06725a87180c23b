"""Reptile (Nichol et al. 2018) for both players; with Adam outside it is FIGR (Clouatre 2019)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fsgan import learned, tasks
from fsgan.types import Array, Episode, Pair


def make(inner: tasks.Inner) -> tasks.Learner:
    """The outer gradient is the way back from the adapted parameters: w - adapt(w).

    With outer SGD at rate e this is w <- w + e (mean over tasks of adapt(w) - w). ValueError where
    the inner loop has settings to learn: they would have no loss to follow.
    """
    if inner.learned is not learned.nothing:
        raise ValueError("Reptile has no query loss for `learned` settings: use maml, or none")
    return tasks.Learner(inner, way_back(inner))


def way_back(inner: tasks.Inner) -> tasks.TaskGradient:
    """Reptile's direction for the initial parameters; learned settings stay as they are."""
    adapt = tasks.make_adapt(inner, draw=True)

    def gradient(params: Pair, key: Array, episode: Episode, step: Array):
        networks, settings = tasks.separate(params)
        adapted, metrics = adapt(params, key, episode.support)
        back = jax.tree.map(lambda start, end: start - end, networks, adapted)
        still = jax.tree.map(jnp.zeros_like, settings)
        return tasks.unite(back, still), {name: value[-1] for name, value in metrics.items()}

    return gradient
