"""The few types that everything else is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import numpy as np

Array = jax.Array
Params = Any  # nested dict of arrays, as flax.linen makes it
Metrics = dict[str, Array]


class Pair(NamedTuple):
    """One thing for the generator and one for the discriminator."""

    g: Any
    d: Any


@flax.struct.dataclass
class GANState:
    """A GAN in training: arrays only, so jit, donate, scan, vmap, grad and save it as it is."""

    step: Array  # int32, the number of updates so far
    key: Array  # typed key, never advanced: every step folds its number into it
    params: Pair  # what is trained: the trainable part of each network's subspace
    frozen: Pair  # what `join` needs besides; {} where everything is trained
    opt: Pair  # optimizer states, for `params` alone
    ema: Pair  # averaged `params`; {} for a player that is not averaged
    memory: Any  # what a method keeps: source weights, Fisher information, ...; {} if nothing


# A step is pure and a scan body: the metrics are scalars, always under the same names.
Step = Callable[[GANState, Any], tuple[GANState, Metrics]]


class Subspace(NamedTuple):
    """Where adaptation may move: `join(*split(params))` is `params`."""

    split: Callable[[Params], tuple[Any, Any]]  # params -> (trainable, frozen)
    join: Callable[[Any, Any], Params]  # (trainable, frozen) -> params


everything = Subspace(split=lambda params: (params, {}), join=lambda trainable, frozen: trainable)


class Play(NamedTuple):
    """What a player's loss was computed from, for the hooks of a method."""

    params: Pair  # full parameters of both networks
    z: Array  # [n * game.repeat, latent]
    real: Array  # [n, h, w, c] in [-1, 1], as `fake` is
    fake: Array  # [n * game.repeat, h, w, c], generated from z
    on_real: Array  # logits of the augmented real images, [n]
    on_fake: Array  # logits of the augmented generated images, [n * game.repeat]
    augment: Callable[[Array], Array]  # images -> images as the discriminator sees them
    key: Array  # for the hook's own draws
    memory: Any


@dataclasses.dataclass(frozen=True)
class Method:
    """How a GAN is adapted: a subspace, and hooks that do nothing unless a method sets them.

    All hooks are pure. `game` is what is being played, as `extend` returned it; `memory`, part of
    the state, is what `start` returned and `finish` updates.
    """

    subspace: Pair = Pair(everything, everything)  # noqa: RUF009
    # game -> game: networks with parts added, say. Whoever adapts calls it once, before all else;
    # the networks still take the source's parameters.
    extend: Callable[[Game], Game] = lambda game: game
    # (game, source params: Pair, target images, key) -> (params: Pair to start from, memory)
    start: Callable[..., tuple[Pair, Any]] = lambda game, source, real, key: (source, {})
    # (key, latents [n, latent], memory) -> latents, of all images generated in training
    latents: Callable[[Array, Array, Any], Array] = lambda key, z, memory: z
    # (key, images [n, h, w, c], memory) -> images, of all that the discriminator sees
    augment: Callable[[Array, Array, Any], Array] = lambda key, images, memory: images
    # (game, play, adversarial loss) -> the player's loss
    g_loss: Callable[[Game, Play, Array], Array] = lambda game, play, loss: loss
    d_loss: Callable[[Game, Play, Array], Array] = lambda game, play, loss: loss
    # play of the discriminator -> scalars to add to the metrics
    report: Callable[[Play], Metrics] = lambda play: {}
    # (game, state before, state after, real images [d_steps, n, h, w, c], metrics) -> state after,
    # at the end of each step: updates the memory, or takes back part of the parameters' update
    finish: Callable[[Game, GANState, GANState, Array, Metrics], GANState] = (
        lambda game, before, after, real, metrics: after
    )


@dataclasses.dataclass(frozen=True)
class Game:
    """What is played: two networks, their losses, and how they are adapted."""

    nets: (
        Pair  # flax.linen modules: latents [n, latent] -> images, images [n, h, w, c] -> logits [n]
    )
    loss: Pair  # functions of the logits: `losses.adversarial(name)`
    latent: int  # number of latent dimensions
    penalty: Callable | None = None  # added to the discriminator's loss: `losses.penalty(r1=1.0)`
    method: Method = Method()
    d_steps: int = 1  # discriminator updates for each one of the generator
    repeat: int = 1  # generated images for each real one of a batch, in training
    # Samples are drawn with latents of this standard deviation; in training it is 1.
    truncation: float = 1.0


class Images(NamedTuple):
    """A labelled image set on the host."""

    images: np.ndarray  # uint8 [n, h, w, c]
    labels: np.ndarray  # int32 [n], indices into `classes`
    classes: tuple[str, ...]  # class names, alphabet first where there is one: "Greek/alpha"


@flax.struct.dataclass
class Pool:
    """An image set on the device, sorted by class, ready to be sampled under jit."""

    images: Array  # uint8 [n, h, w, c]
    start: Array  # int32 [classes], where each class begins
    count: Array  # int32 [classes], how many images it has


@flax.struct.dataclass
class Episode:
    """One few-shot task, or many with leading axes. Support and query share no image."""

    support: Array  # float32 [shots, h, w, c] in [-1, 1]
    query: Array  # float32 [queries, h, w, c] in [-1, 1]
    label: Array  # int32 [], the class
