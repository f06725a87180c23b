"""The phase `calibrate`: what the panel says of images whose failure is known.

Held-out real images, and failures made of them, take the place of generated ones. A score *sees* a
failure where it is worse than that of the real images by more than the 95 % interval of the paired
difference, *misses* it within the interval, and *prefers* it beyond. The images that stand for
generated ones are neither among the support nor among those compared with.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fsgan import compare, data, features, panel, scoring, subjects, train
from fsgan.subjects import Subject

REAL, FLOOR = "real", "floor"  # what is no failure
MARKS = {"sees": "*", "misses": "", "prefers": "!"}  # of verdicts, in the table


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Score all of `failures`; print a table, write workdir/calibration.json and .md, return it.

    ValueError or FileNotFoundError, in one line, for whatever cannot be done as it was asked.
    """
    subject = make(config)
    panel.check(*subject.real.shape[:2])
    spaces, missing = scoring.load_features(config.features, subject)
    made = failures(subject.support, subject.draw(0), config.seed)
    result = {
        "protocol": subject.protocol,
        "features": {
            name: judge(space, score(space, subject, made)) for name, space in spaces.items()
        },
        "missing": missing,
        "versions": scoring.versions(),
    }
    text = report(result)
    print(text, flush=True)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "calibration.json").write_text(json.dumps(result, allow_nan=False) + "\n")
    (workdir / "calibration.md").write_text(text + "\n")
    return result


def make(config: ConfigDict) -> Subject:
    """Held-out classes, whose generator draws real images, 2n of each. No image is there twice."""
    subjects.check(config, n=1, shots=1, classes=0)
    sets = train.class_splits(config)
    images, twice = sets[config.split], config.n and 2 * config.n
    labels, twice = subjects.choose_classes(
        images, config.shots, twice, classes=config.classes, largest=panel.BLOCK
    )
    n = twice // 2
    if n < 1:
        least = int(np.bincount(images.labels).min())
        raise ValueError(
            f"{config.shots} shots leave {least - config.shots} images of the smallest class, the "
            "calibration needs 4: ask for fewer shots, or by n=1 for the larger classes alone"
        )
    drawn = [subjects.draw_images(images, i, config.seed, config.shots, 2 * n) for i in labels]
    episodes = [(support, *np.split(real, 2), other) for support, real, other in drawn]
    support, real, spare, other = (images.images[np.stack(x)] for x in zip(*episodes, strict=True))
    protocol = {
        "source": config.data.name,
        "split": config.split,
        "data": data.fingerprint(images),
        "classes": len(labels),
        "shots": config.shots,
        "n": n,
        "m": 2 * n,
        "seed": config.seed,
        "images": {
            images.classes[label]: [part.tolist() for part in episode]
            for label, episode in zip(labels, episodes, strict=True)
        },
    }
    return Subject(
        support,
        real,
        spare,
        draw=lambda seed: other,
        unadapted=None,
        seen=sets["train"],
        unit="class",
        protocol=protocol,
        notes=[],
    )


def blur(images: np.ndarray, passes: int = 2) -> np.ndarray:
    """uint8 [..., h, w, c] smoothed by (1, 2, 1) / 4 along both sides, edges continued outwards.

    As wide as a Gaussian with a standard deviation of sqrt(passes / 2) pixels.
    """
    x = images.astype(np.float64)
    for axis in (-3, -2) * passes:
        pad = [(0, 0)] * x.ndim
        pad[axis] = (1, 1)
        x = np.moveaxis(np.pad(x, pad, mode="edge"), axis, 0)
        x = np.moveaxis((x[:-2] + 2 * x[1:-1] + x[2:]) / 4, 0, axis)
    return x.round().astype(np.uint8)


