"""Checkpoints: any pytree of arrays, bit for bit. The only file that imports orbax.

    checkpoints = Checkpoints(workdir / "checkpoints", keep=3)
    state = checkpoints.restore(example) if checkpoints.latest() is not None else init()
    checkpoints.save(step, state, score=0.3)    # goes on in the background
    checkpoints.wait()                          # before leaving

A checkpoint is written into a temporary directory and renamed when it is complete; old ones are
deleted after that. So a process may be killed at any moment: what `latest` names is complete.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from fsgan import trees

# Orbax reports dozens of lines for every save, which absl's `app.run` shows on the console.
logging.getLogger("absl").addFilter(
    lambda record: "orbax" not in record.pathname or record.levelno >= logging.ERROR
)


class Checkpoints:
    """The checkpoints of one run: the last `keep` and the one with the best (lowest) score.

    Belongs to one run at a time: unfinished saves of a killed one are deleted. With keep=None it
    only reads, and changes nothing. All processes of a multi-process run call the same methods in
    the same order.
    """

    def __init__(self, directory: str | Path, *, keep: int | None = 3):
        if keep is not None and keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        policies = ocp.checkpoint_managers
        best = policies.BestN(
            get_metric_fn=_rank, n=1, reverse=True, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            create=keep is not None,
            cleanup_tmp_directories=keep is not None,
            best_fn=_rank,  # orbax writes metrics only where it has this
            preservation_policy=keep
            and policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
        )
        self._manager = ocp.CheckpointManager(
            Path(directory).absolute(),
            options=options,
            item_handlers={"state": ocp.PyTreeCheckpointHandler()},
        )

    def save(self, step: int, state: Any, *, score: float | None = None, **extra: Any) -> None:
        """Save the arrays of `state` as `step`, which must be after the latest one.

        Returns as soon as the arrays are copied; the state may then be donated. Arrays without any
        element cannot be saved (ValueError of orbax). `extra` is any small JSON data, complete
        whenever the checkpoint is. A score that is not finite counts as none. ValueError for a step
        that is not new; what a save in the background ran into (a full disk) is raised by the next
        call or `wait`.
        """
        if score is not None and not math.isfinite(score):
            score = None
        saved = self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.PyTreeSave(state)),
            metrics={"score": score, **extra},
        )
        if not saved:
            raise ValueError(f"step {step} is not after the latest checkpoint, {self.latest()}")

    def wait(self) -> None:
        """Return when all is on disk."""
        self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """The steps that there are checkpoints of, oldest first."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The last step saved, None without any."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The step with the lowest score, the later one of equals; None where none has a score."""
        scores = {step: self.extra(step).get("score") for step in self.steps()}
        scored = [step for step, score in scores.items() if score is not None]
        return min(scored, key=lambda step: (scores[step], -step), default=None)

    def extra(self, step: int) -> dict[str, Any]:
        """The score and the extra data saved with `step`."""
        self.wait()  # orbax knows of a step before its files are there
        return self._manager.metrics(step) or {}

    def restore(self, example: Any, step: int | None = None) -> Any:
        """The state of `step` (the latest by default), in the structure of `example`.

        `example` holds arrays or `jax.ShapeDtypeStruct`s; where these have a sharding, the result
        has it, else it is on the first device. FileNotFoundError where there is no checkpoint;
        ValueError, naming every leaf, where the checkpoint holds another tree.
        """
        step = self._find(step)
        _check(self._saved(step), _stored(example), self._where(step))
        return self._read(step, _abstract(example))

    def _find(self, step: int | None) -> int:
        self.wait()
        steps = self.steps()
        if not steps:
            raise FileNotFoundError(
                f"no checkpoint in {self._manager.directory}: let the run save one first, "
                "or give the directory of one that did"
            )
        if step is not None and step not in steps:
            raise FileNotFoundError(
                f"no checkpoint of step {step} in {self._manager.directory}: there are {steps}"
            )
        return steps[-1] if step is None else step

    def _where(self, step: int) -> str:
        return f"{self._manager.directory}, step {step}"

    def _saved(self, step: int) -> Any:
        """The tree of shapes and dtypes on disk."""
        return self._manager.item_metadata(step)["state"].tree

    def _read(self, step: int, abstract: Any) -> Any:
        args = ocp.args.PyTreeRestore(
            abstract,
            restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
            partial_restore=True,  # `abstract` may be a part of what was saved
        )
        return self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]


def restore_params(directory: str | Path, example: Any, *, best: bool = False) -> Any:
    """The trained parameters in another run's checkpoints, in the structure of `example`.

    Reads the fields `params` and `ema` of the state alone, whatever its optimizer. Leaves that the
    run kept an average of, under the same name in `ema`, are the average. Takes the latest
    checkpoint or, with `best`, the one with the lowest score if any has one. Changes nothing
    there. What a meta-learner learned of its inner loop, under `inner`, is left out where `example`
    has none. FileNotFoundError where there is no checkpoint; ValueError, naming every leaf, where
    the parameters are not those of `example`.
    """
    source = Checkpoints(directory, keep=None)
    step = source._find(source.best() if best else None)
    saved = source._saved(step)
    fields = {name: saved[name] for name in ("params", "ema") if name in saved}
    found = source._read(step, _abstract(fields))
    leaves = {**trees.named(found.get("params", {})), **trees.named(found.get("ema", {}))}
    wanted = trees.named(example)
    leaves = {k: v for k, v in leaves.items() if k in wanted or "/inner/" not in k}
    _check(leaves, example, source._where(step))
    placed = jax.tree.map(lambda leaf: leaf.sharding, _abstract(example))
    ordered = [leaves[name] for name in trees.names(example)]
    return jax.device_put(jax.tree.unflatten(jax.tree.structure(example), ordered), placed)


def _rank(metrics: dict[str, Any]) -> float:
    score = metrics.get("score")
    return math.inf if score is None else score


def _abstract(tree: Any) -> Any:
    """Shapes, dtypes and shardings: those of the leaf or, where it has none, the first device."""
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def leaf(x):
        sharding = getattr(x, "sharding", None)
        known = isinstance(sharding, jax.sharding.Sharding)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding if known else first)

    return jax.tree.map(leaf, tree)


def _stored(tree: Any) -> Any:
    """The shapes and dtypes that `tree` has on disk: random keys are stored as their data."""

    def leaf(x):
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.eval_shape(jax.random.key_data, x) if is_key else x

    return jax.tree.map(leaf, tree)


def _check(saved: Any, expected: Any, where: str) -> None:
    lines = trees.mismatches(saved, expected)
    if lines:
        raise ValueError(f"{where} does not fit, {len(lines)} leaves differ:\n" + "\n".join(lines))
