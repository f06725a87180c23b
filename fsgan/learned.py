"""What a meta-learner can learn besides the initial parameters: the inner loop's own settings.

Each function here returns a `Learned`: arrays for each player, started so that the inner loop is
the one that its optimizer describes, and how they enter. They are outer parameters like all others:
each player's follow the gradient of its own outer loss, through all inner steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fsgan import plugins
from fsgan.types import Array, Game, Pair


class Learned(NamedTuple):
    """Learned settings: `init(trainable parameters: Pair) -> Pair` of arrays to begin with, and
    `bind(arrays, game, tx) -> (game, tx)`, which plays by them.
    """

    init: Callable[[Pair], Pair]
    bind: Callable[[Pair, Game, Pair], tuple[Game, Pair]]


def combine(parts: Mapping[str, Learned]) -> Learned:
    """Several at once, each under its name; none at all is the plain inner loop."""

    def init(params: Pair) -> Pair:
        each = {name: part.init(params) for name, part in parts.items()}
        return Pair(*({name: getattr(v, p) for name, v in each.items()} for p in Pair._fields))

    def bind(arrays: Pair, game: Game, tx: Pair) -> tuple[Game, Pair]:
        for name, part in parts.items():
            game, tx = part.bind(Pair(arrays.g[name], arrays.d[name]), game, tx)
        return game, tx

    return Learned(init, bind)


nothing = combine({})


def schedule() -> Learned:
    """Rates that fall with the inner step t as eta0 exp(-eta1 t), eta0 and eta1 learned.

    Two scalars for each player: eta0 = exp(a) as a factor of the optimizer's own rate, starting
    at 1, and eta1 = softplus(b), starting at 0.01.
    """
    start = {"a": jnp.zeros(()), "b": jnp.log(jnp.expm1(0.01))}

    def factors(s: dict[str, Array], t: Array, updates: Any) -> Any:
        rate = jnp.exp(s["a"] - jax.nn.softplus(s["b"]) * t)
        return jax.tree.map(lambda _: rate, updates)

    return _rates(lambda params: start, factors)


def per_leaf() -> Learned:
    """A rate for each parameter array, exp(a) times the optimizer's own, a starting at 0."""
    return _rates(
        lambda params: jax.tree.map(lambda _: jnp.zeros(()), params),
        lambda a, t, updates: jax.tree.map(jnp.exp, a),
    )


def per_leaf_and_step(*, steps: int) -> Learned:
    """A rate for each parameter array and inner step: LSLR of MAML++ (Antoniou et al. 2019).

    exp(a) times the optimizer's own, a [steps] starting at 0, so that rates stay positive. Later
    inner steps than `steps` have the last one's rate.
    """

    def factors(a: Any, t: Array, updates: Any) -> Any:
        return jax.tree.map(lambda x: jnp.exp(x[jnp.minimum(t, steps - 1)]), a)

    return _rates(lambda params: jax.tree.map(lambda _: jnp.zeros(steps), params), factors)


def per_parameter() -> Learned:
    """A rate for every single parameter, of any sign: Meta-SGD (Li et al. 2017).

    It is a factor of the optimizer's own rate, starting at 1.
    """
    return _rates(lambda params: jax.tree.map(jnp.ones_like, params), lambda a, t, updates: a)


def momentum() -> Learned:
    """A learned momentum for each player: sigmoid(m), starting at 0.1, over the updates."""

    def bind(arrays: Pair, game: Game, tx: Pair) -> tuple[Game, Pair]:
        return game, Pair(
            *(
                optax.chain(t, optax.trace(decay=jax.nn.sigmoid(m)))
                for t, m in zip(tx, arrays, strict=True)
            )
        )

    start = jax.scipy.special.logit(jnp.float32(0.1))
    return Learned(lambda params: Pair(start, start), bind)


def penalty() -> Learned:
    """A learned weight of the discriminator's penalty: exp(a) times the game's own, a from 0."""

    def bind(arrays: Pair, game: Game, tx: Pair) -> tuple[Game, Pair]:
        own = game.penalty
        if own is None:
            raise ValueError("there is no penalty whose weight could be learned: set one, as r1")
        weighted = lambda *args: jnp.exp(arrays.d) * own(*args)  # noqa: E731
        return dataclasses.replace(game, penalty=weighted), tx

    return Learned(lambda params: Pair({}, jnp.zeros(())), bind)


SETTINGS = {
    "schedule": lambda steps: schedule(),
    "per_leaf": lambda steps: per_leaf(),
    "per_leaf_and_step": lambda steps: per_leaf_and_step(steps=steps),
    "per_parameter": lambda steps: per_parameter(),
    "momentum": lambda steps: momentum(),
    "penalty": lambda steps: penalty(),
}


def make(names: Sequence[str], *, steps: int) -> Learned:
    """The learned settings of these names, for `steps` inner steps; ValueError for unknown ones."""
    for name in names:
        if name not in SETTINGS:
            raise plugins.unknown("learned setting", name, SETTINGS)
    return combine({name: SETTINGS[name](steps) for name in names}) if names else nothing


def _rates(init: Callable[[Any], Any], factors: Callable[[Any, Array, Any], Any]) -> Learned:
    """Factors of both players' updates, `factors(arrays, inner step, updates)` for each leaf."""

    def scale(arrays: Any) -> optax.GradientTransformation:
        def update(updates, count, params=None):
            by = factors(arrays, count, updates)
            return jax.tree.map(jnp.multiply, updates, by), count + 1

        return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)

    def bind(arrays: Pair, game: Game, tx: Pair) -> tuple[Game, Pair]:
        pairs = zip(tx, arrays, strict=True)
        return game, Pair(*(optax.chain(t, scale(a)) for t, a in pairs))

    return Learned(lambda params: Pair(*map(init, params)), bind)
