"""What the phase `evaluate` scores: a finished run as images to compare with and a way to generate.

A meta-trained GAN, or a pretrained one that is fine-tuned, adapts to each of the held-out classes
from a few of its images. Samples of a transferred or pretrained GAN have no classes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fsgan import build, data, gan, panel, plugins, sharding, tasks, train
from fsgan.checkpoint import Checkpoints
from fsgan.images import to_float, to_uint8
from fsgan.types import Array, Game, Images, Method, Pair

TRAINING = 1024  # training images, for the copying ratio of a pretrained generator


class Subject(NamedTuple):
    """What is scored. `unit` is "class", or "group" where images are of one distribution."""

    support: np.ndarray  # uint8 [units, shots, h, w, c], what the generator has seen
    real: np.ndarray  # uint8 [units, n, h, w, c], the reference
    spare: np.ndarray  # uint8 [units, n, h, w, c], for the floor
    draw: Callable[[int], Array]  # seed -> generated images, uint8 [units, m, h, w, c]
    unadapted: Callable[[], Array] | None  # the same without adaptation
    seen: Images  # the images that domain features may be trained on
    unit: str
    protocol: dict[str, Any]  # what two evaluations must share to be compared
    notes: list[str]  # what a reader should know


def load_run(config: ConfigDict) -> ConfigDict:
    """The config of the run `config.run`, with `config.truncation` where that is given.

    FileNotFoundError where there is none.
    """
    file = Path(config.run) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"run={config.run!r} holds no run: give the workdir of a finished one, "
            "--config.run=runs/maml_gan"
        )
    trained = ConfigDict(json.loads(file.read_text()))
    if config.truncation is not None:
        trained.truncation = config.truncation
    return trained


@contextlib.contextmanager
def of_this_version(run: str) -> Iterator[None]:
    """ValueError, in one line, where the config of the run lacks a field that is asked for."""
    try:
        yield
    except (AttributeError, KeyError) as error:
        raise ValueError(
            f"run={run!r} was made by another version of fsgan, without {error}"
        ) from error


def restore(config: ConfigDict, trained: ConfigDict) -> tuple[Any, int]:
    """The run's state and its step: the last one, `config.step`, the best, or untrained (0)."""
    job = train.PHASES[trained.phase](trained)
    check_data(Path(config.run), job.record)
    if config.fresh:
        return jax.jit(job.init)(), 0
    checkpoints = Checkpoints(Path(config.run) / "checkpoints", keep=None)
    step = checkpoints.best() if config.best else config.step
    if config.best and step is None:
        raise ValueError(f"run={config.run!r} has no scored checkpoint: leave out best")
    if step is None:
        step = checkpoints.latest()
        if step is not None and step < trained.steps:
            raise ValueError(
                f"run={config.run!r} is at step {step} of {trained.steps}: let it finish, "
                f"or score that step by --config.step={step}"
            )
    return checkpoints.restore(jax.eval_shape(job.init), step), step


def check_data(workdir: Path, record: dict[str, Any]) -> None:
    """ValueError where the data are not those that the run has learned from."""
    then = json.loads((workdir / "data.json").read_text())["data"]
    for split, now in record["data"].items():
        if then[split]["fingerprint"] != now["fingerprint"]:
            raise ValueError(
                f"run={str(workdir)!r} learned from other data: its {split} images have the hash "
                f"{then[split]['fingerprint']}, those here {now['fingerprint']}"
            )


def make(config: ConfigDict, trained: ConfigDict) -> tuple[Subject, dict[str, Any]]:
    """The subject of a run, and what evaluation.json says of the run itself."""
    check(config, seeds=1, m=2, n=1, adapt_steps=1, repeat=1, shots=0, classes=0)
    shots = trained.shots if trained.phase == "meta" else 0
    shots = shots if config.shots is None else config.shots
    if trained.phase == "meta" and shots < 1:
        raise ValueError("shots must be at least 1: a meta-trained GAN is to be adapted")
    with of_this_version(config.run):
        state, step = restore(config, trained)
        about = {"phase": trained.phase, "step": step, "ema": config.ema, "fresh": config.fresh}
        about["truncation"] = trained.truncation
        if trained.phase == "transfer":
            return transferred(config, trained, state), about
        params = gan.weights(state, ema=config.ema)
        if trained.phase == "pretrain" and not shots:
            return pretrained(config, trained, params), about
        inner, steps = inner_loop(config, trained)
        about["adapt_steps"] = steps
        return few_shot(config, trained, params, inner, steps, shots), about


