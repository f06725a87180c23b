"""What a table leaves: results.json with everything, table.md to read, curves over the options."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Sequence
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
        "evaluations": evaluations(filled, {config.choose, *config.columns, *config.curves}),
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
        ("results.json", one_line_each(results)),
        ("table.md", "\n".join(text)),
    ):
        partial = workdir / f"{name}.tmp"
        partial.write_text(content + "\n", encoding="utf-8")
        partial.replace(workdir / name)


def one_line_each(results: dict[str, Any]) -> str:
    """JSON with one line for each evaluation, which are many, and the rest spread out to read."""
    lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in results["evaluations"].items()]
    rest = json.dumps({n: x for n, x in results.items() if n != "evaluations"}, indent=1)
    return rest.removesuffix("\n}") + ',\n "evaluations": {\n' + ",\n".join(lines) + "\n }\n}"


def about(each: Filled, score: str) -> dict[str, Any]:
    """A cell as results.json has it: of each seed's test run the command lines, the evaluation's
    last.
    """
    return {
        "part": each.cell.part,
        "row": each.cell.row,
        "target": each.cell.target,
        "chosen": each.chosen,
        "validation": {label: mean_score(found, score) for label, found in each.valid.items()},
        "failed": each.failed,
        "runs": [list(dict.fromkeys(run.commands())) for run in each.test],
    }


CHOOSING = ("value", "floor", "ceiling")  # what choices and curves are made of
READING = ("value", "error", "floor")


def evaluations(filled: Sequence[Filled], names: Container[str]) -> dict[str, Evaluation]:
    """What a table has looked at, by its command line.

    From these a table is made again without any run, see `known`: test evaluations have the scores
    `names` whole, and the others to be read; validation evaluations what is chosen by.
    """
    found = {}
    for each in filled:
        for options in each.valid.values():
            for run, evaluation in options.items():
                found[run.command] = shortened(
                    evaluation, lambda name, score: name in names and some(score, CHOOSING)
                )
        for run, evaluation in each.test.items():
            found[run.command] = shortened(
                evaluation, lambda name, score: score if name in names else some(score, READING)
            )
    return found


def shortened(evaluation: Evaluation, keep: Callable[[str, dict], Any]) -> Evaluation:
    """An evaluation in its first feature space, with what `keep` leaves of each score, if any."""
    (space, measured), *_ = evaluation["features"].items()
    kept = {name: keep(name, score) for name, score in measured["scores"].items()}
    kept = {name: score for name, score in kept.items() if score}
    return {
        "step": evaluation["step"],
        "config": {"seed": evaluation["config"]["seed"]},
        "versions": evaluation.get("versions"),
        "protocol": evaluation["protocol"],
        "features": {space: rounded({**measured, "scores": kept})},
    }


def some(score: dict[str, Any], what: Container[str]) -> dict[str, Any]:
    return {name: x for name, x in score.items() if name in what}


def rounded(tree: Any) -> Any:
    """A tree of lists and dicts with 6 digits of each number."""
    if isinstance(tree, dict):
        return {key: rounded(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [rounded(value) for value in tree]
    return float(f"{tree:.6g}") if isinstance(tree, float) else tree


def known(files: Sequence[str], cells: Sequence[Cell]) -> dict[str, Evaluation]:
    """The evaluations in results.json files: of parts of a table that were made elsewhere.

    ValueError or OSError, naming the file, for what is no such file, and ValueError where there are
    files and none has an evaluation of these cells.
    """
    found = {}
    for file in files:
        try:
            found |= json.loads(Path(file).read_text())["evaluations"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"known={file!r} has no evaluations: give the results.json of a table"
            ) from error
    if files and found.keys().isdisjoint(run.command for cell in cells for run in cell.runs()):
        raise ValueError(
            f"known={tuple(files)} has no evaluation of this table: they are found by their "
            "commands, which hold the --workdir and all that was given otherwise there"
        )
    return found


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
    return [measured([rows[name] for name in made]), "", *lines]


def measured(rows: Sequence[Sequence[Filled]]) -> str:
    """How the scores of rows were measured, and what their intervals are of."""
    found = [evaluation for row in rows for each in row for evaluation in each.test.values()]
    spaces = [next(iter(evaluation["features"].items())) for evaluation in found]
    shown = [{**x["protocol"], **space} for x, (_, space) in zip(found, spaces, strict=True)]

    def all_of(name: str) -> str:
        return ", ".join(str(value) for value in dict.fromkeys(each[name] for each in shown))

    units = {"class": "classes", "group": "groups of images"}[shown[0]["unit"]]
    targets, seeds = len(rows[0]), len(rows[0][0].test)
    return (
        f"Split {all_of('split')}, {all_of('shots')} shots; targets: {targets}, seeds: {seeds}; "
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
