"""What each transfer method costs, to be run on an idle machine:

    PYTHONPATH=. python tests/benchmarks/transfer.py --out=FILE.json

For every method and switch, on a DCGAN for 28x28x1 at width 32 with 10 target images: the time of a
step as a ratio to plain fine-tuning's in the same round (medians over rounds, with the quartiles),
steps per second, how many parameters are trained, the memory of the optimizer, what the method
keeps, and the most memory that the steps need at once, for all but the images. What a method does
before its first step is not in it. `--method=NAME` measures some alone, `--rounds` and `--steps`
shorten it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import fsgan.transfer
from fsgan import Game, Pair, gan, losses, nets, plugins

SHOTS = 10
BASELINE = "finetune"
LATE = 10_000  # the step at which is measured: what begins late, as minegan and rick do, has begun


def prepare(name: str, steps: int):
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
        state = gan.start(params, keys[2], tx, method, memory=memory)
        return state.replace(step=state.step + LATE)

    state = start()
    batches = jnp.broadcast_to(real, (steps, *real.shape))
    step = gan.make_step(game, tx)
    compiled = jax.jit(lambda *args: gan.adapt(step, *args)[0]).lower(state, batches).compile()
    memory = compiled.memory_analysis()
    report = {
        "trained": sum(x.size for x in jax.tree.leaves(state.params)),
        "optimizer_bytes": size(state.opt),
        "memory_bytes": size(state.memory),
        "peak_bytes": memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - batches.nbytes,
    }
    return compiled, state, batches, report


def size(tree) -> int:
    arrays = (x for x in jax.tree.leaves(tree) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key))
    return sum(x.nbytes for x in arrays)


def seconds(compiled, state, batches) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(compiled(state, batches).params)
    return time.perf_counter() - begin


def measure(names: list[str], steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Every method once in each round, the baseline in every round with them."""
    ready = {name: prepare(name, steps) for name in names}
    for compiled, state, batches, _ in ready.values():
        seconds(compiled, state, batches)  # warms up
    times = [{name: seconds(*made[:3]) for name, made in ready.items()} for _ in range(rounds)]
    rows = {}
    for name, (*_, report) in ready.items():
        ratios = sorted(each[name] / each[BASELINE] for each in times)
        low, middle, high = statistics.quantiles(ratios, n=4)
        rate = steps / statistics.median(each[name] for each in times)
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
    parser.add_argument("--steps", type=int, default=50)  # one of them is rick's estimation
    parser.add_argument("--rounds", type=int, default=7)  # 2 or more
    given = parser.parse_args()
    names = list(dict.fromkeys([BASELINE, *(given.method or plugins.names(fsgan.transfer))]))
    rows = measure(names, given.steps, given.rounds)
    heads = ("time / finetune", "steps/s", "trained", "optimizer kB", "kept kB", "peak kB")
    print("| method | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads))
    for name, row in sorted(rows.items(), key=lambda item: item[1]["time_ratio"]):
        low, high = row["time_ratio_quartiles"]
        kilo = [row[what] / 1e3 for what in ("optimizer_bytes", "memory_bytes", "peak_bytes")]
        cells = [
            f"{row['time_ratio']:.2f} ({low:.2f} to {high:.2f})",
            f"{row['steps_per_second']:.0f}",
            f"{row['trained']:,}",
            *(f"{x:,.0f}" for x in kilo),
        ]
        print(f"| `{name}` | {' | '.join(cells)} |")
    if given.out:
        about = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
        about |= {"machine": platform.machine(), "cores": os.cpu_count(), "shots": SHOTS}
        about |= {"rounds": given.rounds, "steps": given.steps}
        given.out.write_text(json.dumps({**about, "methods": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
