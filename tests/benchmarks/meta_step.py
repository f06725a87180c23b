"""fsgan's meta-steps against PyTorch's: `python tests/benchmarks/meta_step.py`, on an idle machine.

    pip install -r tests/benchmarks/requirements.txt       # PyTorch and higher, for this alone
    python tests/benchmarks/meta_step.py --out=tests/benchmarks/meta_step.json
    python tests/benchmarks/report.py tests/benchmarks/meta_step.json  # a table and a picture

The same networks (DCGAN, layer norm in G), losses (non-saturating), tasks, noise and optimizers
(SGD inside, Adam outside) on both sides. First the gradients are compared, in float64 at a small
size, where no activation changes sides by rounding; then whole steps are timed, in float32: each
side in a process of its own, all ready before the first is timed, each in turn. PyTorch takes one
step, fsgan several in one dispatch, as its loop does: a step by itself has its memory mapped anew.
Printed are medians and their ratios, what part of the machine's matrix-product speed is reached,
peak memory, compile times, and growth with T, K, S, width and size. A GPU is used where both sides
find one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
RATE, OUTER, LATENT = 0.01, 1e-3, 64
DISPATCH = 4  # fsgan's steps in one, of main.py's 50
BASE = {"shots": 5, "inner": 5, "width": 64, "size": 28}
JOBS = {
    "plain": {**BASE, "tasks": 1, "shots": 64, "inner": 1},
    "reptile": {**BASE, "tasks": 8},
    "fomaml": {**BASE, "tasks": 8},
    "maml": {**BASE, "tasks": 4},
}
SMALL = {"tasks": 2, "width": 8}  # for the comparison of gradients
FORMS = {
    "plain": ["fsgan", "eager", "torch.compile"],
    "reptile": ["fsgan", "deep-copy loop", "torch.func vmap"],
    "fomaml": ["fsgan", "deep-copy loop", "torch.func vmap"],
    "maml": ["fsgan", "torch.func vmap", "higher"],
}


class JaxSide:
    """One job in fsgan: `run()` takes `steps` of them and returns when they are done."""

    steps = DISPATCH

    def __init__(self, job: str, tasks: int, shots: int, inner: int, width: int, size: int, **more):
        import jax
        import optax

        from fsgan import Episode, Game, Pair, gan, losses, nets, sharding
        from fsgan import tasks as meta
        from fsgan.meta import fomaml, maml, reptile
        from fsgan.train import default_chunk

        sharding.cores_as_devices()  # as main.py does
        self.jax, self.gan, self.job = jax, gan, job
        key = jax.random.key(0)
        pair = nets.make("dcgan", (size, size, 1), width=width)
        game = Game(pair, losses.adversarial("non_saturating"), LATENT)
        params = jax.jit(lambda key: gan.init(key, game))(key)
        self.params = jax.tree.map(lambda x: x.astype(jax.numpy.zeros(()).dtype), params)
        images = np.random.default_rng(0).uniform(-1, 1, (2, tasks, shots, size, size, 1))
        images = images.astype(jax.numpy.zeros(()).dtype)
        outer = Pair(optax.adam(OUTER), optax.adam(OUTER))
        if job == "plain":
            self.batch = jax.numpy.asarray(images[0, 0])
            step = gan.make_step(game, outer)
            self.state = jax.jit(lambda p, key: gan.start(p, key, outer))(self.params, key)
        else:
            makers = {"reptile": reptile.make, "fomaml": fomaml.make, "maml": maml.make}
            sgd = Pair(optax.sgd(RATE), optax.sgd(RATE))
            how = {name: more[name] for name in ("unroll", "remat") if name in more}
            loop = meta.Inner(game, sgd, steps=inner, **how)
            self.learner = makers[job](loop)
            mesh = sharding.make_mesh(sharding.share(tasks, "tasks", cores=True))
            chunk = more.get("chunk") or default_chunk(tasks, mesh)
            of_tasks = meta.make_step(self.learner, outer, chunk=chunk, mesh=mesh)
            everywhere = sharding.replicated(mesh)

            def step(state, batch):
                after = of_tasks(state, sharding.split(batch, mesh))
                return jax.lax.with_sharding_constraint(after, everywhere)

            self.batch = Episode(images[0], images[1], np.zeros(tasks, np.int32))
            self.batch = jax.device_put(self.batch, everywhere)
            start = jax.jit(
                lambda p, key: meta.start(p, key, outer, self.learner), out_shardings=everywhere
            )
            self.state = start(self.params, key)

        def steps(state, batch):
            return jax.lax.scan(lambda s, _: step(s, batch), state, length=self.steps)

        begin = time.perf_counter()
        lowered = jax.jit(steps, donate_argnums=0).lower(self.state, self.batch)
        self.take = lowered.compile(sharding.compiler_options())
        self.compile_seconds = time.perf_counter() - begin
        # What the program holds besides the state and the batch, without the compiler's memory.
        self.program_mb = self.take.memory_analysis().temp_size_in_bytes / 2**20

    def run(self) -> None:
        self.state, metrics = self.take(self.state, self.batch)
        self.jax.block_until_ready((self.state, metrics))

    def reference(self) -> dict:
        """Weights, images, the noise of every step in order, and the mean gradient: as numpy."""
        jax, drawn, draw = self.jax, [], self.gan.latents
        keys = jax.random.split(jax.random.fold_in(self.state.key, 0), len(self.batch.label))
        episodes = [jax.tree.map(lambda x, i=i: x[i], self.batch) for i in range(len(keys))]
        self.gan.latents = lambda *args: drawn.append(np.asarray(draw(*args))) or draw(*args)
        with jax.disable_jit():
            per_task = [
                self.learner.gradient(self.params, key, episode, np.int32(0))[0]
                for key, episode in zip(keys, episodes, strict=True)
            ]
        self.gan.latents = draw
        gradient = jax.tree.map(lambda *x: np.mean(x, 0), *per_task)
        noise = np.array(drawn).reshape(len(keys), -1, *drawn[0].shape)
        return {
            "params": jax.tree.map(np.asarray, tuple(self.params)),
            "gradient": tuple(gradient),
            "noise": noise,
        }


class TorchSide:
    """One job in one of PyTorch's forms."""

    steps = 1

    def __init__(self, job: str, form: str, setting: dict, reference: dict | None):
        sys.path.insert(0, str(HERE))
        import torch
        import torch_side

        check = reference is not None
        if check:
            torch.set_default_dtype(torch.float64)

        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        tasks, shots, width, size = (setting[k] for k in ("tasks", "shots", "width", "size"))
        images = np.random.default_rng(0).uniform(-1, 1, (2, tasks, shots, size, size, 1))
        dtype = "float64" if check else "float32"
        images = torch.tensor(images.astype(dtype).transpose(0, 1, 2, 5, 3, 4))
        if job == "plain":
            self.call = self.plain(torch_side, form, images[0, 0], width, size)
            return
        steps = 2 * setting["inner"]
        if check:
            weights = torch_side.from_jax(reference["params"], width, size)
            noise = torch.tensor(reference["noise"])  # [T, 2 K (+ 2), S, latent]
        else:
            weights = None
            noise = torch.randn(tasks, steps + 2, shots, LATENT)
        z = noise[:, :steps].reshape(tasks, setting["inner"], 2, shots, LATENT)
        problem = torch_side.Problem(
            weights,
            *(x.to(self.device) for x in (*images, z, noise[:, steps : steps + 2])),
            latent=LATENT,
            width=width,
            size=size,
        )
        problem.g.to(self.device), problem.d.to(self.device)
        self.call = torch_side.FORMS[job][form](problem)
        self.error = None
        if not check:
            return
        found = self.call()
        expected = torch_side.from_jax(reference["gradient"], width, size)
        self.error = max(
            sum(float((a[k].detach().cpu() - b[k]).square().sum()) for k in b) ** 0.5
            / sum(float(b[k].square().sum()) for k in b) ** 0.5
            for a, b in zip(found, expected, strict=True)
        )

    def plain(self, side, form: str, real, width: int, size: int):
        torch, real = self.torch, real.to(self.device)
        g, d = side.Generator(LATENT, width, size), side.Discriminator(width, size)
        g.to(self.device), d.to(self.device)
        g_tx, d_tx = (torch.optim.Adam(m.parameters(), OUTER) for m in (g, d))

        def losses_of_d():
            with torch.no_grad():
                fake = g(torch.randn(len(real), LATENT, device=self.device))
            on_real, on_fake = d(torch.cat([real, fake])).chunk(2)
            softplus = torch.nn.functional.softplus
            return softplus(-on_real).mean() + softplus(on_fake).mean()

        def losses_of_g():
            return side.g_loss(g, d, torch.randn(len(real), LATENT, device=self.device))

        if form == "torch.compile":
            losses_of_d, losses_of_g = torch.compile(losses_of_d), torch.compile(losses_of_g)

        def step():
            d_tx.zero_grad()
            losses_of_d().backward()
            d_tx.step()
            g_tx.zero_grad()
            losses_of_g().backward()
            g_tx.step()

        self.error = None
        return step

    def run(self) -> None:
        self.call()
        if self.device == "cuda":
            self.torch.cuda.synchronize()


