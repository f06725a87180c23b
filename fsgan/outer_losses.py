"""What a meta-learner asks of the adapted networks, on a task's query images."""

from __future__ import annotations

from collections.abc import Callable

import jax

from fsgan import gan
from fsgan.features import pixels
from fsgan.metrics import energy
from fsgan.types import Array, Game, Metrics, Pair

# (game, adapted networks, query images [n, h, w, c] in [-1, 1], key) -> (loss of each player, or
# one for both, metrics)
OuterLoss = Callable[[Game, Pair, Array, Array], tuple[Pair | Array, Metrics]]


def adversarial(game: Game, adapted: Pair, query: Array, key: Array) -> tuple[Pair, Metrics]:
    """The players' own losses, as in the inner loop."""
    players = gan.objectives(game)
    g_key, d_key = jax.random.split(key)
    g_loss, g_metrics = players.g(adapted, query, g_key, {})
    d_loss, d_metrics = players.d(adapted, query, d_key, {})
    return Pair(g_loss, d_loss), {**g_metrics, **d_metrics}


def distance(
    features: Callable[[Array], Array] = pixels.features,  # or a `Features`
    compute: Callable[[Array, Array], Array] = energy.compute,  # or kid.mmd2
    *,
    samples: int = 16,
) -> OuterLoss:
    """A likelihood-free distance between `samples` adapted samples and the query images.

    Both players descend it: the generator learns to arrive at the task's images, the discriminator
    to teach that. It needs exact second order: to first order the discriminator has no part in it.
    `compute(real, fake)` compares features [n, d] and [m, d] without bias, n being at least 2.
    """

    def loss(game: Game, adapted: Pair, query: Array, key: Array) -> tuple[Array, Metrics]:
        fake = gan.sample(game, adapted, key, samples)
        value = compute(features(query), features(fake))
        return value, {"distance": value}

    return loss


def mixed(weight: float, other: OuterLoss) -> OuterLoss:
    """Each player's adversarial loss, and `weight` times the distance `other`."""

    def loss(game: Game, adapted: Pair, query: Array, key: Array) -> tuple[Pair, Metrics]:
        own_key, key = jax.random.split(key)
        own, metrics = adversarial(game, adapted, query, own_key)
        value, more = other(game, adapted, query, key)
        return Pair(own.g + weight * value, own.d + weight * value), {**metrics, **more}

    return loss
