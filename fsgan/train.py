"""The three drivers: each reads a config, checks it, and sets up a `Job` for the loop.

All that can be wrong with a config is found here, before anything is compiled, and raised as a
ValueError or FileNotFoundError of one line.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict

from fsgan import (
    build,
    episodes,
    evaluate,
    gan,
    images,
    loop,
    plugins,
    sharding,
    tasks,
    watch,
)
from fsgan.loop import Job
from fsgan.types import GANState, Images, Method, Pool

SEEN = 256  # training images that the samples of pretraining are compared with, at most


def real_batches(config: ConfigDict) -> Callable[[jax.Array, Pool], jax.Array]:
    """Sampler of real images [n, h, w, c], with d_steps > 1 one batch for each of them."""
    shape = () if config.d_steps == 1 else (config.d_steps,)

    def sample(key: jax.Array, pool: Pool) -> jax.Array:
        images = episodes.batch(key, pool, config.batch * config.d_steps)
        return images.reshape(*shape, config.batch, *images.shape[1:])

    return sample


def pretrain(config: ConfigDict) -> Job:
    """Train a GAN on all images of a data set."""
    params_key, train_key, data_key, picture_key = build.keys(config)
    train, valid = build.load_data(config, "train", "valid")
    game = build.make_game(config, train.images.shape[1:], Method())
    tx = build.make_optimizers(config.optimizer, config.steps)
    sample = real_batches(config)
    initial = build.initial_params(config, game, params_key)
    # Of training images alone, without a split of its own, no image is new to the generator.
    held_out = not np.array_equal(train.images, valid.images)
    some = build.few(len(train.labels), min(SEEN, len(train.labels)), config.seed)
    return Job(
        phase="pretrain",
        init=lambda: gan.start(initial(), train_key, tx),
        step=gan.make_step(game, tx, ema_decay=config.ema_decay),
        sample=sample,
        data=episodes.make_pool(train),
        data_key=data_key,
        batch_axis=min(config.d_steps - 1, 1),
        mesh=sharding.make_mesh(sharding.share(config.batch, "batch", cores=False)),
        observe=evaluate.observe_samples(
            game,
            build.feature_space(config.scores.features, train.images.shape[1:], lambda: train),
            valid.images,
            train.images[some] if held_out else None,
            picture_key,
        ),
        watch=watch.look,
        record=build.record_of(train=train, valid=valid),
        score="kid",
    )


def transfer(config: ConfigDict) -> Job:
    """Adapt a pretrained GAN to a few target images."""
    if not config.init_from:
        raise ValueError(
            "transfer needs init_from: --config.init_from=runs/pretrain, a finished run"
        )
    method = build.make_method(config)
    params_key, train_key, data_key, picture_key = build.keys(config)
    (available,) = build.load_data(config, config.split)
    chosen = build.few(len(available.labels), config.shots, config.seed)
    target = available._replace(images=available.images[chosen], labels=available.labels[chosen])
    game = method.extend(build.make_game(config, target.images.shape[1:], method))
    tx = build.make_optimizers(config.optimizer, config.steps)
    sample = real_batches(config)
    source = build.initial_params(config, game, params_key)()
    pool = episodes.make_pool(target)
    for doubt in doubts(target.images, config):
        warnings.warn(doubt, stacklevel=2)

    def init() -> GANState:
        start_key, key = jax.random.split(train_key)
        real = jnp.asarray(target.images)
        params, memory = method.start(game, source, images.to_float(real), start_key)
        return gan.start(params, key, tx, method, memory=memory)

    return Job(
        phase="transfer",
        init=init,
        step=gan.make_step(game, tx, ema_decay=config.ema_decay),
        sample=sample,
        data=pool,
        data_key=data_key,
        batch_axis=min(config.d_steps - 1, 1),
        mesh=sharding.make_mesh(sharding.share(config.batch, "batch", cores=False)),
        observe=evaluate.observe_transfer(
            game,
            build.feature_space(
                config.scores.features, target.images.shape[1:], lambda: source_images(config)
            ),
            source,
            target.images,
            picture_key,
        ),
        watch=watch.look,
        record={
            **build.record_of(target=target),
            "chosen": chosen.tolist(),
            "init_from": config.init_from,
        },
    )


def meta(config: ConfigDict) -> Job:
    """Meta-train a GAN over few-shot tasks, one class each."""
    params_key, train_key, data_key, picture_key = build.keys(config)
    mesh = sharding.make_mesh(sharding.share(config.tasks, "tasks", cores=True))
    chunk = config.chunk or default_chunk(config.tasks, mesh)
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1, or 0 for what is fastest")
    if config.queries < 2:
        raise ValueError(
            f"queries={config.queries}: the scores compare with 2 query images or more"
        )

    shots, queries = config.shots, config.queries
    train_shots = shots if config.train_shots is None else config.train_shots
    if train_shots < shots:
        raise ValueError(f"train_shots={train_shots} must be at least shots={shots}")

    sets = class_splits(config)
    image_shape = sets["train"].images.shape[1:]
    pools = {split: episodes.make_pool(part) for split, part in sets.items()}
    for split, pool in pools.items():
        support = train_shots if split == "train" else shots
        episodes.check_pool(pool, support, queries, sets[split].classes)
    game = build.make_game(config, image_shape, Method())
    outer = build.make_optimizers(config.outer, config.steps)
    loss = build.make_outer_loss(config.outer_loss, image_shape, lambda: sets["train"])
    learner = build.make_learner(config, game, loss)
    valid, test = (
        episodes.fixed_episodes(
            config.seed,
            pools[split],
            classes=evenly(len(sets[split].classes), config.eval_classes),
            shots=shots,
            queries=queries,
        )
        for split in ("valid", "test")
    )

    initial = build.initial_params(config, game, params_key)

    return Job(
        phase="meta",
        init=lambda: tasks.start(initial(), train_key, outer, learner),
        step=tasks.make_step(
            learner,
            outer,
            chunk=chunk,
            mesh=mesh,
            ema_decay=config.ema_decay,
            only=config.only or None,
        ),
        sample=lambda key, pool: episodes.episodes(
            key, pool, config.tasks, shots=train_shots, queries=queries
        ),
        data=pools["train"],
        data_key=data_key,
        mesh=mesh,
        observe=evaluate.observe_tasks(
            build.held_out_inner(config, learner),
            build.feature_space(config.scores.features, image_shape, lambda: sets["train"]),
            valid,
            test,
            picture_key,
            steps=config.adapt.test_steps,
            show=tuple(config.adapt.show),
        ),
        watch=watch.look,
        record={
            **build.record_of(**sets),
            "shots": shots,
            "queries": queries,
            "episodes": config.seed,
        },
        score="kid",
    )


def doubts(target: np.ndarray, config: ConfigDict) -> Iterator[str]:
    """What may not be meant by target images uint8 [n, h, w, c] for the source of `config`."""
    grey = (target[..., :3] == target[..., :1]).all()
    if target.shape[-1] > 1 and grey:
        yield "the target images are grey, the source's are in colour: the samples will turn grey"
    try:
        seen = {image.tobytes() for image in source_images(config).images}
    except (ValueError, OSError):  # its data need not be at hand any more
        return
    if known := sum(image.tobytes() in seen for image in target):
        yield f"the source has learned from {known} of the {len(target)} target images already"


def source_images(config: ConfigDict) -> Images:
    """What the run that `init_from` names was trained on."""
    origin = ConfigDict(build.load_source(Path(config.init_from))[0])
    if origin.phase == "meta":
        return class_splits(origin)["train"]
    return build.load_data(origin, "train")[0]


def class_splits(config: ConfigDict) -> dict[str, Images]:
    """The image sets train, valid and test, which share no class."""
    parts = build.load_data(config, "train", "valid", "test")
    if any(set(parts[0].classes) & set(part.classes) for part in parts[1:]):
        parts = build.hold_out(parts[0], config.seed)  # a source that does not hold classes out
    return dict(zip(("train", "valid", "test"), parts, strict=True))


def evenly(total: int, n: int) -> np.ndarray:
    """At most n of the numbers 0 .. total - 1, evenly spaced."""
    return np.unique(np.linspace(0, total - 1, min(n, total)).round().astype(int))


def default_chunk(n_tasks: int, mesh: Mesh) -> int:
    """Tasks at a time on each device: one on a CPU, where it is fastest, else all that it has."""
    return 1 if mesh.devices.flat[0].platform == "cpu" else n_tasks // mesh.size


PHASES = {"pretrain": pretrain, "transfer": transfer, "meta": meta}


def prepare(config: ConfigDict, workdir: Path) -> Job:
    """Check everything that can be checked, claim the workdir, and set up the job.

    Raises ValueError or OSError, in one line, for anything that is wrong with the config, with what
    it names, or with a workdir that belongs to another config.
    """
    if config.phase not in PHASES:
        raise plugins.unknown("phase", config.phase, PHASES)
    if config.init_from:
        config = build.inherit(config)
    build.check_positive(config)
    loop.check_intervals(**{n: v for n, v in intervals(config).items() if n != "keep"})
    job = PHASES[config.phase](config)
    state = jax.eval_shape(job.init)  # finds what does not fit together, without compiling it
    jax.eval_shape(job.step, state, jax.eval_shape(job.sample, job.data_key, job.data))
    claim(workdir, json.loads(config.to_json()), job.record)
    return job


def intervals(config: ConfigDict) -> dict[str, int]:
    """The arguments of `loop.run` that a config has."""
    names = ("steps", "report_every", "observe_every", "save_every", "keep")
    return {name: config[name] for name in names}


def claim(workdir: Path, config: dict[str, Any], record: dict[str, Any]) -> None:
    """Write config.json and data.json into a new workdir.

    ValueError, naming what differs, where a run of another config or on other data lies there. One
    that has not saved anything yet has nothing to lose, and is replaced.
    """
    ours = {"config.json": config, "data.json": json.loads(json.dumps(record))}
    begun = any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))
    for name, now in ours.items():
        if begun and (workdir / name).is_file():
            before = flatten_dict(json.loads((workdir / name).read_text()), sep=".")
            now = flatten_dict(now, sep=".")
            fields = sorted(f for f in before.keys() | now.keys() if before.get(f) != now.get(f))
            fields = [f for f in fields if not f.endswith(".classes")]  # the fingerprint tells
            if fields:
                raise ValueError(
                    f"{workdir} belongs to another {name.removesuffix('.json')}: "
                    + ", ".join(
                        f"{f} is {before.get(f)!r} there, {now.get(f)!r} here" for f in fields
                    )
                    + "; choose another --workdir, or remove that one"
                )
    if jax.process_index() > 0:
        return  # the first process writes for all
    workdir.mkdir(parents=True, exist_ok=True)
    for name, now in ours.items():
        partial = workdir / f"{name}.tmp"
        partial.write_text(json.dumps(now, indent=1) + "\n")
        partial.replace(workdir / name)
