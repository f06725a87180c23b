"""Evaluations side by side: python -m fsgan.compare RUN RUN ...

Each RUN is an evaluation.json, the folder that holds it, or the workdir of a run that was evaluated
once. All are compared with the first one. Their differences are paired, class by class, because
all have the same images: their intervals are narrower than those of the scores themselves.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsgan import panel

# Student's t, 97.5 %, for 1 to 9 degrees of freedom: the jackknife has `panel.GROUPS` at most.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
LONG = 30  # characters of a value of the protocol that is printed


def find(path: Path) -> Path:
    """The evaluation.json that `path` stands for; FileNotFoundError or ValueError in one line."""
    found = [path] if path.is_file() else sorted(path.glob("evaluation.json"))
    found = found or sorted(path.glob("*/evaluation.json"))
    if not found:
        raise FileNotFoundError(
            f"{path} holds no evaluation.json: python main.py --config=configs/evaluate.py "
            f"--config.run={path}"
        )
    if len(found) > 1:
        one = " or ".join(map(str, found))
        raise ValueError(f"{path} was evaluated more than once: give {one}")
    return found[0]


def load(path: Path) -> dict[str, Any]:
    """What evaluation.json holds; ValueError if it is another file."""
    file = find(path)
    try:
        result = json.loads(file.read_text())
        return {name: result[name] for name in ("run", "protocol", "features")}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no evaluation.json of fsgan: evaluate the run anew") from error


def check_protocols(names: Sequence[str], results: Sequence[dict[str, Any]]) -> None:
    """ValueError, naming all that differs from the first, unless all have one protocol."""
    spaces = common_features(results)
    first = _protocol(results[0], spaces)
    for name, result in zip(names[1:], results[1:], strict=True):
        other = _protocol(result, spaces)
        differ = [
            f"{field} ({_short(first.get(field))} and {_short(other.get(field))})"
            for field in sorted(first.keys() | other.keys())
            if first.get(field) != other.get(field)
        ]
        if differ:
            raise ValueError(
                f"{names[0]} and {name} cannot be compared, they differ in {', '.join(differ)}: "
                "evaluate them with the same settings"
            )


def common_features(results: Sequence[dict[str, Any]]) -> list[str]:
    """The feature spaces that all results have; ValueError if there is none."""
    spaces = [result["features"] for result in results]
    common = [name for name in spaces[0] if all(name in other for other in spaces)]
    if not common:
        found = " and ".join(", ".join(other) for other in spaces)
        raise ValueError(f"there are no common features, only {found}: evaluate anew")
    return common


def _protocol(result: dict[str, Any], spaces: Sequence[str]) -> dict[str, Any]:
    hashes = {f"features {name}": result["features"][name]["hash"] for name in spaces}
    return {**result["protocol"], **hashes}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONG else "other ones"


def difference(a: dict[str, Any], b: dict[str, Any], classes: int) -> tuple[float, float]:
    """b - a and half of its 95 % confidence interval, for two scores of the same classes."""
    parts = np.subtract(b["parts"], a["parts"])
    return b["value"] - a["value"], _half(parts, classes)


def gap_closed(a: dict[str, Any], b: dict[str, Any], classes: int) -> tuple[float, float] | None:
    """(a - b) / (a - floor): the share of the way from a to the floor, and half of its interval.

    1 where b reaches the floor, below 0 where it is worse than a; None without a floor, or where
    a is at the floor.
    """
    if a["floor"] is None or a["value"] == a["floor"]:
        return None
    values = (np.array([x["value"], *x["parts"]]) for x in (a, b))
    floor = np.array([a["floor"], *a["floor_parts"]])
    start, end = values
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = (start - end) / (start - floor)
    return (float(gap[0]), _half(gap[1:], classes)) if np.isfinite(gap).all() else None


def quantile(degrees: float) -> float:
    """Student's t, 97.5 %, for any degrees of freedom from 1 on.

    Between those of `T`, and beyond them up to the normal distribution, it goes with their inverse:
    at most 0.5 % too large from 3 degrees on, 19 % below.
    """
    inverse = 1 / np.arange(len(T), 0, -1)
    return float(np.interp(1 / degrees, [0, *inverse], [1.960, *T[::-1]]))


def _half(parts: np.ndarray, classes: int) -> float:
    return quantile(len(parts) - 1) * panel.jackknife(parts, classes)


def table(names: Sequence[str], results: Sequence[dict[str, Any]]) -> str:
    """All scores of all runs as text; a star marks intervals without zero."""
    named = zip(names, results, strict=True)
    lines = [f"[{i}] {name}: {result['run']}" for i, (name, result) in enumerate(named)]
    lines += [
        f"features {space}: a lower KID of [{i}] is no win, not near the floor: {', '.join(short)}"
        for space in common_features(results)
        for i, result in enumerate(results)
        if (short := result["features"][space].get("shortcomings"))  # older ones do not say
    ]
    for space in common_features(results):
        found = results[0]["features"][space]
        units = found["units"]
        for i, other in enumerate(results[1:], 1):
            lines += [
                "",
                f"features {space} ({found['hash']}), differences with 95 % intervals",
                f"{'':<24}{'[0]':>10}{f'[{i}]':>10}{'floor':>10}{f'[{i}] - [0]':>12}{'':<14}"
                f"gap closed",
            ]
            for score, a in found["scores"].items():
                b = other["features"][space]["scores"][score]
                delta, half = difference(a, b, units)
                gap = gap_closed(a, b, units)
                floor = math.nan if a["floor"] is None else a["floor"]
                star = "*" if abs(delta) > half else " "
                lines.append(
                    f"{score:<24}{a['value']:>10.4g}{b['value']:>10.4g}{floor:>10.4g}"
                    f"{delta:>12.4g} ± {half:<8.2g}{star}  "
                    + ("-" if gap is None else f"{gap[0]:.2f} ± {gap[1]:.2g}")
                )
    return "\n".join(lines)


def main(paths: Sequence[str]) -> None:
    if len(paths) < 2:
        raise ValueError("give two runs or more: python -m fsgan.compare RUN RUN ...")
    results = [load(Path(path)) for path in paths]
    check_protocols(paths, results)
    print(table(paths, results))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
