"""What all meta-learners share: adaptation to one task, means over tasks, the outer update.

inner = Inner(game, tx, steps=5)
learner = maml.make(inner, outer_losses.make())
state = start(params, key, outer_tx, learner)
step = make_step(learner, outer_tx)
state, metrics = step(state, episodes)         # one outer update, from a batch of tasks
adapted, _ = make_adapt(learner.inner)(gan.weights(state), key, support)
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from fsgan import gan, learned, optim, plugins, trees
from fsgan.types import Array, Episode, Game, GANState, Metrics, Pair, Step

# Adaptation to one task: (meta-parameters: Pair, key, support images) -> (networks, metrics).
Adapt = Callable[[Pair, Array, Array], tuple[Pair, Metrics]]
# One task's part of the outer gradient: (meta-parameters, key, episode, step) -> (..., metrics).
TaskGradient = Callable[[Pair, Array, Episode, Array], tuple[Pair, Metrics]]


@dataclasses.dataclass(frozen=True)
class Inner:
    """The inner loop: how the networks adapt to one task, in meta-training and afterwards.

    The optimizers start afresh for each task, each step draws its own latents, and the subspace of
    `game.method` says which parameters move. With `batch` the steps see different images of the
    class: what serves one mini-batch is to serve the others, too, which is what Reptile learns
    (Nichol et al. 2018, section 5.1).
    """

    game: Game
    tx: Pair  # inner optimizers
    steps: int
    fewest: int | None = None  # meta-training draws the number of steps from fewest .. steps
    learned: learned.Learned = learned.nothing  # settings learned besides the parameters
    average: str = "none"  # what adaptation ends in, one of AVERAGES
    batch: int | None = None  # a step takes so many images of a larger support, drawn anew
    remat: bool = False  # compute inner steps again instead of keeping them in memory
    unroll: int = 1  # inner steps per iteration of the compiled loop


class Learner(NamedTuple):
    """A meta-learner, as a file of fsgan/meta makes it."""

    inner: Inner
    gradient: TaskGradient


# How far the mean of the iterates w_1 .. w_n moves to w_t: at the end it is the last iterate, their
# uniform mean, or an exponential one with the weight of a step halved every two steps.
AVERAGES = {
    "none": lambda t: jnp.ones(()),
    "uniform": lambda t: 1 / t,
    "ema": lambda t: jnp.maximum(1 / t, 1 - 0.5**0.5),
}


def separate(params: Pair) -> tuple[Pair, Pair]:
    """Meta-parameters as the networks' parameters and the learned settings, {} where none are."""
    networks = Pair(*({k: v for k, v in player.items() if k != "inner"} for player in params))
    return networks, Pair(*(player.get("inner", {}) for player in params))


def unite(networks: Pair, settings: Pair) -> Pair:
    """The meta-parameters: settings stand beside a network's layers, under the name `inner`."""
    return Pair(*({**n, "inner": s} if s else n for n, s in zip(networks, settings, strict=True)))


