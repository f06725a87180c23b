"""The phase `evaluate`: scores a run by the panel, and writes them with their protocol beside."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fsgan import build, features, panel, sharding, subjects
from fsgan.images import to_float
from fsgan.metrics import check_finite
from fsgan.subjects import Subject

CHUNK = 256  # images embedded at a time


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Score the run `config.run`; print a table, write workdir/evaluation.json and return it.

    ValueError or FileNotFoundError, in one line, for whatever cannot be scored as it was asked.
    """
    trained = subjects.load_run(config)
    subject, about = subjects.make(config, trained)
    panel.check(*subject.real.shape[:2], config.m)
    spaces, missing = load_features(config.features, subject)
    # By way of the host, like the real images: arrays that lie on a device by command, as restored
    # parameters do, would have the panel compiled a second time.
    fakes = [jax.device_get(subject.draw(seed)) for seed in range(config.seeds)]
    unadapted = jax.device_get(subject.unadapted()) if subject.unadapted else None
    draws = {"seed": config.seed, "seeds": config.seeds, "m": config.m}
    result = {
        "run": str(config.run),
        **about,
        "protocol": {**subject.protocol, "unit": subject.unit, **draws},
        "features": {
            name: score(space, subject, fakes, unadapted) for name, space in spaces.items()
        },
        "missing": missing,
        "notes": subject.notes,
        "versions": versions(),
        "config": trained.to_dict(),
    }
    print(table(result), flush=True)
    workdir.mkdir(parents=True, exist_ok=True)
    partial = workdir / "evaluation.json.tmp"
    partial.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    partial.replace(workdir / "evaluation.json")
    return result


def load_features(
    names: str, subject: Subject
) -> tuple[dict[str, features.Features], dict[str, str]]:
    """The feature spaces of these names ("domain,pixels"), and why others are missing.

    FileNotFoundError if the weights of all of them are.
    """
    spaces, missing = {}, {}
    for name in names.split(","):
        try:
            spaces[name] = build.feature_space(name, subject.real.shape[2:], lambda: subject.seen)
        except FileNotFoundError as error:
            missing[name] = str(error)
    if not spaces:
        raise FileNotFoundError("; ".join(missing.values()))
    return spaces, missing


def embed(space: features.Features, images: np.ndarray) -> np.ndarray:
    """Features [a, b, dim] of uint8 images [a, b, h, w, c], `CHUNK` images at a time.

    ValueError for others: no other type says what range it has.
    """
    if images.dtype != np.uint8:
        raise ValueError(f"images to score are uint8, got {images.dtype}: convert by to_uint8")
    a, b, *shape = images.shape
    devices = jax.device_count()
    chunks = math.ceil(a * b / CHUNK / devices) * devices
    filled = np.resize(images, (chunks, math.ceil(a * b / chunks), *shape))
    found = np.asarray(_features(space, filled))
    return found.reshape(-1, space.dim)[: a * b].reshape(a, b, -1)


_features = sharding.map_shared(lambda space, images: space(to_float(images)))


def scorer(space: features.Features, subject: Subject) -> Callable[..., dict[str, panel.Score]]:
    """The panel in one feature space: `of(images, errors=True)` are all scores of generated images,
    uint8 [units, m, h, w, c], or of the floor with None. ValueError for features with NaN.
    """
    key, classes = jax.random.key(0), subject.unit == "class"
    reals = panel.Reals(*(embed(space, x) for x in (subject.support, subject.real, subject.spare)))
    check_finite("the panel", real=jnp.concatenate(reals, 1))

    def of(images: np.ndarray | None, errors: bool = True) -> dict[str, panel.Score]:
        generated = None if images is None else embed(space, images)
        if generated is not None:
            check_finite("the panel", generated=generated)
        return panel.score(reals, generated, key, classes=classes, errors=errors)

    return of