def check(config: ConfigDict, **smallest: int) -> None:
    """ValueError where a field of the config is below its smallest value, or the split unknown."""
    for name, least in smallest.items():
        if config[name] is not None and config[name] < least:
            raise ValueError(f"{name} must be at least {least}, got {config[name]}")
    if config.split not in ("valid", "test"):
        raise plugins.unknown("split", config.split, ("valid", "test"))


def inner_loop(config: ConfigDict, trained: ConfigDict) -> tuple[tasks.Inner, int]:
    """How the run adapts to a class, and in how many steps: as it has learned to or, where it was
    pretrained, by `config.inner`, `config.average` and `config.repeat`.
    """
    shape = tuple(json.loads((Path(config.run) / "data.json").read_text())["image_shape"])
    game = build.make_game(trained, shape, Method())
    if trained.phase == "meta":
        steps = config.adapt_steps or trained.adapt.test_steps
        return build.held_out_inner(trained, build.make_learner(trained, game)), steps
    steps = config.adapt_steps or 10
    tx = build.make_optimizers(config.inner, steps)
    game = dataclasses.replace(game, repeat=config.repeat)
    return tasks.Inner(game, tx, steps=steps, average=config.average), steps


def few_shot(
    config: ConfigDict,
    trained: ConfigDict,
    params: Pair,
    inner: tasks.Inner,
    steps: int,
    shots: int,
) -> Subject:
    """Adaptation to each held-out class from a few of its images, against others of them."""
    if trained.phase == "meta":
        sets = train.class_splits(trained)
        seen, images = sets["train"], sets[config.split]
    else:
        seen, images = build.load_data(trained, "train", config.split)
    if set(seen.classes) & set(images.classes):
        raise ValueError(
            f"run={config.run!r} was trained on classes of its {config.split} split: few-shot "
            "scores need data that hold classes out; leave shots at 0"
        )
    labels, n = choose_classes(
        images, shots, config.n, classes=config.classes, largest=config.m // 2
    )
    episodes = [draw_images(images, label, config.seed, shots, n) for label in labels]
    support, real, spare = (images.images[np.stack(part)] for part in zip(*episodes, strict=True))
    asked = min(config.classes or len(images.classes), len(images.classes))
    note = f"{len(labels)} classes are scored: no others have {shots + 2 * n} images"

    def sampler(adapt: tasks.Adapt):
        @sharding.map_shared
        def draw(generator: tuple[Pair, Array], task: tuple[Array, Array]) -> tuple[Array, Array]:
            (params, key), (label, images) = generator, task
            adapt_key, z_key = jax.random.split(jax.random.fold_in(key, label))
            networks, _ = adapt(params, adapt_key, to_float(images))
            return outcome(gan.sample(inner.game, networks, z_key, config.m))

        return lambda seed: finite(*draw((params, generator_key(config, seed)), (labels, support)))

    source = sampler(lambda params, key, support: (tasks.separate(params)[0], {}))
    return Subject(
        support,
        real,
        spare,
        draw=sampler(tasks.make_adapt(inner, steps=steps)),
        unadapted=lambda: source(0),
        seen=seen,
        unit="class",
        protocol={
            "split": config.split,
            "data": data.fingerprint(images),
            "shots": shots,
            "n": n,
            "images": {
                images.classes[label]: [part.tolist() for part in episode]
                for label, episode in zip(labels, episodes, strict=True)
            },
        },
        notes=[note] if len(labels) < asked else [],
    )


def transferred(config: ConfigDict, trained: ConfigDict, state: Any) -> Subject:
    """Samples of the adapted generator, against images of the target that it has not seen."""
    (available,) = build.load_data(trained, trained.split)
    chosen = build.few(len(available.labels), trained.shots, trained.seed)
    others = np.setdiff1d(np.arange(len(available.labels)), chosen)
    method = build.make_method(trained)
    game = method.extend(build.make_game(trained, available.images.shape[1:], method))
    source = build.initial_params(trained, game, build.keys(trained)[0])()
    return unconditional(
        config,
        game,
        gan.weights(state, method, ema=config.ema),
        available,
        others,
        support=available.images[chosen],
        seen=train.source_images(trained),
        unadapted=source,
        protocol={"split": trained.split, "shots": len(chosen), "chosen": chosen.tolist()},
    )


