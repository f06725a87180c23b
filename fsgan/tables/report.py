"""What a table leaves: results.json with everything, table.md to read, curves over the options."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fsgan import panel, pictures
from fsgan.tables.cells import Cell, Evaluation, Filled, mean_score, scores
from fsgan.tables.columns import columns
from fsgan.tables.estimates import Estimate

REAL = "real images"  # the row of floors


def write(
    workdir: Path, config: ConfigDict, cells: Sequence[Cell], filled: Sequence[Filled]
) -> None:
    """Write all that is known when the rows in `filled` of a table's `cells` are done."""
    parts = {
        part: {
            row: [each for each in filled if (each.cell.part, each.cell.row) == (part, row)]
            for row in dict.fromkeys(c.row for c in cells if c.part == part)
        }
        for part in dict.fromkeys(cell.part for cell in cells)
    }
    made = {
        part: {
            row: columns(found, rows.get(config.baseline, ()), config)
            for row, found in rows.items()
            if found and not any(each.failed for each in found)
        }
        for part, rows in parts.items()
    }
    results = {
        "table": config.table,
        "config": config.to_dict(),
        "rows": {
            part: {
                row: {n: (e.value, e.half) for n, e in found.items()} for row, found in x.items()
            }
            for part, x in made.items()
        },
        "cells": [about(each, config.choose) for each in filled],
    }
    workdir.mkdir(parents=True, exist_ok=True)
    text = [f"# {config.title}", "", config.explain]
    for part, rows in parts.items():
        text += ["", f"## {part}", "", *markdown(rows, made[part], config)]
        panels = curves(rows, config.curves) if config.over else {}
        if panels:
            name = re.sub(r"\W+", "_", part).strip("_")
            pictures.plot(panels, workdir / f"{name}.png")
            text += ["", f"![Over {config.over}, on the validation target]({name}.png)"]
    for name, content in (
        ("results.json", json.dumps(results, indent=1)),
        ("table.md", "\n".join(text)),
    ):
        partial = workdir / f"{name}.tmp"
        partial.write_text(content + "\n", encoding="utf-8")
        partial.replace(workdir / name)


def about(each: Filled, score: str) -> dict[str, Any]:
    """A cell as results.json has it."""
    return {
        "part": each.cell.part,
        "row": each.cell.row,
        "target": each.cell.target,
        "chosen": each.chosen,
        "validation": {label: mean_score(found, score) for label, found in each.valid.items()},
        "failed": each.failed,
        "runs": [
            {
                "commands": list(dict.fromkeys(run.commands())),
                "evaluation": str(run.workdir / "evaluation.json"),
                "step": evaluation["step"],
                "seed": evaluation["config"]["seed"],
                "protocol": protocol(evaluation),
                "scores": {
                    name: {what: x[what] for what in ("value", "error", "floor")}
                    for name, x in scores(evaluation).items()
                },
            }
            for run, evaluation in each.test.items()
        ],
    }


def protocol(evaluation: Evaluation) -> str:
    """12 hexadecimal digits of all that two evaluations must share to be compared."""
    hashes = {name: found["hash"] for name, found in evaluation["features"].items()}
    text = json.dumps([evaluation["protocol"], hashes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def markdown(
    rows: dict[str, list[Filled]], made: dict[str, dict[str, Estimate]], config: ConfigDict
) -> list[str]:
    """The lines of one part: its protocol, and a table of rows and columns."""
    names = [*config.columns, *(["gap closed"] if config.baseline in rows else [])]
    heads = [f"{n} ({panel.SCORES[n].best})" if n in panel.SCORES else n for n in names]
    lines = [f"| | chosen | {' | '.join(heads)} |", "|---" * (len(names) + 2) + "|"]
    for row, found in rows.items():
        chosen = ", ".join(dict.fromkeys(each.chosen for each in found if each.chosen)) or "-"
        failed = next((each.failed for each in found if each.failed), None)
        if failed:
            lines.append(f"| {row} | failed: {failed.replace('|', '/')} |" + " |" * len(names))
        elif not found:
            lines.append(f"| {row} | not done yet |" + " |" * len(names))
        else:
            cells = (number(made[row].get(name)) for name in names)
            lines.append(f"| {row} | {chosen} | {' | '.join(cells)} |")
    if not made:
        return lines
    first = next(iter(made))
    cells = (number(made[first].get(f"{name} floor")) for name in names)
    lines.append(f"| {REAL} | | {' | '.join(cells)} |")
    return [measured(rows[first]), "", *lines]


def measured(row: Sequence[Filled]) -> str:
    """How the scores of a row were measured, and what their intervals are of."""
    found = [evaluation for each in row for evaluation in each.test.values()]
    spaces = [next(iter(evaluation["features"].items())) for evaluation in found]
    shown = [{**x["protocol"], **space} for x, (_, space) in zip(found, spaces, strict=True)]

    def all_of(name: str) -> str:
        return ", ".join(str(value) for value in dict.fromkeys(each[name] for each in shown))

    units = {"class": "classes", "group": "groups of images"}[shown[0]["unit"]]
    seeds = len(row[0].test)
    return (
        f"Split {all_of('split')}, {all_of('shots')} shots; targets: {len(row)}, seeds: {seeds}; "
        f"{all_of('units')} {units}, n={all_of('n')} real and m={all_of('m')} generated images of "
        f"each; features {spaces[0][0]} ({all_of('hash')}). ± is half of the 95 % interval, from "
        f"{units} {'and seeds' if seeds > 1 else 'alone'}; the targets count as given. Good is "
        f"what is lower, higher, or near that of real images (floor)."
    )


def number(x: Estimate | None) -> str:
    return "-" if x is None else f"{x.value:.3g} ± {x.half:.2g}"


def curves(rows: dict[str, list[Filled]], names: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Panels for `pictures.plot`: scores over the options, on validation data.

    Options are numbers here, such as steps; at 0 stands the score without adaptation.
    """
    panels = {}
    for name in names:
        floors, series = [], {}
        for row, found in rows.items():
            at: dict[int, dict] = {}  # targets may share their validation runs
            for each in found:
                for label, evaluations in each.valid.items():
                    at.setdefault(int(label), {}).update(evaluations)
            if at and all(name in scores(x) for found in at.values() for x in found.values()):
                first = next(iter(at.values()))
                points = {0: mean_score(first, name, "ceiling")}
                points |= {step: mean_score(found, name) for step, found in at.items()}
                series[row] = np.array(sorted(points.items()))
                floors += [scores(x)[name]["floor"] for x in first.values()]
        if series:
            known = [x for x in floors if x is not None]
            real = f" (real images: {np.mean(known):.3g})" if known else ""
            panels[name + real] = series
    return panels