def score(
    space: features.Features,
    subject: Subject,
    fakes: list[np.ndarray],
    unadapted: np.ndarray | None,
) -> dict[str, Any]:
    """All scores in one feature space, as evaluation.json has them."""
    units, n = subject.real.shape[:2]
    of = scorer(space, subject)
    seeds = [of(images) for images in fakes]
    floor = _floor(space, subject, of)
    ceiling = {} if unadapted is None else of(unadapted, errors=False)
    mean, scores = panel.mean(seeds), {}
    for name in (name for name in panel.SCORES if name in mean):
        values = [each[name].value for each in seeds]
        scores[name] = {
            "value": mean[name].value,
            "error": mean[name].error,
            "error_seeds": float(np.std(values, ddof=1) / len(values) ** 0.5)
            if len(values) > 1
            else None,
            "floor": floor[name].value if name in floor else None,
            "floor_error": floor[name].error if name in floor else None,
            "ceiling": ceiling[name].value if ceiling else None,
            "generated": units * (fakes[0].shape[1] if panel.SCORES[name].all else n),
            "parts": mean[name].parts,
            "floor_parts": floor[name].parts if name in floor else None,
        }
    return {
        "name": space.name,
        "hash": space.hash,
        "dim": space.dim,
        "units": units,
        "scores": scores,
        "shortcomings": panel.shortcomings(mean, floor),
    }


_floors: dict[tuple[str, ...], dict[str, panel.Score]] = {}


def _floor(
    space: features.Features, subject: Subject, of: Callable[..., dict[str, panel.Score]]
) -> dict[str, panel.Score]:
    """`of(None)`, once for all runs of a table that are scored on the same images."""
    reals = (subject.support, subject.real, subject.spare)
    images = (hashlib.sha256(x.tobytes()).hexdigest() for x in reals)
    same = (space.hash, subject.unit, *images)
    if same not in _floors:
        _floors[same] = of(None)
    return _floors[same]


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    try:
        own = importlib.metadata.version("fsgan")
    except importlib.metadata.PackageNotFoundError:  # run from a clone
        project = Path(__file__).parent.parent / "pyproject.toml"
        own = tomllib.loads(project.read_text())["project"]["version"]
    return {"jax": jax.__version__, "flax": flax.__version__, "fsgan": own}


def table(result: dict[str, Any]) -> str:
    """The scores as text."""
    protocol = result["protocol"]
    about = [f"step {result['step']}", "averaged" if result["ema"] else "not averaged"]
    if result["fresh"]:
        about = ["untrained"]
    if "adapt_steps" in result:
        about.append(f"adapted in {result['adapt_steps']} steps to {protocol['shots']} images")
    if result["truncation"] != 1:
        about.append(f"truncation {result['truncation']:g}")
    lines = [f"{result['run']} ({', '.join(about)}), split {protocol['split']}"]
    for name, found in result["features"].items():
        kinds = {"class": "classes", "group": "groups"}[protocol["unit"]]
        lines += [
            "",
            f"features {name} ({found['hash']}), {found['units']} {kinds}, "
            f"n={protocol['n']} real and m={protocol['m']} generated images of each, "
            f"{protocol['seeds']} seeds",
            f"{'':<24}{'score':>10}   {'error':<9}{'floor':>10}{'ceiling':>10}{'images':>9}  best",
        ]
        for score, x in found["scores"].items():
            lines.append(
                f"{score:<24}{x['value']:>10.4g} ± {x['error']:<9.2g}{number(x['floor'])}"
                f"{number(x['ceiling'])}{x['generated']:>9}  {panel.SCORES[score].best}"
            )
        lines.append(f"not near the floor: {', '.join(found['shortcomings']) or 'nothing'}")
    lines += [f"without features {name}: {why}" for name, why in result["missing"].items()]
    return "\n".join([*lines, *result["notes"]])


def number(x: float | None) -> str:
    return f"{'-' if x is None else f'{x:.4g}':>10}"
