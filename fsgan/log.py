"""What a run reports: console, metrics.jsonl, TensorBoard and pictures.

    with Logger(workdir, steps=10_000, start=0) as log:
        log.write(50, "pretrain", {"g_loss": 0.7, "d_loss": 1.3})
        log.scores(50, "pretrain", {"energy": 0.02, "energy_floor": 0.001})
        log.images(50, "samples", pictures.grid(images))

metrics.jsonl has one object a line: step, phase, and either metrics with `rate` (steps/s), or
scores, as "score/energy". Values that are not finite are null there. Everything heavy is imported
where it is used; process 0 alone writes.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fsgan import pictures, trees


class Logger:
    """Reports of one run in `workdir`, from step `start` (0, or the restored one) to `steps`.

    What an earlier run reported of later steps is dropped, so that a resumed run's files read as
    if it had never stopped. The rate counts the time between the end of one call and the next
    `write`, without compilation: pictures and scores do not slow it down. They are in the ETA.
    """

    def __init__(self, workdir: str | Path, *, steps: int, start: int = 0):
        self._workdir, self._steps, self._start = Path(workdir), steps, start
        self._writes = jax.process_index() == 0
        self._scores = ""  # the last ones, for the console

    def __enter__(self) -> Logger:
        if self._writes:
            from tensorboardX import SummaryWriter

            (self._workdir / "samples").mkdir(parents=True, exist_ok=True)
            path = self._workdir / "metrics.jsonl"
            _drop_after(path, self._start)
            self._file = path.open("a", encoding="utf-8")
            self._events = SummaryWriter(
                str(self._workdir / "tensorboard"), purge_step=self._start + 1
            )
        self._reported, self._compiling = self._start, 0.0
        self._begin = self._mark = time.perf_counter()
        return self

    def __exit__(self, *exception) -> None:
        if self._writes:
            self._file.close()
            self._events.close()

    def write(
        self,
        step: int,
        phase: str,
        metrics: Mapping[str, float],
        *,
        compile_seconds: float | None = None,
    ) -> None:
        """Report `metrics`, the state of things after `step` steps."""
        now = time.perf_counter()
        self._compiling += compile_seconds or 0.0
        rate = _ratio(step - self._reported, now - self._mark - (compile_seconds or 0.0))
        overall = _ratio(step - self._start, now - self._begin - self._compiling)
        left = _ratio(self._steps - step, overall)
        parts = [
            f"{phase} {step:>{len(str(self._steps))}}/{self._steps} {step / self._steps:4.0%}",
            f"{rate:#.3g} steps/s" if rate < 1000 else f"{rate:,.0f} steps/s",
            f"ETA {_duration(left)}",
            _line(metrics),
            self._scores,
            "" if compile_seconds is None else f"compiled in {compile_seconds:.1f} s",
        ]
        self._record(step, phase, {**metrics, "rate": rate}, prefix="train/")
        self._reported = step
        self.info(" | ".join(filter(None, parts)))

    def scores(self, step: int, phase: str, scores: Mapping[str, float]) -> None:
        """Report scores: on a line of their own; the following ones repeat the first score.

        A score named `x` may come with its floor, real images against real ones, as `x_floor`.
        """
        name, value = next(iter(scores.items()))
        floor = scores.get(f"{name}_floor")
        floor = "" if floor is None else f" (floor {floor:.4g})"
        self._scores = f"{name} {value:.4g}{floor} @{step}"
        self._record(step, phase, {f"score/{k}": v for k, v in scores.items()})
        self.info(f"{phase} {step} scores: {_line(scores)}")

    def images(self, step: int, name: str, picture: np.ndarray) -> None:
        """Write a uint8 [h, w, 1, 3 or 4] picture as samples/NAME_STEP.png and to TensorBoard."""
        if self._writes:
            pictures.save(picture, self._workdir / "samples" / f"{name}_{step:08d}.png")
            self._events.add_image(name, picture, step, dataformats="HWC")
        self._mark = time.perf_counter()

    def info(self, message: str) -> None:
        """Print a message."""
        if self._writes:
            print(message, flush=True)
        self._mark = time.perf_counter()

    def _record(self, step: int, phase: str, values: Mapping[str, float], prefix="") -> None:
        if self._writes:
            numbers = {k: float(v) if np.isfinite(v) else None for k, v in values.items()}
            line = json.dumps({"step": step, "phase": phase, **numbers}, allow_nan=False)
            self._file.write(line + "\n")
            self._file.flush()
            for name, value in numbers.items():
                if value is not None:  # tensorboardX would print a warning for each
                    self._events.add_scalar(prefix + name, value, step)
            self._events.flush()


def _drop_after(path: Path, step: int) -> None:
    """Keep the lines up to `step` alone, none for 0; drop one that a kill left unfinished."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() and step else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except json.JSONDecodeError:
            continue
    partial = path.with_suffix(".tmp")
    partial.write_text("".join(kept), encoding="utf-8")
    os.replace(partial, path)


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else math.inf


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, s = divmod(round(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h}h{m:02d}m" if h else f"{m}m{s:02d}s" if m else f"{s}s"


def _line(values: Mapping[str, float]) -> str:
    """Four digits of each value, in columns that stay where they are from line to line."""
    return " ".join(f"{name} {value:<#9.4g}" for name, value in values.items()).rstrip()


def parameter_overview(params: Any) -> str:
    """A table of all parameters with their shapes and sizes, and the total of each network."""
    from clu import parameter_overview as clu

    leaves, totals = trees.named(params), {}
    for name, leaf in leaves.items():
        network = name.partition("/")[0]
        totals[network] = totals.get(network, 0) + leaf.size
    table = clu.get_parameter_overview(leaves, include_stats=False)
    return "\n".join([table, "  ".join(f"{name}: {n:,}" for name, n in totals.items())])
