"""AdAM (Zhao et al. 2022): modulate the kernels that matter for the target, fine-tune the others.

First a probe: all kernels of the source are adapted by modulation alone, W (1 + u v^T), for some
steps. How important a filter is, is the Fisher information of its entry in v plus the mean of that
of u. Then adaptation begins again from the source: filters above a quantile of importance stay
frozen and are modulated, those below are fine-tuned.

The released code reads u v^T, whose columns are the filters, as a kernel whose filters come first:
that mixes the two up, and the modulation is not of rank one. Here it is: see `as_released`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from fsgan import gan
from fsgan.subspaces import kernels
from fsgan.transfer import _fisher
from fsgan.types import Array, Game, GANState, Method, Pair, Subspace

ALSO = ".*(bias|scale)"  # a bias is modulated by addition, which is to fine-tune it


def make(
    *,
    quantile: float = 0.5,
    probe_steps: int = 500,
    probe_batch: int = 4,
    probe_lr: float = 2e-3,
    samples: int = 1000,
    as_released: bool = False,
) -> Method:
    """Fine-tune that quantile of the filters of each player, modulate the others.

    The probe takes `probe_steps` steps of Adam (betas 0 and 0.99), the Fisher information so many
    samples. `as_released`: convolutions are modulated as in `mixed_up`.
    """
    by = mixed_up if as_released else kernels.modulated
    modulation, space = (modulate(by, fine_tune=fine_tune) for fine_tune in (False, True))
    probing = Method(subspace=Pair(modulation, modulation))

    def start(game, source, real, key):
        game = dataclasses.replace(game, method=probing, d_steps=1)
        probe_key, fisher_key = jax.random.split(key)
        state = probe(game, source, real, probe_key, probe_steps, probe_batch, probe_lr)
        fisher = information(game, state, real, jax.random.split(fisher_key, samples))
        return source, Pair(*(above(quantile, importance(player)) for player in fisher))

    def finish(game, before, after, real, metrics):
        players = zip(before.memory, before.params, after.params, strict=True)
        return after.replace(params=Pair(*(restrict(*player) for player in players)))

    return Method(subspace=Pair(space, space), start=start, finish=finish)


def modulate(by: Callable[..., Array], *, fine_tune: bool) -> Subspace:
    """Every kernel as `by(kernel, u, v)`; with `fine_tune` the kernel itself is trained, too."""

    def begin(w: Array, i: int):
        own, parts = {"kernel": w}, kernels.modulation(w)
        return ({**own, **parts}, {}) if fine_tune else (parts, own)

    return kernels.reparametrize(
        begin, lambda trainable, fixed: by(**trainable, **fixed), also=ALSO
    )


def mixed_up(kernel: Array, u: Array, v: Array) -> Array:
    """W * (1 + M) as released: the numbers of u v^T [rows, cout], row by row, fill M in the order
    [cout, cin, kh, kw], so that v is no longer one number for each filter. Dense layers are right.
    """
    if kernel.ndim == 2:
        return kernels.modulated(kernel, u, v)
    m = jnp.outer(u, v).reshape([kernel.shape[i] for i in (3, 2, 0, 1)])
    return kernel * (1 + m.transpose(2, 3, 1, 0))


def probe(
    game: Game, source: Pair, real: Array, key: Array, steps: int, batch: int, lr: float
) -> GANState:
    """The state after so many steps of modulation, on batches drawn from `real`."""
    batch_key, train_key = jax.random.split(key)
    tx = Pair(*(optax.adam(lr, b1=0.0, b2=0.99),) * 2)
    step = gan.make_step(game, tx)
    state = gan.start(source, train_key, tx, game.method, ema=False)
    chosen = jax.random.randint(batch_key, (steps, batch), 0, len(real))
    return gan.adapt(lambda state, some: step(state, real[some]), state, chosen)[0]


def information(game: Game, state: GANState, real: Array, keys: Array) -> Pair:
    """Fisher information of both players' modulation."""

    def full(**player) -> Pair:
        return gan.join(game.method, state.params._replace(**player), state.frozen)

    g = _fisher.information(
        lambda g, key: _fisher.g_score(game, full(g=g), key), state.params.g, keys
    )
    d = _fisher.information(
        lambda d, key: _fisher.d_score(game, full(d=d), real, key), state.params.d, keys
    )
    return Pair(g, d)


def importance(fisher: dict) -> dict[str, Array]:
    """That of each filter [cout] of each kernel, from the information of u and v."""
    return {
        name: parts["u"].mean() + parts["v"]
        for name, parts in fisher.items()
        if kernels.is_kernel(name)
    }


def above(quantile: float, importance: dict[str, Array]) -> dict[str, Array]:
    """Which filters are above that quantile of all filters of the network, bool [cout] each."""
    cut = jnp.quantile(jnp.concatenate(list(importance.values())), quantile)
    return {name: value > cut for name, value in importance.items()}


def restrict(important: dict[str, Array], before: dict, after: dict) -> dict:
    """Take back the update of important filters' kernels, and of other filters' modulation."""
    for name, mask in important.items():
        old, new = before[name], after[name]
        kernel = jnp.where(mask, old["kernel"], new["kernel"])
        v = jnp.where(mask, new["v"], old["v"])
        after = {**after, name: {"kernel": kernel, "u": new["u"], "v": v}}
    return after
