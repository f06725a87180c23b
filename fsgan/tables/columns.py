"""The columns of a table: a row's scores over targets and seeds, their floors, the gap closed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from ml_collections import ConfigDict

from fsgan import compare
from fsgan.tables.cells import Filled, first_space, scores
from fsgan.tables.estimates import Estimate, Sample, estimate, gap_closed


def columns(
    found: Sequence[Filled], baseline: Sequence[Filled], config: ConfigDict
) -> dict[str, Estimate]:
    """A row's scores, their floors as "NAME floor", and the gap closed from the baseline.

    ValueError where the baseline was measured by another protocol.
    """
    made = {}
    for name in config.columns:
        made[name] = combine(lambda x: x, found, samples(found, name))
        made[f"{name} floor"] = combine(lambda x: x, found, samples(found, name, "floor"))
    other = found[0].cell.row != config.baseline
    if other and len(baseline) == len(found) and all(each.test for each in baseline):
        check_protocols(found, baseline)
        parts = (samples(x, config.choose) for x in (baseline, found))
        floor = samples(baseline, config.choose, "floor")
        made["gap closed"] = combine(gap_closed, found, *parts, floor)
    return {name: each for name, each in made.items() if each is not None}


def check_protocols(found: Sequence[Filled], baseline: Sequence[Filled]) -> None:
    """ValueError, naming what differs, where two rows were measured otherwise."""
    for ours, theirs in zip(found, baseline, strict=True):
        for pair in zip(ours.test.items(), theirs.test.items(), strict=True):
            names, results = zip(*((str(run.workdir), x) for run, x in pair), strict=True)
            compare.check_protocols(names, results)


def samples(found: Sequence[Filled], name: str, kind: str = "value") -> list[np.ndarray] | None:
    """For each target the values [seeds, 1 + groups] of a score, or its floors (`kind` is "floor").

    None where it was not measured.
    """
    parts = {"value": "parts", "floor": "floor_parts"}[kind]
    made = []
    for each in found:
        measured = [scores(evaluation).get(name, {}) for evaluation in each.test.values()]
        if any(x.get(kind) is None for x in measured):
            return None
        made.append(np.array([[x[kind], *x[parts]] for x in measured]))
    return made


def combine(
    f: Callable[..., float], found: Sequence[Filled], *each: list[np.ndarray] | None
) -> Estimate | None:
    """`estimate` of f for scores as `samples` gives them; None where one is missing."""
    if any(x is None for x in each):
        return None
    units = [first_space(next(iter(x.test.values())))["units"] for x in found]
    by_target = zip(zip(*each, strict=True), units, strict=True)
    made = estimate(f, [Sample(np.stack(x), classes) for x, classes in by_target])
    return made if math.isfinite(made.value) and math.isfinite(made.half) else None
