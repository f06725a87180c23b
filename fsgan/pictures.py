"""Pictures of a run: grids of images, and curves of all that it reported.

Pillow and matplotlib are imported where they are used.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def grid(
    images: np.ndarray,
    *,
    row_labels: Sequence[str] = (),
    col_labels: Sequence[str] = (),
    scale: int | None = None,
    gap: int = 2,
) -> np.ndarray:
    """Arrange uint8 images [rows, cols, h, w, c] in one picture, uint8 [height, width, c].

    c is 1, 3 or 4. Pixels become squares of `scale`, by default so that 28 x 28 is seen well; white
    gaps of `gap` pixels lie between and around the images, labels left of the rows and above the
    columns.
    """
    from PIL import Image, ImageDraw, ImageFont

    images = np.asarray(images)
    if images.ndim != 5 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3, 4):
        raise ValueError(
            "images must be uint8 [rows, cols, h, w, 1, 3 or 4], "
            f"got {images.dtype}{list(images.shape)}"
        )
    rows, cols, h, w, c = images.shape
    for name, labels, n in (("row", row_labels, rows), ("col", col_labels, cols)):
        if len(labels) not in (0, n):
            raise ValueError(f"{len(labels)} {name}_labels for {n} {name}s")
    scale = scale or max(1, 64 // max(h, w))
    h, w = h * scale, w * scale
    images = images.repeat(scale, axis=2).repeat(scale, axis=3)

    font = ImageFont.load_default(size=12)
    line = sum(font.getmetrics())

    def width(labels: Sequence[str]) -> int:
        return max((math.ceil(font.getlength(text)) for text in labels), default=0)

    left = width(row_labels) + 2 * gap if row_labels else 0
    upright = width(col_labels) > w  # labels wider than their column are turned
    top = (width(col_labels) if upright else line) + 2 * gap if col_labels else 0
    picture = np.full((top + rows * (h + gap) + gap, left + cols * (w + gap) + gap, c), 255, "u1")
    for row in range(rows):
        for col in range(cols):
            y, x = top + gap + row * (h + gap), left + gap + col * (w + gap)
            picture[y : y + h, x : x + w] = images[row, col]

    def write(text: str, y: float, x: float, turned: bool = False) -> None:
        """Write `text` with its middle at x, and at y its middle or, where turned, its end."""
        length = max(1, math.ceil(font.getlength(text)))
        label = Image.new("L", (length, line), 255)
        ImageDraw.Draw(label).text((0, 0), text, fill=0, font=font)
        ink = np.asarray(label.rotate(90, expand=True) if turned else label)
        y = round(y - (len(ink) if turned else len(ink) / 2))
        x = round(x - ink.shape[1] / 2)
        y, x = max(y, 0), max(x, 0)
        view = picture[y : y + ink.shape[0], x : x + ink.shape[1], : min(c, 3)]
        view[:] = ink[: view.shape[0], : view.shape[1], None]

    for row, text in enumerate(row_labels):
        write(text, top + gap + row * (h + gap) + h / 2, left - gap - font.getlength(text) / 2)
    for col, text in enumerate(col_labels):
        middle = left + gap + col * (w + gap) + w / 2
        write(text, top - gap if upright else top / 2, middle, turned=upright)
    return picture


def save(picture: np.ndarray, path: str | Path) -> None:
    """Write a uint8 picture [h, w, 1, 3 or 4] to a file, in the format of its suffix."""
    from PIL import Image

    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(path)


def curves(workdir: str | Path) -> Path | None:
    """Draw all that metrics.jsonl holds into curves.png: losses, scores, each with its floor and
    what it is on test classes, and the rest.

    Faint lines are the reports, strong ones their running mean; dashed lines and open markers are
    the floors of the scores. Axes are logarithmic where all is positive and spans two decades.
    Returns the path of the picture, None where nothing was reported.
    """
    series: dict[str, list[tuple[int, float]]] = {}
    path = Path(workdir) / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for record in map(json.loads, lines):
        for name in record.keys() - {"step", "phase"}:
            value = math.nan if record[name] is None else record[name]
            series.setdefault(name, []).append((record["step"], value))
    panels: dict[str, list[str]] = {}
    for name in sorted(series):
        panels.setdefault(_panel(name), []).append(name)
    if not panels:
        return None

    around = {"losses": 0, "other metrics": 2, "steps per second": 3}  # and scores in between
    kinds = sorted(panels, key=lambda kind: around.get(kind, 1))
    path = path.with_name("curves.png")
    plot({kind: {name: np.array(series[name]) for name in panels[kind]} for kind in kinds}, path)
    return path


def plot(panels: Mapping[str, Mapping[str, np.ndarray]], path: str | Path) -> None:
    """Draw panels of curves, {title: {name: [n, 2] of steps and values}}, into one picture."""
    from matplotlib.figure import Figure

    across = min(2 if len(panels) < 5 else 3, len(panels))
    down = math.ceil(len(panels) / across)
    # Many curves leave no room for their names; where all panels have the same ones, beside them.
    beside = len({tuple(series) for series in panels.values()}) == 1
    beside &= max(map(len, panels.values())) > 8
    figure = Figure(figsize=(5.2 * across + 1.6 * beside, 3.2 * down), layout="constrained")
    for i, (title, series) in enumerate(panels.items()):
        axes = figure.add_subplot(down, across, i + 1)
        _draw(axes, series)
        if len(series) > 1 and not beside:
            axes.legend(fontsize=8, ncols=1 + len(series) // 6, edgecolor="none", framealpha=0.8)
        axes.set_title(title, loc="left", fontsize=10)
    if beside:
        names = axes.get_legend_handles_labels()
        figure.legend(*names, loc="outside right upper", fontsize=8, edgecolor="none")
    figure.savefig(path, dpi=150)


def _panel(name: str) -> str:
    score = re.fullmatch("score/(test_)?(.+?)(_floor|_real|_before)?", name)
    if score:
        return score[2]
    if name == "rate":
        return "steps per second"
    return "losses" if "loss" in name else "other metrics"


def _draw(axes, series: Mapping[str, np.ndarray]) -> None:
    """Draw {name: [n, 2] of steps and values} into one panel."""
    # Okabe and Ito's colours, told apart by colour-blind readers, too.
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
    drawn: dict[str, str] = {}  # a score and its floor share a colour
    for name, points in series.items():
        steps, values = points.T
        short = name.removeprefix("score/")
        base = short.removesuffix("_floor")
        colour = drawn.setdefault(base, colours[len(drawn) % len(colours)])
        floor = short != base
        line = {"linestyle": "--", "fillstyle": "none"} if floor else {}
        half = len(values) // 20 if len(values) >= 40 else 0
        if half:
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.7)
        marker = "" if half else "osv^D"[list(drawn).index(base) // len(colours) % 5]
        smooth = _running_mean(values, half)
        line |= {"color": colour, "linewidth": 1.4, "marker": marker, "markersize": 4}
        axes.plot(steps, smooth, label=short, **line)

    values = np.concatenate([points[:, 1] for points in series.values()])
    values = values[np.isfinite(values)]
    if len(values):
        long = max(map(len, series.values())) > 50
        low, high = np.percentile(values, [0.5, 99.5]) if long else _ends(values)
        log = values.min() > 0 and high > 100 * low
        if log:
            axes.set_yscale("log")
            low, high = low / 1.2, high * 1.2
        margin = 0 if log else 0.08 * (high - low) or 0.1
        axes.set_ylim(low - margin, high + margin)  # a single spike must not flatten the rest
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("step", fontsize=9)


def _ends(values: np.ndarray) -> tuple[float, float]:
    return values.min(), values.max()


def _running_mean(values: np.ndarray, half: int) -> np.ndarray:
    """Mean with a bell-shaped window of 2 * half + 1 values; what is not finite does not count."""
    window = np.hanning(2 * half + 3)[1:-1]
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0.0), window, "same")
    weight = np.convolve(finite, window, "same")
    return np.divide(total, weight, out=np.full(len(values), np.nan), where=weight > 1e-9)