def make_adapt(
    inner: Inner,
    *,
    steps: int | None = None,
    draw: bool = False,
    first_order: bool = False,
    history: bool = False,
) -> Adapt:
    """Adaptation to the support images of one task, by training steps on all of them, or on
    mini-batches where `inner.batch` is smaller.

    Args:
      inner: the inner loop.
      steps: how many steps to take instead of `inner.steps`.
      draw: draw their number from the key, where `inner.fewest` is set.
      first_order: the result differentiates as if all updates were constants.
      history: return the parameters after every step, on a leading axis [steps].

    The metrics are those of the training step, [steps] each.
    """
    game, steps = inner.game, inner.steps if steps is None else steps
    method, d_steps = game.method, game.d_steps
    if inner.average not in AVERAGES:
        raise plugins.unknown("average", inner.average, AVERAGES)
    weight = AVERAGES[inner.average]
    tx = inner.tx
    if first_order:
        tx = Pair(*(optax.chain(optim.first_order(), t) for t in tx))

    def adapt(params: Pair, key: Array, support: Array) -> tuple[Pair, Metrics]:
        networks, settings = separate(params)
        played, by = inner.learned.bind(settings, game, tx)
        one = gan.make_step(played, by)
        last = None
        if draw and inner.fewest is not None:
            key, count_key = jax.random.split(key)
            last = jax.random.randint(count_key, (), inner.fewest, steps + 1)

        def step(state: GANState, real: Array):
            """One step; `ema` has the mean of the iterates, where one is wanted."""
            after, metrics = one(state.replace(ema=Pair({}, {})), real)
            if last is not None:  # the steps beyond the number drawn change nothing
                pick = partial(jnp.where, state.step < last)
                after = after.replace(params=jax.tree.map(pick, after.params, state.params))
            result = after.params
            if inner.average != "none":
                rate = weight(state.step + 1)
                if last is not None:
                    rate = jnp.where(state.step < last, rate, 0.0)
                result = optax.incremental_update(after.params, state.ema, rate)
                after = after.replace(ema=result)
            return after, (metrics, result if history else None)

        if inner.remat:
            step = jax.checkpoint(step)
        if inner.batch is None or inner.batch >= len(support):
            batches = jnp.broadcast_to(support, (steps * d_steps, *support.shape))
        else:
            key, order_key = jax.random.split(key)
            batches = minibatches(order_key, support, inner.batch, steps * d_steps)
        if d_steps > 1:
            batches = batches.reshape(steps, d_steps, *batches.shape[1:])
        state = gan.start(networks, key, by, method, ema=False)
        if inner.average != "none":
            state = state.replace(ema=state.params)
        some = partial(gan.adapt, step, unroll=inner.unroll)
        if inner.remat:
            # In stretches, of which the beginnings alone are kept until one is needed: the square
            # root of the steps, for one more time of computing (Chen et al. 2016).
            parts = next(k for k in range(math.isqrt(steps) or 1, 0, -1) if steps % k == 0)
            stretches = batches.reshape(parts, steps // parts, *batches.shape[1:])
            state, found = gan.adapt(jax.checkpoint(some), state, stretches)
            metrics, path = jax.tree.map(lambda x: x.reshape(steps, *x.shape[2:]), found)
        else:
            state, (metrics, path) = some(state, batches)
        if not history:
            end = state.params if inner.average == "none" else state.ema
            return gan.join(method, end, state.frozen), metrics
        join = jax.vmap(lambda trainable: gan.join(method, trainable, state.frozen))
        return join(path), metrics

    return adapt


def minibatches(key: Array, images: Array, n: int, count: int) -> Array:
    """`count` mini-batches of n images [count, n, ...]: all images in one random order after the
    other; those at the end of an order that fill no batch are left out.
    """
    whole = len(images) // n
    keys = jax.random.split(key, -(-count // whole))
    orders = jax.vmap(lambda key: jax.random.permutation(key, len(images)))(keys)
    return images[orders[:, : whole * n].reshape(-1, n)[:count]]


def mean_over_tasks(
    function, shared, keys: Array, episodes: Episode, *, chunk: int = 1, mesh: Mesh | None = None
):
    """The mean of `function(shared, key, episode)` over tasks, `chunk` of them at a time.

    The chunks run one after the other with a running sum, the tasks of a chunk by vmap: one task
    at a time is fastest on a CPU and needs the least memory, all at once on an accelerator. With a
    mesh each of its devices does so with its part of the tasks; no array of the caller's is then to
    reach the function by another way than these arguments.

    Raises ValueError if the number of tasks is no multiple of the devices times `chunk`.
    """
    tasks, devices = len(keys), mesh.size if mesh else 1
    if tasks % (devices * chunk):
        raise ValueError(
            f"{tasks} tasks cannot be taken {chunk} at a time"
            + f" on {devices} devices" * (devices > 1)
            + ": choose a divisor"
        )

    def total(shared, *xs):
        # Is traced once, though asked twice: for its shapes, and to run.
        of_task = jax.jit(partial(function, shared))

        def add(sums, xs):
            if chunk == 1:  # without vmap over the single one, steps take 0.85 times as long
                found = of_task(*jax.tree.map(lambda x: x[0], xs))
            else:
                found = jax.tree.map(lambda v: v.sum(0), jax.vmap(of_task)(*xs))
            return jax.tree.map(jnp.add, sums, found), None

        shapes = jax.eval_shape(of_task, *jax.tree.map(lambda x: x[0], xs))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        chunks = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), xs)
        sums, _ = jax.lax.scan(add, zero, chunks)
        return jax.lax.psum(sums, mesh.axis_names) if mesh else sums

    if mesh:
        everywhere, split = PartitionSpec(), PartitionSpec(mesh.axis_names)
        total = jax.shard_map(
            total,
            mesh=mesh,
            in_specs=(everywhere, split, split),
            out_specs=everywhere,
            check_vma=False,  # sums begin as zeros that all devices share, and differ from then on
        )
    return jax.tree.map(lambda t: t / tasks, total(shared, keys, episodes))


def make_step(
    learner: Learner,
    tx: Pair,
    *,
    chunk: int = 1,
    mesh: Mesh | None = None,
    ema_decay: float = 0.99,
    only: str | None = None,
) -> Step:
    """The step of a meta-learner: `(state, episodes) -> (state, metrics)`.

    `state.params` are the meta-parameters: initial parameters and learned settings; `state.opt` the
    outer optimizers' states, `state.ema` the averaged meta-parameters of both players. `episodes`
    has a leading axis of tasks; the outer optimizers follow the mean of the tasks' gradients, taken
    as `mean_over_tasks` says. With `only`, a regular expression for names such as "d/head/kernel"
    or "g/inner", nothing else is learned: the ablation of meta-learning one player.
    """
    learns = re.compile(f"({only})(/|$)" if only else "").match

    def step(state: GANState, episodes: Episode) -> tuple[GANState, Metrics]:
        if not any(map(learns, trees.names(state.params))):
            raise ValueError(f"{only!r} leaves nothing to meta-learn")
        tasks = len(episodes.label)
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), tasks)
        gradients, metrics = mean_over_tasks(
            lambda shared, key, episode: learner.gradient(shared[0], key, episode, shared[1]),
            (state.params, state.step),
            keys,
            episodes,
            chunk=chunk,
            mesh=mesh,
        )
        updates, opt = zip(
            *(
                t.update(*args)
                for t, *args in zip(tx, gradients, state.opt, state.params, strict=True)
            ),
            strict=True,
        )
        updates = trees.map_named(
            lambda name, x: x if learns(name) else jnp.zeros_like(x), Pair(*updates)
        )
        params = optax.apply_updates(state.params, updates)
        state = state.replace(params=params, opt=Pair(*opt))
        return gan.average(state, ema_decay), metrics

    return step


def start(params: Pair, key: Array, tx: Pair, learner: Learner) -> GANState:
    """The state in which meta-training begins, from networks' parameters. Both are averaged."""
    inner = learner.inner
    trainable = Pair(
        *(s.split(p)[0] for s, p in zip(inner.game.method.subspace, params, strict=True))
    )
    params = unite(params, inner.learned.init(trainable))
    state = gan.start(params, key, tx, ema=False)
    return state.replace(ema=params)
