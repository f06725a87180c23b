"""The three drivers: each reads a config, checks it, and sets up a `Job` for the loop.

All that can be wrong with a config is found here, before anything is compiled, and raised as a
ValueError or FileNotFoundError of one line.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from fsgan import (
    checkpoint,
    data,
    episodes,
    evaluate,
    gan,
    images,
    loop,
    losses,
    nets,
    plugins,
    tasks,
)
from fsgan import meta as meta_learners
from fsgan import transfer as methods
from fsgan.loop import Job
from fsgan.types import Game, GANState, Images, Method, Pair, Pool


def given(config: ConfigDict, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields that are not None: a None in a config stands for the callee's own default."""
    fields = config.to_dict().items()
    return {name: value for name, value in fields if value is not None and name not in without}


def make_optimizers(config: ConfigDict, steps: int) -> Pair:
    """A `Pair` of optax optimizers. Where `d_lr` is None it is `lr`; other fields go to optax."""
    make = getattr(optax, config.name, None)
    optimizers = (
        "adam",
        "adamw",
        "rmsprop",
        "sgd",
        "lion",
        "radam",
        "adabelief",
        "optimistic_adam_v2",
    )
    if config.name not in optimizers:
        raise plugins.unknown("optimizer", config.name, optimizers)
    options = given(config, without=("name", "lr", "d_lr", "schedule"))
    valid = inspect.signature(make).parameters
    for name in options:
        if name not in valid:
            raise plugins.unknown(f"option of optax.{config.name}", name, valid)
    schedules = {
        "constant": lambda lr: lr,
        "linear": lambda lr: optax.linear_schedule(lr, 0.0, steps),
        "cosine": lambda lr: optax.cosine_decay_schedule(lr, steps),
    }
    schedule = config.get("schedule") or "constant"
    if schedule not in schedules:
        raise plugins.unknown("schedule", schedule, schedules)
    rates = Pair(config.lr, config.lr if config.d_lr is None else config.d_lr)
    return Pair(*(make(schedules[schedule](lr), **options) for lr in rates))


def make_game(config: ConfigDict, image_shape: tuple[int, int, int], method: Method) -> Game:
    return Game(
        nets=nets.make(config.nets.name, image_shape, **given(config.nets, without=("name",))),
        loss=losses.adversarial(config.loss),
        latent=config.latent,
        penalty=losses.penalty(**given(config.penalty)),
        method=method,
        d_steps=config.d_steps,
    )


def load_data(config: ConfigDict, split: str, image_shape=None) -> Images:
    """The images of `config.data`, in the size and channels of the config or of `image_shape`."""
    size, channels = tuple(config.data.size), config.data.channels
    if image_shape is not None:
        size, channels = image_shape[:2], image_shape[2]
    options = given(config.data, without=("name", "size", "channels"))
    return data.load(config.data.name, split, size=size, channels=channels, **options)


def keys(config: ConfigDict) -> tuple[jax.Array, ...]:
    """The run's independent keys: parameters, training, data, pictures."""
    return tuple(jax.random.split(jax.random.key(config.seed), 4))


def record_of(**sets: Images) -> dict[str, Any]:
    """What data.json says of the image sets: their content's hash, their size, their classes."""
    return {
        "image_shape": next(iter(sets.values())).images.shape[1:],
        "data": {
            split: {
                "fingerprint": data.fingerprint(part),
                "images": len(part.labels),
                "classes": list(part.classes),
            }
            for split, part in sets.items()
        },
    }


def check_devices(n: int, what: str) -> None:
    devices = jax.device_count()
    if n % devices:
        raise ValueError(f"{what}={n} cannot be split over {devices} devices: choose a multiple")


def real_batches(config: ConfigDict) -> Callable[[jax.Array, Pool], jax.Array]:
    """Sampler of real images [n, h, w, c], with d_steps > 1 one batch for each of them."""
    check_devices(config.batch, "batch")
    shape = () if config.d_steps == 1 else (config.d_steps,)

    def sample(key: jax.Array, pool: Pool) -> jax.Array:
        images = episodes.batch(key, pool, config.batch * config.d_steps)
        return images.reshape(*shape, config.batch, *images.shape[1:])

    return sample


