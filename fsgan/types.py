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


@dataclasses.dataclass(frozen=True)
class Method:
    """How a GAN is adapted: a subspace, penalties and augmentation. The default is fine-tuning.

    The hooks are pure. The penalties are added to the players' losses, the first argument being the
    player's full parameters; `memory` is what `start` returned.
    """

    subspace: Pair = Pair(everything, everything)  # noqa: RUF009
    # (source params: Pair, target images, key) -> (params: Pair to start from, memory)
    start: Callable[[Pair, Array, Array], tuple[Pair, Any]] = lambda params, real, key: (params, {})
    # (params, latents [n, latent], generated images [n, h, w, c], memory) -> scalar
    g_penalty: Callable[[Params, Array, Array, Any], Any] = lambda params, z, fake, memory: 0.0
    # (params, real images, generated images, memory) -> scalar
    d_penalty: Callable[[Params, Array, Array, Any], Any] = lambda params, real, fake, memory: 0.0
    # (key, images [n, h, w, c], memory) -> images, applied to all that the discriminator sees
    augment: Callable[[Array, Array, Any], Array] = lambda key, images, memory: images


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