def pretrained(config: ConfigDict, trained: ConfigDict, params: Pair) -> Subject:
    """Samples of the generator, against images of the split; copies of training images show."""
    seen, images = build.load_data(trained, "train", config.split)
    game = build.make_game(trained, images.images.shape[1:], Method())
    some = np.random.default_rng(config.seed).permutation(len(seen.labels))[:TRAINING]
    return unconditional(
        config,
        game,
        params,
        images,
        np.arange(len(images.labels)),
        support=seen.images[np.sort(some)],
        seen=seen,
        unadapted=None,
        protocol={"split": config.split, "shots": 0},
    )


def unconditional(
    config: ConfigDict,
    game: Game,
    params: Pair,
    images: Images,
    held_out: np.ndarray,
    *,
    support: np.ndarray,
    seen: Images,
    unadapted: Pair | None,
    protocol: dict[str, Any],
) -> Subject:
    """Samples without classes, against the images numbered `held_out`, in groups of random ones."""
    groups, smallest = panel.GROUPS, 2 * panel.GROUPS
    n = config.n or min(len(held_out) // smallest, config.m // 2)
    if n < 1 or smallest * n > len(held_out):
        raise ValueError(
            f"there are {len(held_out)} held-out images, the panel needs {smallest * max(n, 1)}: "
            f"{groups} groups of n={max(n, 1)}, twice; the smallest n is 1"
        )
    order = np.random.default_rng(config.seed).permutation(held_out)[: smallest * n]
    real, spare = order.reshape(2, groups, n)

    @jax.jit
    def draw(params: Pair, key: Array) -> tuple[Array, Array]:
        return jax.lax.map(
            lambda key: outcome(gan.sample(game, params, key, config.m)),
            jax.random.split(key, groups),
        )

    return Subject(
        np.broadcast_to(support, (groups, *support.shape)),
        images.images[real],
        images.images[spare],
        draw=lambda seed: finite(*draw(params, generator_key(config, seed))),
        unadapted=unadapted and (lambda: finite(*draw(unadapted, generator_key(config, 0)))),
        seen=seen,
        unit="group",
        protocol={
            **protocol,
            "data": data.fingerprint(images),
            "n": n,
            "images": {"real": real.tolist(), "spare": spare.tolist()},
        },
        notes=[],
    )


def outcome(images: Array) -> tuple[Array, Array]:
    """The images as uint8, and whether all of them were finite: uint8 does not show it."""
    return to_uint8(images), jnp.isfinite(images).all()


def finite(images: Array, whether: Array) -> Array:
    """The images [units, ...]; ValueError unless those of all units were finite [units]."""
    bad = int((~np.asarray(whether)).sum())
    if bad:
        raise ValueError(
            f"the generated images of {bad} of {len(whether)} classes or groups are not finite: "
            "adaptation diverged, take fewer steps or smaller rates"
        )
    return images


def generator_key(config: ConfigDict, seed: int) -> Array:
    """Of everything random in adaptation and sampling."""
    return jax.random.fold_in(jax.random.key(config.seed), seed)


def choose_classes(
    images: Images, shots: int, n: int | None, *, classes: int, largest: int
) -> tuple[np.ndarray, int]:
    """The classes to score, `classes` evenly spaced ones at most (0: all), and n.

    Where n is given, classes with fewer than shots + 2n images are left out; else all take part,
    and n is as large as the smallest allows, up to `largest`. ValueError, naming the smallest
    number, if there are too few images.
    """
    counts = np.bincount(images.labels, minlength=len(images.classes))
    if n is None:
        short = int(counts.argmin())
        n = min((int(counts[short]) - shots) // 2, largest)
        if n < 1:
            raise ValueError(
                f"class {images.classes[short]!r} has {counts[short]} images, but {shots + 2} are "
                f"the fewest, {shots} shots and 2 others: ask for fewer shots, or by n=1 for the "
                "larger classes alone"
            )
    labels = np.flatnonzero(counts >= shots + 2 * n)
    if len(labels) < 2:
        raise ValueError(
            f"shots={shots} and n={n} need 2 classes of {shots + 2 * n} images, the largest has "
            f"{counts.max()}: ask for fewer; the smallest n is 1"
        )
    return labels[train.evenly(len(labels), classes or len(labels))], n


def draw_images(images: Images, label: int, seed: int, shots: int, n: int) -> list[np.ndarray]:
    """Which images of a class are its support [shots], reference [n] and floor [n].

    They depend on the seed and the class alone, and the support neither on n.
    """
    own = np.flatnonzero(images.labels == label)
    order = np.random.default_rng([seed, label]).permutation(own)[: shots + 2 * n]
    return np.split(order, [shots, shots + n])
