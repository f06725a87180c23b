"""What all meta-learners share: adaptation to one task, means over tasks, the outer update."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from fsgan import gan, optim
from fsgan.types import Array, Episode, Game, GANState, Metrics, Pair, Step

# Adaptation to one task: (initial params: Pair, key, support images) -> (adapted params, metrics).
Adapt = Callable[[Pair, Array, Array], tuple[Pair, Metrics]]
# One task's contribution to the meta-gradient: (params, key, episode, step) -> (gradient, metrics).
TaskGradient = Callable[[Pair, Array, Episode, Array], tuple[Pair, Metrics]]


def make_adapt(
    game: Game,
    tx: Pair,
    *,
    steps: int,
    first_order: bool = False,
    unroll: int = 1,
    history: bool = False,
) -> Adapt:
    """Adaptation to the support images of one task, by `steps` training steps on all of them.

    The optimizers start afresh, each step draws its own latents, and `game.method.subspace` says
    which parameters move. With `first_order` the result differentiates as if all updates were
    constants. With `history` the adapted parameters of every step are returned, on a leading axis
    [steps]. The metrics are those of the training step, [steps] each.
    """
    method, d_steps = game.method, game.d_steps
    if first_order:
        tx = Pair(*(optax.chain(optim.first_order(), t) for t in tx))
    one = gan.make_step(game, tx)

    def step(state: GANState, real: Array):
        state, metrics = one(state, real)
        return state, (metrics, state.params if history else None)

    def adapt(params: Pair, key: Array, support: Array) -> tuple[Pair, Metrics]:
        state = gan.start(params, key, tx, method, ema=False)
        real = support if d_steps == 1 else jnp.broadcast_to(support, (d_steps, *support.shape))
        batches = jnp.broadcast_to(real, (steps, *real.shape))
        state, (metrics, path) = gan.adapt(step, state, batches, unroll=unroll)
        if not history:
            return gan.join(method, state.params, state.frozen), metrics
        join = jax.vmap(lambda trainable: gan.join(method, trainable, state.frozen))
        return join(path), metrics

    return adapt


def mean_over_tasks(function, keys: Array, episodes: Episode, chunk: int):
    """The mean of `function(key, episode)` over tasks, `chunk` of them at a time.

    The chunks run one after the other with a running sum, the tasks of a chunk by vmap: one task
    at a time is fastest on a CPU and needs the least memory, all at once on an accelerator. The
    tasks of a chunk are taken from evenly spaced places, so that tasks sharded over devices along
    their axis fall into every chunk alike.

    Raises ValueError if the number of tasks is no multiple of `chunk`.
    """
    tasks = len(keys)
    if tasks % chunk:
        raise ValueError(f"{tasks} tasks cannot be taken {chunk} at a time: choose a divisor")

    def chunks(x):  # [tasks, ...] -> [tasks / chunk, chunk, ...]
        return jnp.moveaxis(x.reshape(chunk, tasks // chunk, *x.shape[1:]), 0, 1)

    def add(total, chunk_of_tasks):
        values = jax.vmap(function)(*chunk_of_tasks)
        return jax.tree.map(lambda t, v: t + v.sum(0), total, values), None

    xs = jax.tree.map(chunks, (keys, episodes))
    shapes = jax.eval_shape(function, *jax.tree.map(lambda x: x[0], (keys, episodes)))
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(add, zero, xs)
    return jax.tree.map(lambda t: t / tasks, total)


def make_step(gradient: TaskGradient, tx: Pair, *, chunk: int = 1, ema_decay: float = 0.99) -> Step:
    """The step of a meta-learner: `(state, episodes) -> (state, metrics)`.

    `state.params` are the initial parameters that are being learned, `state.opt` the outer
    optimizers' states, `state.ema` the averaged initial parameters of both players; `episodes` has
    a leading axis of tasks. The outer optimizers follow the mean of the tasks' gradients.
    """

    def step(state: GANState, episodes: Episode) -> tuple[GANState, Metrics]:
        tasks = len(episodes.label)
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), tasks)
        gradients, metrics = mean_over_tasks(
            lambda key, episode: gradient(state.params, key, episode, state.step),
            keys,
            episodes,
            chunk,
        )
        updates, opt = zip(
            *(
                t.update(*args)
                for t, *args in zip(tx, gradients, state.opt, state.params, strict=True)
            ),
            strict=True,
        )
        params = optax.apply_updates(state.params, Pair(*updates))
        state = state.replace(params=params, opt=Pair(*opt))
        return gan.average(state, ema_decay), metrics

    return step


def start(params: Pair, key: Array, tx: Pair) -> GANState:
    """The state in which meta-training of `params` begins. Both players are averaged."""
    state = gan.start(params, key, tx, ema=False)
    return state.replace(ema=params)