def failures(support: np.ndarray, other: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """What stands for generated images, uint8 like `other`, by the name of the failure.

    Of the support [classes, shots, h, w, c] and other real images [classes, 2n, h, w, c]:
      real: the others as they are, no failure
      copies: the support, over and over
      blurred: the others, blurred
      repeated: one of the others for each class
      collapsed: one of the others for all classes
      noise: pixels of uniformly random grey levels
      half missing: a random half of the classes show images of another class each; among the first
        n of a class, which are pooled, no image is there twice
    """
    rng, (classes, m) = np.random.default_rng(seed), other.shape[:2]
    shown, missing = rng.permutation(classes)[: classes // 2 * 2].reshape(2, -1)
    half = other.copy()
    half[missing] = np.roll(other[shown], m // 2, axis=1)
    return {
        REAL: other,
        "copies": support[:, np.arange(m) % support.shape[1]],
        "blurred": blur(other),
        "repeated": np.broadcast_to(other[:, :1], other.shape),
        "collapsed": np.broadcast_to(other[:1, :1], other.shape),
        "noise": rng.integers(0, 256, other.shape, np.uint8),
        "half missing": half,
    }


def score(
    space: features.Features, subject: Subject, made: dict[str, np.ndarray]
) -> dict[str, dict[str, panel.Score]]:
    """The scores of the floor and of all of `failures`."""
    of = scoring.scorer(space, subject)
    return {FLOOR: of(None), **{name: of(images) for name, images in made.items()}}


def judge(space: features.Features, found: dict[str, dict[str, panel.Score]]) -> dict[str, Any]:
    """What the scores say, from those of each failure, of the real images and of the floor.

    Under "scores", of each of them: the value, its difference from that of the real images, half
    of the 95 % interval of this difference, and `verdict`. Under "shortcomings", of all but the
    floor, those of `panel.shortcomings`.
    """
    scores = {score: {} for score in panel.SCORES if score in found[REAL]}
    for name, one in found.items():
        for score, x in one.items():
            real, this = (dataclasses.asdict(y) for y in (found[REAL][score], x))
            delta, half = compare.difference(real, this, x.classes)
            scores[score][name] = {
                "value": x.value,
                "difference": delta,
                "interval": half,
                "verdict": verdict(panel.SCORES[score].best, delta, half),
            }
    short = {
        name: panel.shortcomings(one, found[FLOOR]) for name, one in found.items() if name != FLOOR
    }
    about = {"name": space.name, "hash": space.hash, "dim": space.dim}
    return {**about, "scores": scores, "shortcomings": short}


def verdict(best: str, delta: float, half: float) -> str:
    """Whether a score "sees", "misses" or "prefers" what changes it by delta, give or take half.

    `best` is that of `panel.About`; a score that should be like the floor's prefers nothing.
    """
    if abs(delta) <= half:
        return "misses"
    worse = {"lower": delta > 0, "higher": delta < 0, "floor": True}[best]
    return "sees" if worse else "prefers"


def favourite(best: str, row: dict[str, dict[str, Any]]) -> str:
    """The failure that a score puts before all others; the first of several."""
    badness = {
        "lower": lambda x: x["value"],
        "higher": lambda x: -x["value"],
        "floor": lambda x: abs(x["difference"]),
    }[best]
    return min((name for name in row if name not in (REAL, FLOOR)), key=lambda n: badness(row[n]))


def report(result: dict[str, Any]) -> str:
    """The calibration as Markdown: for each feature space a table, and what it says in words."""
    p = result["protocol"]
    lines = [
        f"Data {p['source']} ({p['data']}), split {p['split']}: {p['classes']} classes, "
        f"of each {p['shots']} images as support, {p['n']} as reference and {p['m']} others. "
        "Marked are scores worse (*) or better (!) than those of real images, beyond the interval."
    ]
    for space, found in result["features"].items():
        short = found["shortcomings"]
        names = [FLOOR, *short]
        lines += ["", f"Features {space} ({found['hash']}):", ""]
        lines += [f"| | best | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
        for score, row in found["scores"].items():
            cells = (cell(row[name]) if name in row else "-" for name in names)
            lines.append(f"| {score} | {panel.SCORES[score].best} | {' | '.join(cells)} |")
        lines += ["", *(sentence(score, row) for score, row in found["scores"].items())]
        lines += ["", *winners(short, found["scores"]["kid"])]
    lines += [f"Without features {name}: {why}" for name, why in result["missing"].items()]
    return "\n".join(lines)


def cell(x: dict[str, Any]) -> str:
    return f"{x['value']:.3g}{MARKS[x['verdict']]}"


def sentence(score: str, row: dict[str, dict[str, Any]]) -> str:
    """Which failures a score sees, misses and prefers, and which is the best in it."""
    parts = []
    for kind in MARKS:
        names = [f for f, x in row.items() if x["verdict"] == kind and f not in (REAL, FLOOR)]
        parts += [f"{kind} {', '.join(names)}"] if names else []
    best = favourite(panel.SCORES[score].best, row)
    return f"- `{score}` {'; '.join(parts)} (best failure: {best})"


def winners(short: dict[str, list[str]], kid: dict[str, dict[str, Any]]) -> list[str]:
    """What each falls short in, and whose KID is the lowest, of all and of those that pass."""

    def lowest(names: list[str]) -> str:
        return min(names, key=lambda name: kid[name]["value"], default="nobody")

    return [
        f"Which of {', '.join(panel.CHECKS)} are not near the floor's:",
        "",
        *(f"- {name}: {', '.join(lacks) or 'passes'}" for name, lacks in short.items()),
        "",
        f"Lowest KID: {lowest(list(short))}; of those that pass: "
        f"{lowest([name for name in short if not short[name]])}.",
    ]