def pretrain(config: ConfigDict) -> Job:
    """Train a GAN on all images of a data set."""
    params_key, train_key, data_key, picture_key = keys(config)
    train = load_data(config, "train")
    game = make_game(config, train.images.shape[1:], Method())
    tx = make_optimizers(config.optimizer, config.steps)
    sample = real_batches(config)
    valid = load_data(config, "valid", train.images.shape[1:])
    return Job(
        phase="pretrain",
        init=lambda: gan.start(gan.init(params_key, game), train_key, tx),
        step=gan.make_step(game, tx, ema_decay=config.ema_decay),
        sample=sample,
        data=episodes.make_pool(train),
        data_key=data_key,
        observe=evaluate.observe_samples(game, episodes.make_pool(valid), picture_key),
        record=record_of(train=train, valid=valid),
        score="energy",
    )


def load_source(workdir: Path) -> tuple[dict[str, Any], tuple[int, int, int]]:
    """The config and the image shape of the run that `init_from` names; errors say what to do."""
    if not all((workdir / name).is_file() for name in ("config.json", "data.json")):
        raise FileNotFoundError(
            f"init_from={str(workdir)!r} holds no run: train one first, for example "
            "python main.py --config=configs/pretrain.py, and give its workdir"
        )
    config, record = (
        json.loads((workdir / name).read_text()) for name in ("config.json", "data.json")
    )
    return config, tuple(record["image_shape"])


def restore_source(workdir: Path, game: Game) -> Pair:
    """The trained parameters of a pretraining or meta run, averaged where it kept an average."""
    params = jax.eval_shape(lambda: gan.init(jax.random.key(0), game))
    return checkpoint.restore_params(workdir / "checkpoints", params)


def inherit(config: ConfigDict, source: dict, image_shape: tuple[int, int, int]) -> ConfigDict:
    """Where the config says None, the data, the networks and the image shape are the source's."""
    config = copy.deepcopy(config)
    defaults = {"latent": source["latent"], "data.name": source["data"]["name"]}
    defaults |= {f"nets.{name}": value for name, value in source["nets"].items()}
    defaults |= {"data.size": image_shape[:2], "data.channels": image_shape[2]}
    now = flatten_dict(config.to_dict(), sep=".")
    config.update_from_flattened_dict({n: v for n, v in defaults.items() if now[n] is None})
    return config


def transfer(config: ConfigDict) -> Job:
    """Adapt a pretrained GAN to a few target images."""
    if not config.init_from:
        raise ValueError(
            "transfer needs init_from: --config.init_from=runs/pretrain, a finished run"
        )
    source_dir = Path(config.init_from)
    config = inherit(config, *load_source(source_dir))
    module = plugins.find(methods, config.method.name)
    options = given(config.method, without=("name",))
    plugins.check_options(module.make, options, config.method.name)
    method = module.make(**options)

    _, train_key, data_key, picture_key = keys(config)
    available = load_data(config, config.split)
    chosen = few(len(available.labels), config.shots, config.seed)
    target = available._replace(images=available.images[chosen], labels=available.labels[chosen])
    game = make_game(config, target.images.shape[1:], method)
    tx = make_optimizers(config.optimizer, config.steps)
    sample = real_batches(config)
    source = restore_source(source_dir, game)
    pool = episodes.make_pool(target)

    def init() -> GANState:
        start_key, key = jax.random.split(train_key)
        real = jnp.asarray(target.images)
        params, memory = method.start(source, images.to_float(real), start_key)
        return gan.start(params, key, tx, method, memory=memory)

    return Job(
        phase="transfer",
        init=init,
        step=gan.make_step(game, tx, ema_decay=config.ema_decay),
        sample=sample,
        data=pool,
        data_key=data_key,
        observe=evaluate.observe_transfer(game, source, target.images, picture_key),
        record={
            **record_of(target=target),
            "chosen": chosen.tolist(),
            "init_from": str(source_dir),
        },
    )


