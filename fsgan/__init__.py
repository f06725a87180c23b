"""Few-shot image generation with GANs, as pure functions. Needs jax, flax and optax alone."""

from fsgan import episodes, images, losses, nets, subspaces, tasks
from fsgan.gan import adapt, init, make_step, objectives, sample, start, weights
from fsgan.types import Episode, Game, GANState, Images, Method, Pair, Pool, Step, Subspace

__all__ = [
    "Episode",
    "GANState",
    "Game",
    "Images",
    "Method",
    "Pair",
    "Pool",
    "Step",
    "Subspace",
    "adapt",
    "episodes",
    "images",
    "init",
    "losses",
    "make_step",
    "nets",
    "objectives",
    "sample",
    "start",
    "subspaces",
    "tasks",
    "weights",
]
