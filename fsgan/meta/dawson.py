"""DAWSON (Liang et al. 2020): both adapt; a critic that knows the query judges the generator."""

from __future__ import annotations

from collections.abc import Callable

import jax
import optax

from fsgan import gan, learned, optim, tasks
from fsgan.types import Array, Episode, Pair, everything


def make(inner: tasks.Inner, *, d_steps: int = 3, first_order: bool = True) -> tasks.Learner:
    """From the initial (g, d): d_S by `d_steps` steps on the support against g, d_Q by as many on
    the query; g_S by one step on the support against d_S. Then d descends the sum of
    L_D(query; g, d_S) after each of its steps, g descends L_G(query; g_S, d_Q).

    So a generator adapted to the support is judged by a discriminator that knows the query. With
    `first_order` (as released) the inner updates count as constants. Adaptation afterwards is the
    ordinary inner loop.

    Raises ValueError where the inner loop learns settings, moves a part of the networks or takes
    mini-batches: the scheme has none of these.
    """
    tx, players = inner.tx, gan.objectives(inner.game)
    if inner.learned is not learned.nothing:
        raise ValueError("dawson learns no settings of the inner loop: leave `learned` empty")
    if inner.game.method.subspace != Pair(everything, everything):
        raise ValueError("dawson moves all parameters inside: leave the inner subspace alone")
    if inner.batch is not None:
        raise ValueError("dawson takes all support images in each step: leave train_shots alone")
    if first_order:
        tx = Pair(*(optax.chain(optim.first_order(), t) for t in tx))

    def descend(loss: Callable, start, tx: optax.GradientTransformation, keys: Array) -> list:
        """The iterates after each step on `loss(params, key)`."""
        path, opt = [start], tx.init(start)
        for key in keys:
            updates, opt = tx.update(jax.grad(loss)(path[-1], key), opt, path[-1])
            path.append(optax.apply_updates(path[-1], updates))
        return path[1:]

    def gradient(params: Pair, key: Array, episode: Episode, step: Array):
        s_key, q_key, g_key, key = jax.random.split(key, 4)

        def d_loss(g, d, images, key):
            return players.d(Pair(g, d), images, key, {})

        def judge(g, d, images, key) -> list:
            """The discriminator after each step on some images."""
            keys = jax.random.split(key, d_steps)
            return descend(lambda d, k: d_loss(g, d, images, k)[0], d, tx.d, keys)

        def of_d(d):
            found = [
                d_loss(params.g, after, episode.query, jax.random.fold_in(key, i))
                for i, after in enumerate(judge(params.g, d, episode.support, s_key))
            ]
            return sum(value for value, _ in found), found[-1][1]

        def of_g(g):
            d_s, d_q = (
                judge(g, params.d, images, k)[-1]
                for images, k in ((episode.support, s_key), (episode.query, q_key))
            )
            (g_s,) = descend(
                lambda g, k: players.g(Pair(g, d_s), episode.support, k, {})[0],
                g,
                tx.g,
                g_key[None],
            )
            return players.g(Pair(g_s, d_q), episode.query, key, {})

        g, g_metrics = jax.grad(of_g, has_aux=True)(params.g)
        d, d_metrics = jax.grad(of_d, has_aux=True)(params.d)
        return Pair(g, d), {**g_metrics, **d_metrics}

    return tasks.Learner(inner, gradient)