def few(total: int, shots: int, seed: int) -> np.ndarray:
    """Which of `total` images are the target: `shots` of them, drawn by the seed; 0 takes all."""
    if not 0 <= shots <= total:
        raise ValueError(f"shots={shots}, but the target has {total} images: choose 1 to {total}")
    return np.sort(np.random.default_rng(seed).permutation(total)[: shots or total])


def meta(config: ConfigDict) -> Job:
    """Meta-train a GAN over few-shot tasks, one class each."""
    params_key, train_key, data_key, picture_key = keys(config)
    module = plugins.find(meta_learners, config.learner.name)
    options = given(config.learner, without=("name",))
    plugins.check_options(module.make, options, config.learner.name)
    check_devices(config.tasks, "tasks")
    chunk = config.chunk or default_chunk(config.tasks)
    if config.tasks % chunk:
        raise ValueError(
            f"{config.tasks} tasks cannot be taken {chunk} at a time: choose a divisor"
        )
    if min(config.learner.steps, config.adapt_steps) < 1:
        raise ValueError("learner.steps and adapt_steps must be at least 1")

    train = load_data(config, "train")
    image_shape = train.images.shape[1:]
    sets = {"train": train, **{s: load_data(config, s, image_shape) for s in ("valid", "test")}}
    pools = {split: episodes.make_pool(part) for split, part in sets.items()}
    shots, queries = config.shots, config.queries
    for split, pool in pools.items():
        episodes.check_pool(pool, shots, queries, sets[split].classes)
    game = make_game(config, image_shape, Method())
    inner = make_optimizers(config.inner, config.learner.steps)
    outer = make_optimizers(config.outer, config.steps)
    gradient = module.make(game, inner, **options)
    valid, test = (
        episodes.fixed_episodes(config.seed, pools[split], shots=shots, queries=queries)
        for split in ("valid", "test")
    )

    return Job(
        phase="meta",
        init=lambda: tasks.start(gan.init(params_key, game), train_key, outer),
        step=tasks.make_step(
            gradient,
            outer,
            chunk=config.chunk or default_chunk(config.tasks),
            ema_decay=config.ema_decay,
        ),
        sample=lambda key, pool: episodes.episodes(
            key, pool, config.tasks, shots=shots, queries=queries
        ),
        data=pools["train"],
        data_key=data_key,
        observe=evaluate.observe_tasks(
            game, inner, valid, test, picture_key, steps=config.adapt_steps, show=tuple(config.show)
        ),
        record={**record_of(**sets), "shots": shots, "queries": queries, "episodes": config.seed},
        score="energy",
    )


def default_chunk(n_tasks: int) -> int:
    """Tasks at a time: one for each device on a CPU, where it is fastest, else all of them."""
    return jax.device_count() if jax.default_backend() == "cpu" else n_tasks


PHASES = {"pretrain": pretrain, "transfer": transfer, "meta": meta}


def prepare(config: ConfigDict, workdir: Path) -> Job:
    """Check everything that can be checked, claim the workdir, and set up the job.

    Raises ValueError or FileNotFoundError, in one line, for anything that is wrong with the config,
    with what it names, or with a workdir that belongs to another config.
    """
    if config.phase not in PHASES:
        raise plugins.unknown("phase", config.phase, PHASES)
    loop.check_intervals(**intervals(config))
    job = PHASES[config.phase](config)
    claim(config, workdir)
    return job


def intervals(config: ConfigDict) -> dict[str, int]:
    names = ("steps", "report_every", "observe_every", "save_every")
    return {name: config[name] for name in names}


def claim(config: ConfigDict, workdir: Path) -> None:
    """Write config.json into a new workdir; ValueError where one of another config lies there."""
    path = workdir / "config.json"
    now = json.loads(config.to_json())
    if path.is_file():
        before = json.loads(path.read_text())
        ours, theirs = flatten_dict(now, sep="."), flatten_dict(before, sep=".")
        names = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
        if names:
            raise ValueError(
                f"{workdir} belongs to another config: "
                + ", ".join(f"{n} is {theirs.get(n)!r} there, {ours.get(n)!r} here" for n in names)
                + "; choose another --workdir, or remove that one"
            )
        return
    workdir.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(now, indent=2) + "\n")
