"""From the fields of a config to the objects that they name. All errors are of one line."""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from fsgan import checkpoint, data, gan, losses, nets, plugins
from fsgan.types import Game, Images, Method, Pair


def given(config: ConfigDict, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields that are not None: a None in a config stands for the callee's own default."""
    fields = config.to_dict().items()
    return {name: value for name, value in fields if value is not None and name not in without}


OPTIMIZERS = ("adabelief", "adam", "adamw", "lion", "optimistic_adam_v2", "radam", "rmsprop", "sgd")
SCHEDULES = {
    "constant": lambda rate, steps: rate,
    "linear": lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
    "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, steps),
}


def make_optimizers(config: ConfigDict, steps: int) -> Pair:
    """A `Pair` of optax optimizers.

    Where `d_lr` is None it is `lr`; with `clip`, gradients are first clipped to that global norm;
    the other fields go to optax.
    """
    if config.name not in OPTIMIZERS:
        raise plugins.unknown("optimizer", config.name, OPTIMIZERS)
    if config.schedule not in SCHEDULES:
        raise plugins.unknown("schedule", config.schedule, SCHEDULES)
    make = getattr(optax, config.name)
    options = given(config, without=("name", "lr", "d_lr", "schedule", "clip"))
    valid = inspect.signature(make).parameters
    for name in options:
        if name not in valid:
            raise plugins.unknown(f"option of optax.{config.name}", name, valid)

    def one(rate: float) -> optax.GradientTransformation:
        tx = make(SCHEDULES[config.schedule](rate, steps), **options)
        return (
            tx if config.clip is None else optax.chain(optax.clip_by_global_norm(config.clip), tx)
        )

    return Pair(one(config.lr), one(config.lr if config.d_lr is None else config.d_lr))


def make_game(config: ConfigDict, image_shape: tuple[int, int, int], method: Method) -> Game:
    return Game(
        nets=nets.make(config.nets.name, image_shape, **given(config.nets, without=("name",))),
        loss=losses.adversarial(config.loss),
        latent=config.latent,
        penalty=losses.penalty(**given(config.penalty)),
        method=method,
        d_steps=config.d_steps,
    )


def make_plugin(package: ModuleType, config: ConfigDict, *args: Any) -> Any:
    """What the file `config.name` of a package makes, with the other fields as its options."""
    module = plugins.find(package, config.name)
    options = given(config, without=("name",))
    plugins.check_options(module.make, options, config.name)
    return module.make(*args, **options)


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


def few(total: int, shots: int, seed: int) -> np.ndarray:
    """Which of `total` images are the target: `shots` of them, drawn by the seed; 0 takes all."""
    if not 0 <= shots <= total:
        raise ValueError(f"shots={shots}, but the target has {total} images: choose 1 to {total}")
    return np.sort(np.random.default_rng(seed).permutation(total)[: shots or total])


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
