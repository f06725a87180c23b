"""Cells of a table: which option is chosen on validation data, and its scores on test data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fsgan.tables.runs import Failed, Run

Evaluation = dict[str, Any]  # what evaluation.json holds


class Option(NamedTuple):
    """One way to fill a cell: evaluations for each seed, on validation data and on test data."""

    valid: tuple[Run, ...]  # not looked at where there is no other option
    test: tuple[Run, ...]


class Cell(NamedTuple):
    """One row's scores on one target."""

    part: str  # the heading that it stands under
    row: str
    target: str  # a row's scores are the mean over its targets
    options: dict[str, Option]  # the one with the lowest validation score is taken

    def runs(self) -> Iterator[Run]:
        """The evaluations of all options."""
        for option in self.options.values():
            yield from (*option.valid, *option.test)


class Filled(NamedTuple):
    """What became of a cell."""

    cell: Cell
    chosen: str | None  # the option
    valid: dict[str, dict[Run, Evaluation]]  # of each option that could be made
    test: dict[Run, Evaluation]  # of the chosen one, for each seed
    failed: str | None  # why


def fill(cell: Cell, do: Callable[[Run], Evaluation], score: str) -> Filled:
    """Choose by the mean validation `score` over seeds, then evaluate that option on test data.

    No test run of any other option is begun. An option with a failed run is not chosen.
    """
    valid: dict[str, dict[Run, Evaluation]] = {}
    why = "no option"
    try:
        chosen = next(iter(cell.options))
        if len(cell.options) > 1:
            for label, option in cell.options.items():
                try:
                    valid[label] = {run: do(run) for run in option.valid}
                except Failed as error:
                    why = str(error)
            if not valid:
                raise Failed(why)
            means = {label: mean_score(found, score) for label, found in valid.items()}
            chosen = min(means, key=means.__getitem__)
        test = {run: do(run) for run in cell.options[chosen].test}
    except Failed as error:
        return Filled(cell, None, valid, {}, str(error))
    return Filled(cell, chosen, valid, test, None)


def mean_score(found: dict[Run, Evaluation], name: str, what: str = "value") -> float:
    """The mean of a score over evaluations, in their first feature space."""
    return float(np.mean([scores(each)[name][what] for each in found.values()]))


def scores(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """All scores in the first feature space."""
    return first_space(evaluation)["scores"]


def first_space(evaluation: Evaluation) -> dict[str, Any]:
    """What was measured in the first feature space."""
    return next(iter(evaluation["features"].values()))
