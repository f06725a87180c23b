"""What each transfer method costs: `python tests/benchmarks/transfer.py`, on an idle machine.

For every method and switch, on a DCGAN for 28x28x1 at width 32 with 10 target images: steps per
second as a ratio to plain fine-tuning in the same round (medians over rounds, with the quartiles),
how many parameters are trained, the memory of the optimizer, and what the compiled steps need
beside their arguments. `--out=FILE.json` keeps the numbers, `--method=NAME` measures some alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import fsgan.transfer
from fsgan import Game, Pair, gan, losses, nets, plugins

SHOTS, STEPS, ROUNDS = 10, 25, 7
BASELINE = "finetune"


def prepare(name: str):
    """(compiled steps, state, batches, report) of a method at its defaults."""
    method = importlib.import_module(f"fsgan.transfer.{name}").make()
    networks = nets.make("dcgan", (28, 28, 1), width=32)
    game = Game(
        networks,
        losses.adversarial("non_saturating"),
        latent=64,
        penalty=losses.penalty(r1=0.1),
        method=method,
    )
    keys = jax.random.split(jax.random.key(0), 3)
    source = gan.init(keys[0], game)
    game = method.extend(game)
    real = jnp.tanh(jax.random.normal(keys[1], (SHOTS, 28, 28, 1)))
    tx = Pair(*(optax.adam(2e-4, b1=0.5, b2=0.99),) * 2)

    @jax.jit
    def start():
        params, memory = method.start(game, source, real, keys[2])
        return gan.start(params, keys[2], tx, method, memory=memory)

    state = start()
    batches = jnp.broadcast_to(real, (STEPS, *real.shape))
    step = gan.make_step(game, tx)
    steps = jax.jit(lambda state, batches: gan.adapt(step, state, batches)[0])
    compiled = steps.lower(state, batches).compile()
    report = {
        "trained": sum(x.size for x in jax.tree.leaves(state.params)),
        "optimizer_bytes": size(state.opt),
        "memory_bytes": size(state.memory),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }
    return compiled, state, batches, report


def size(tree) -> int:
    arrays = (x for x in jax.tree.leaves(tree) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key))
    return sum(x.nbytes for x in arrays)


def seconds(compiled, state, batches) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(compiled(state, batches).params)
    return time.perf_counter() - begin


def measure(names: list[str]) -> dict[str, dict[str, float]]:
    """Every method once in each round, the baseline in every round with them."""
    ready = {name: prepare(name) for name in names}
    for compiled, state, batches, _ in ready.values():
        seconds(compiled, state, batches)  # warms up
    rounds = [{name: seconds(*made[:3]) for name, made in ready.items()} for _ in range(ROUNDS)]
    rows = {}
    for name, (*_, report) in ready.items():
        ratios = sorted(each[name] / each[BASELINE] for each in rounds)
        low, middle, high = statistics.quantiles(ratios, n=4)
        rate = STEPS / statistics.median(each[name] for each in rounds)
        rows[name] = {
            "time_ratio": middle,
            "time_ratio_quartiles": [low, high],
            "steps_per_second": rate,
            **report,
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--method", action="append", choices=plugins.names(fsgan.transfer))
    given = parser.parse_args()
    names = list(dict.fromkeys([BASELINE, *(given.method or plugins.names(fsgan.transfer))]))
    rows = measure(names)
    heads = ("time / finetune", "steps/s", "trained", "optimizer kB", "kept kB", "temporary kB")
    print("| method | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads))
    for name, row in sorted(rows.items(), key=lambda item: item[1]["time_ratio"]):
        low, high = row["time_ratio_quartiles"]
        kilo = [row[what] / 1e3 for what in ("optimizer_bytes", "memory_bytes", "temporary_bytes")]
        cells = [
            f"{row['time_ratio']:.2f} ({low:.2f} to {high:.2f})",
            f"{row['steps_per_second']:.0f}",
            f"{row['trained']:,}",
            *(f"{x:,.0f}" for x in kilo),
        ]
        print(f"| `{name}` | {' | '.join(cells)} |")
    if given.out:
        about = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
        about |= {"machine": platform.machine(), "rounds": ROUNDS, "steps": STEPS, "shots": SHOTS}
        given.out.write_text(json.dumps({**about, "methods": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