def worker(arguments: dict) -> None:
    """A process of its own: says when it is ready, then takes timed steps for each line."""
    if arguments["form"] == "fsgan":
        if arguments.get("reference"):
            import jax

            jax.config.update("jax_enable_x64", True)
        if arguments.get("cache"):
            import jax

            jax.config.update("jax_compilation_cache_dir", arguments["cache"])
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        side = JaxSide(arguments["job"], **arguments["setting"])
        if arguments.get("reference"):
            np.save(arguments["reference"], side.reference(), allow_pickle=True)
        ready = {
            "compile_seconds": side.compile_seconds,
            "program_mb": side.program_mb,
            "device": side.jax.default_backend(),
        }
    else:
        reference = None
        if arguments.get("reference"):
            reference = np.load(arguments["reference"], allow_pickle=True).item()
        side = TorchSide(arguments["job"], arguments["form"], arguments["setting"], reference)
        ready = {"error": side.error, "device": side.device}
    for _ in range(math.ceil(3 / side.steps)):
        side.run()
    print(json.dumps(ready), flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        side.run()
        milliseconds = 1e3 * (time.perf_counter() - begin) / side.steps
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"ms": milliseconds, "peak_mb": peak}), flush=True)


class Process:
    def __init__(self, **arguments):
        command = [sys.executable, __file__, "--worker", json.dumps(arguments)]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.ready = self.read()

    def read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a side died: {self.process.wait()}")
        return json.loads(line)

    def step(self) -> dict:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def flops(job: str, tasks: int, shots: int, inner: int, width: int, size: int, **more) -> float:
    """Multiply-adds of the matrix products that one step needs, times two.

    The backward pass of a layer costs its forward pass once for its input and once for its weights;
    where only one of them is asked for, only that is counted. Differentiating an inner step costs
    each of its products twice, for both factors, and exact MAML does so for each player's loss.
    """
    s = (size // 4) ** 2
    stem, mid = LATENT * 2 * width * s, 2 * width * width * 16 * s
    g = 2 * (stem + mid + width * 16 * 4 * s) * shots
    d = 2 * (width * 16 * 4 * s + mid + 2 * width * s) * shots
    # Fakes, then the critic forward and backward on twice as many images; and the critic's weights
    # need no gradient where the generator learns.
    step = (g + 2 * 3 * d) + (3 * g + 2 * d)
    through_step = (2 * g + 2 * 6 * d) + (6 * g + 4 * d)
    total = inner * step
    if job == "fomaml":
        total += step
    if job == "maml":
        total += inner * 2 * through_step + 6 * g + 9 * d  # query losses: of both, in both players
    return tasks * total


def matmul_peak(n: int = 2048) -> float:
    """FLOP/s of a float32 matrix product, the best of ten."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((n, n), jnp.float32)
    product = jax.jit(lambda x: x @ x).lower(x).compile()
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        jax.block_until_ready(product(x))
        times.append(time.perf_counter() - begin)
    return 2 * n**3 / min(times)


def idle() -> float:
    """The machine's load over the last minute; wait a little for it to fall."""
    for _ in range(12):
        load = os.getloadavg()[0]
        if load < 0.5:
            break
        time.sleep(5)
    return load


def compare(job: str, rounds: int, folder: str) -> dict:
    setting, reference = JOBS[job], f"{folder}/{job}.npy"
    errors = {}
    if job != "plain":
        small = {"job": job, "setting": {**setting, **SMALL}, "reference": reference}
        for form in FORMS[job]:  # fsgan first: it writes the reference
            side = Process(form=form, **small)
            errors[form] = side.ready.get("error")
            side.close()
    sides = {form: Process(job=job, form=form, setting=setting) for form in FORMS[job]}
    times = {form: [] for form in sides}
    for _ in range(rounds):
        for form, side in sides.items():
            times[form].append(side.step())
    result = {"setting": setting, "load": os.getloadavg()[0], "forms": {}}
    ours = statistics.median(t["ms"] for t in times["fsgan"])
    for form, side in sides.items():
        ms = [t["ms"] for t in times[form]]
        result["forms"][form] = {
            "ms": statistics.median(ms),
            "min_ms": min(ms),
            "max_ms": max(ms),
            "times_fsgan": statistics.median(ms) / ours,
            "peak_mb": times[form][-1]["peak_mb"],
            **side.ready,
            "error": errors.get(form),
        }
        side.close()
    result["gflops"] = flops(job, **setting) / 1e9
    print(f"\n{job}: {setting}")
    for form, row in result["forms"].items():
        print(
            f"  {form:18}{row['ms']:9.1f} ms  ({row['min_ms']:.1f} to {row['max_ms']:.1f})"
            f"{row['times_fsgan']:8.2f} x fsgan{row['peak_mb']:8.0f} MB"
            + (f"   gradients differ by {row['error']:.1e}" if row.get("error") else ""),
            flush=True,
        )
    return result


def single(rounds: int, **arguments) -> dict:
    side = Process(form="fsgan", **arguments)
    times = [side.step() for _ in range(rounds)]
    side.close()
    ms = statistics.median(t["ms"] for t in times)
    return {"ms": ms, "peak_mb": times[-1]["peak_mb"], **side.ready}


# One setting changed at a time: how cost and memory grow, and which form of a step is fastest.
GROWTH = {
    "reptile": {
        "tasks": (4, 8, 16),
        "inner": (5, 10, 20),
        "shots": (5, 10, 20),
        "width": (32, 64, 128),
        "size": (28, 32, 64),
    },
    "maml": {"inner": (5, 10, 20), "tasks": (2, 4, 8)},
}
FORMULATIONS = {
    "reptile": ({}, {"chunk": 2}, {"chunk": 4}, {"unroll": 5}),
    "maml": ({}, {"chunk": 2}, {"unroll": 5}, {"remat": True}),
}


def vary(rounds: int) -> tuple[dict, dict]:
    """Growth, and formulations, each as "job setting=value": a row. MAML's inner steps grow with
    `remat`, so that all of them are the same program.
    """

    def measure(job: str, name: str, **changes) -> tuple[str, dict]:
        row = single(rounds, job=job, setting={**JOBS[job], **changes})
        print(f"  {job} {name}: {row['ms']:.0f} ms, {row['program_mb']:.0f} MB", flush=True)
        return f"{job} {name}", row

    growth = dict(
        measure(job, f"{name}={value}", **{"remat": (job, name) == ("maml", "inner"), name: value})
        for job, changes in GROWTH.items()
        for name, values in changes.items()
        for value in values
    )
    formulations = dict(
        measure(job, " ".join(f"{k}={v}" for k, v in form.items()) or "default", **form)
        for job, forms in FORMULATIONS.items()
        for form in forms
    )
    return growth, formulations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--growth", action="store_true", help="also growth, and other formulations")
    parser.add_argument("--out", help="write the figures there as JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(json.loads(options.worker))
    load = idle()
    if load >= 0.5:
        print(f"the machine is not idle (load {load:.1f}): read the ratios, not the milliseconds")
    machine = {"cpu": platform.processor(), "cores": os.cpu_count(), "load": load}
    results = {"machine": machine, "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as folder:
        results["jobs"] = {job: compare(job, options.rounds, folder) for job in options.jobs}
        peak = matmul_peak()
        print(f"\nmatrix products: {peak / 1e9:.0f} GFLOP/s")
        for job, row in results["jobs"].items():
            row["of_peak"] = {
                form: 1e9 * row["gflops"] / (r["ms"] / 1e3) / peak
                for form, r in row["forms"].items()
            }
            print(f"  {job}: " + ", ".join(f"{f} {p:.0%}" for f, p in row["of_peak"].items()))
        cache = f"{folder}/xla"
        results["compile_seconds"] = {
            job: [
                single(1, job=job, setting=JOBS[job], cache=cache)["compile_seconds"]
                for _ in ("cold", "cached")
            ]
            for job in options.jobs
        }
        print(f"\ncompile seconds, cold and cached: {results['compile_seconds']}")
        if options.growth:
            results["growth"], results["formulations"] = vary(options.rounds)
    results["matmul_gflops"] = peak / 1e9
    if options.out:
        Path(options.out).write_text(json.dumps(results, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
