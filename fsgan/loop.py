"""The one loop: it runs any `Step` on any devices, and can be stopped and resumed at any time."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from fsgan import sharding
from fsgan.checkpoint import Checkpoints
from fsgan.log import Logger, parameter_overview
from fsgan.pictures import curves
from fsgan.types import Array, Step


@dataclasses.dataclass(frozen=True)
class Job:
    """What a phase hands to the loop."""

    phase: str
    init: Callable[[], Any]  # the state to begin with; pure, runs under jit
    step: Step
    sample: Callable[[Array, Any], Any]  # (key, data) -> batch; pure, runs under jit
    data: Any  # pytree of arrays, kept on the devices
    data_key: Array  # with the step's number it decides the batch: a resumed run sees the same
    # (state, logger, last) -> scores: draws pictures and measures; must not change the state
    observe: Callable[[Any, Logger, bool], dict[str, float]]
    record: dict[str, Any]  # what data it learns from
    batch_axis: int = 0  # the axis of the batch that is shared out over the devices
    mesh: Mesh | None = None  # the devices that take part; all of them where None
    score: str | None = None  # the observed score that chooses the best checkpoint, lower is better
    watch: Callable[[Path], list[str]] = lambda workdir: []  # what is to be warned of, once scored


class NonFiniteError(RuntimeError):
    """Training produced a value that is not finite."""


class Interrupt:
    """Turns SIGTERM and the first SIGINT into a flag, so that the loop can save and leave."""

    def __enter__(self) -> Interrupt:
        self.signal = None
        # Python delivers signals to the main thread only and lets no other one install handlers.
        watched = (signal.SIGTERM, signal.SIGINT)
        main = threading.current_thread() is threading.main_thread()
        self._before = {s: signal.signal(s, self._handle) for s in watched} if main else {}
        return self

    def _handle(self, number: int, frame) -> None:
        self.signal = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C stops at once

    def anywhere(self) -> bool:
        """Whether a signal has come to any process: all leave at the same step, or none."""
        if jax.process_count() == 1:
            return self.signal is not None
        return bool(multihost_utils.process_allgather(np.array(self.signal is not None)).any())

    def __exit__(self, *exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def check_intervals(steps: int, report_every: int, **intervals: int) -> None:
    """ValueError unless all are positive and the intervals are multiples of `report_every`."""
    for name, value in {"steps": steps, "report_every": report_every, **intervals}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    for name, value in intervals.items():
        if value % report_every:
            raise ValueError(
                f"{name}={value} must be a multiple of report_every={report_every}: "
                "the device is only looked at between reports"
            )


def run(
    job: Job,
    workdir: str | Path,
    *,
    steps: int,
    report_every: int,
    observe_every: int,
    save_every: int,
    keep: int = 3,
) -> bool:
    """Train until `steps`, from the last checkpoint in `workdir` where there is one.

    `report_every` steps are one dispatch; `observe_every` and `save_every` are multiples of it.
    Returns True when done, False when a signal stopped it, after saving. Raises NonFiniteError,
    naming the step, when a metric or a parameter stops being finite: what was saved last is good.
    """
    workdir = Path(workdir)
    check_intervals(steps, report_every, observe_every=observe_every, save_every=save_every)
    mesh = job.mesh or sharding.make_mesh()
    everywhere = sharding.replicated(mesh)
    # By way of the host, as keys cannot go straight to the devices of other processes.
    key_data = jax.device_get(jax.random.key_data(job.data_key))
    data, key_data = jax.device_put((job.data, key_data), everywhere)
    init = jax.jit(job.init, out_shardings=everywhere)

    # The key is an argument: as a constant it would have every seed compiled anew.
    def chunk(state, data, key_data, length: int):
        key = jax.random.wrap_key_data(key_data, impl=jax.random.key_impl(job.data_key))

        def body(state, _):
            batch = job.sample(jax.random.fold_in(key, state.step), data)
            return job.step(state, sharding.split(batch, mesh, job.batch_axis))

        state, metrics = jax.lax.scan(body, state, length=length)
        return jax.lax.with_sharding_constraint((state, metrics), everywhere)

    compiled: dict[int, Callable] = {}
    chunk = jax.jit(chunk, static_argnums=3, donate_argnums=0)
    all_finite = jax.jit(
        lambda tree: jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()
    )

    checkpoints = Checkpoints(workdir / "checkpoints", keep=keep)
    first = checkpoints.latest()
    if first is None:
        state = init()
    else:
        example = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
            jax.eval_shape(job.init),
        )
        state = checkpoints.restore(example)
    done = first or 0

    with Logger(workdir, steps=steps, start=done) as log, Interrupt() as interrupt:
        log.info(parameter_overview(state.params))
        log.info(f"{job.phase} in {workdir}, step {done} of {steps}, on {mesh}")

        while done < steps and not interrupt.anywhere():
            length = min(report_every - done % report_every, steps - done)
            compile_seconds = None
            if length not in compiled:
                begin = time.perf_counter()
                lowered = chunk.lower(state, data, key_data, length)
                compiled[length] = lowered.compile(sharding.compiler_options())
                compile_seconds = time.perf_counter() - begin
            state, metrics = compiled[length](state, data, key_data)
            metrics = jax.device_get(metrics)
            _check_finite(metrics, done, checkpoints)
            done += length
            means = {name: float(np.mean(values)) for name, values in metrics.items()}
            log.write(done, job.phase, means, compile_seconds=compile_seconds)

            last = done == steps
            scores = {}
            if last or done % observe_every == 0:
                scores = job.observe(state, log, last)
                if scores:
                    log.scores(done, job.phase, scores)
                    for warning in job.watch(workdir) if jax.process_index() == 0 else ():
                        log.info(f"warning: {warning}")
            if last or scores or done % save_every == 0 or interrupt.anywhere():
                if not all_finite(state.params):
                    raise _non_finite("a parameter", done, checkpoints)
                checkpoints.save(done, state, score=scores.get(job.score))
        if interrupt.anywhere():
            if done and checkpoints.latest() != done:  # the signal came after the last look at it
                checkpoints.save(done, state)
            what = (
                f"saved step {done}; the same command goes on from there" if done else "no step yet"
            )
            log.info(f"{interrupt.signal or 'stopped'}: {what}")
        checkpoints.wait()
    if jax.process_index() == 0:
        curves(workdir)
    return done == steps


def _check_finite(metrics: dict[str, np.ndarray], done: int, checkpoints: Checkpoints) -> None:
    bad = {name: np.flatnonzero(~np.isfinite(values)) for name, values in metrics.items()}
    first = {name: int(where[0]) for name, where in bad.items() if len(where)}
    if first:
        name = min(first, key=first.get)
        raise _non_finite(name, done + first[name] + 1, checkpoints)


def _non_finite(what: str, step: int, checkpoints: Checkpoints) -> NonFiniteError:
    checkpoints.wait()
    saved = checkpoints.latest()
    kept = "nothing was saved yet" if saved is None else f"the checkpoint of step {saved} is kept"
    return NonFiniteError(
        f"{what} is not finite at step {step}: stopped, {kept}; "
        "lower the learning rates or raise the penalty's weight"
    )
