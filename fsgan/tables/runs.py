"""The runs of a table: each is one command line, and knows the others that it needs."""

from __future__ import annotations

import hashlib
import importlib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from fsgan import build, loop, scoring, train
from fsgan.checkpoint import Checkpoints

CLEAR_EVERY = 16  # training runs, after which compiled programs are forgotten


class Run(NamedTuple):
    """A training run or an evaluation: what its command line says, and nothing else."""

    config: str  # FILE:WORDS, of configs/FILE.py
    workdir: Path
    needs: tuple[Run, ...] = ()  # whose results it reads

    @property
    def command(self) -> str:
        """The line that makes it by hand."""
        file, colon, words = self.config.partition(":")
        config = f"--config=configs/{file}.py{colon}{words}"
        return shlex.join(["python", "main.py", config, f"--workdir={self.workdir}"])

    def commands(self) -> Iterator[str]:
        """The lines that make all it needs, in their order, and then its own."""
        for run in self.needs:
            yield from run.commands()
        yield self.command

    def load(self) -> ConfigDict:
        """Its config; ValueError for unknown words or fields."""
        file, _, words = self.config.partition(":")
        return importlib.import_module(f"configs.{file}").get_config(words)


class Failed(ValueError):
    """A run cannot be finished, or one that it needs."""


class Stopped(Exception):
    """A signal asked to leave."""


class Runner:
    """Finishes runs: does them, goes on with them, or finds that they are done."""

    def __init__(self, stopped: Callable[[], bool], known: Mapping[str, Any] | None = None):
        """`stopped()` tells whether to leave before the next run; `known` are evaluations that need
        not be made, by their command lines.
        """
        self._stopped = stopped
        self._known = known or {}
        self._results: dict[Path, Any] = {}
        self._trained = 0
        self.failed: dict[Path, str] = {}  # why

    def __call__(self, run: Run) -> dict[str, Any] | None:
        """What an evaluation holds, None of a training run.

        Raises Failed, in one line, where it or what it needs has failed, and Stopped after a
        signal: what was trained until then is saved.
        """
        if run.command in self._known:
            return self._known[run.command]
        if run.workdir in self.failed:
            raise Failed(self.failed[run.workdir])
        if run.workdir not in self._results:
            try:
                for other in run.needs:
                    self(other)
                self._results[run.workdir] = self._finish(run)
            except (ValueError, OSError, loop.NonFiniteError) as error:
                why = str(error) if isinstance(error, Failed) else f"{run.workdir}: {error}"
                self.failed[run.workdir] = " ".join(why.split())
                print(f"failed: {self.failed[run.workdir]}", flush=True)
                raise Failed(self.failed[run.workdir]) from error
        return self._results[run.workdir]

    def _finish(self, run: Run) -> dict[str, Any] | None:
        config = run.load()
        evaluation = config.phase == "evaluate"
        if not (evaluated if evaluation else trained)(run.workdir, config):
            if self._stopped():
                raise Stopped
            print(f"\n{run.command}", flush=True)
            (evaluate if evaluation else self._train)(run.workdir, config)
        return load(run.workdir) if evaluation else None

    def _train(self, workdir: Path, config: ConfigDict) -> None:
        # Compiled programs stay in memory. Those of some hundred runs have more memory mappings
        # than Linux gives a process, and it dies.
        if self._trained % CLEAR_EVERY == 0:
            jax.clear_caches()
        self._trained += 1
        finish_training(workdir, config)


def trained(workdir: Path, config: ConfigDict) -> bool:
    """Whether a run of this config has reached its last step there."""
    file = workdir / "config.json"
    if not file.is_file():
        return False
    if config.init_from:
        config = build.inherit(config)
    if json.loads(file.read_text()) != settings(config):
        return False
    return Checkpoints(workdir / "checkpoints", keep=None).latest() == config.steps


def finish_training(workdir: Path, config: ConfigDict) -> None:
    job = train.prepare(config, workdir)
    if not loop.run(job, workdir, **train.intervals(config)):
        raise Stopped


def evaluated(workdir: Path, config: ConfigDict) -> bool:
    """Whether an evaluation with these settings is there."""
    file = workdir / "settings.json"
    return (
        file.is_file()
        and (workdir / "evaluation.json").is_file()
        and json.loads(file.read_text()) == settings(config)
    )


def evaluate(workdir: Path, config: ConfigDict) -> None:
    file = workdir / "settings.json"
    file.unlink(missing_ok=True)  # they must never stand beside other settings' scores
    scoring.run(config, workdir)
    file.write_text(json.dumps(settings(config), indent=1) + "\n")


def load(workdir: Path) -> dict[str, Any]:
    """An evaluation, with 12 hexadecimal digits for the thousands of images that it looked at."""
    found = json.loads((workdir / "evaluation.json").read_text())
    images = json.dumps(found["protocol"].get("images"), sort_keys=True)
    found["protocol"]["images"] = hashlib.sha256(images.encode()).hexdigest()[:12]
    return found


def settings(config: ConfigDict) -> dict[str, Any]:
    """A config as it reads when it comes back from a file."""
    return json.loads(config.to_json())
