"""RICK (Zhao et al. 2023): freeze the filters that matter, prune those that do not fit the target.

Every so many steps the Fisher information of all filters is estimated anew. Until the next time the
filters above a quantile stay as they are; those at the very bottom hold knowledge that is
incompatible with the target, and are set to zero for good; the others are fine-tuned. A filter has
its bias with it. The networks' heads are always fine-tuned.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from fsgan.subspaces.kernels import is_kernel
from fsgan.transfer import _fisher
from fsgan.types import Array, Game, GANState, Method, Pair, Params

Filters = dict[str, Array]  # a value [cout] for the filters of each kernel


def make(
    *,
    quantile: float = 0.4,
    prune: float = 0.001,
    warm_up: int = 250,
    every: int = 50,
    samples: int = 5,
) -> Method:
    """Freeze above the quantile `quantile` of the information, prune up to the quantile `prune`.

    Estimated every `every` steps, from `samples` images. In the first `warm_up` steps nothing but
    the discriminator's head is trained.
    """

    def start(game, source, real, key):
        none = jax.tree.map(lambda value: jnp.zeros_like(value, bool), Pair(*map(filters, source)))
        return source, {"frozen": none, "pruned": none}

    def choose(game: Game, state: GANState, real: Array):
        frozen, pruned = [], []
        for values, so_far in zip(estimate(game, state, real), state.memory["pruned"], strict=True):
            high, low = jnp.quantile(
                jnp.concatenate(list(values.values())), jnp.array([quantile, prune])
            )
            frozen.append({name: value > high for name, value in values.items()})
            pruned.append({name: so_far[name] | (value <= low) for name, value in values.items()})
        return {"frozen": Pair(*frozen), "pruned": Pair(*pruned)}

    def estimate(game: Game, state: GANState, real: Array) -> Pair:
        """The information of both players' filters, the generator's averaged if there is one."""
        params = state.params._replace(g=state.ema.g or state.params.g)
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 1)
        g_keys, d_keys = jax.random.split(key, (2, samples))
        g = _fisher.information(
            lambda g, k: _fisher.g_score(game, params._replace(g=g), k), params.g, g_keys
        )
        d = _fisher.information(
            lambda d, k: _fisher.d_score(game, params._replace(d=d), real, k), params.d, d_keys
        )
        return Pair(filters(g), filters(d))

    def finish(game, before, after, real, metrics):
        ready, images = after.step + 1 - warm_up, real.reshape(-1, *real.shape[2:])
        memory = jax.lax.cond(
            (ready >= 0) & (ready % every == 0),
            lambda: choose(game, after, images),
            lambda: before.memory,
        )
        g, d = (
            unflatten_dict(restrict(*(flatten_dict(x, sep="/") for x in player)), sep="/")
            for player in zip(
                before.params, after.params, before.memory["frozen"], memory["pruned"], strict=True
            )
        )
        warming = before.step < warm_up
        g, body = jax.tree.map(
            lambda old, new: jnp.where(warming, old, new), tuple(before.params), (g, d)
        )
        return after.replace(params=Pair(g, {**body, "head": d["head"]}), memory=memory)

    return Method(start=start, finish=finish)


def filters(fisher: Params) -> Filters:
    """The mean information of each filter, and of it and its bias where it has one; no heads."""
    flat, found = flatten_dict(fisher, sep="/"), {}
    for name, leaf in flat.items():
        if is_kernel(name) and not name.startswith("head/"):
            mean = leaf.mean(range(leaf.ndim - 1))
            bias = flat.get(bias_of(name))
            found[name] = mean if bias is None else (mean + bias) / 2
    return found


def bias_of(kernel: str) -> str:
    return kernel.removesuffix("kernel") + "bias"


def restrict(before: Params, after: Params, frozen: Filters, pruned: Filters) -> Params:
    """Take back the update of frozen filters, and set pruned ones to zero. Flat parameters."""
    after = dict(after)
    for name in frozen:
        for leaf in (name, bias_of(name)):
            if leaf in after:
                kept = jnp.where(frozen[name], before[leaf], after[leaf])
                after[leaf] = jnp.where(pruned[name], 0.0, kept)
    return after
