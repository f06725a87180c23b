"""From the fields of a config to the objects that they name. All errors are of one line."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from fsgan import (
    checkpoint,
    data,
    features,
    gan,
    learned,
    losses,
    meta,
    nets,
    optim,
    outer_losses,
    plugins,
    subspaces,
    transfer,
)
from fsgan.images import take_classes
from fsgan.metrics import energy, kid
from fsgan.tasks import Inner, Learner
from fsgan.types import Game, Images, Method, Pair, Subspace


def given(config: ConfigDict, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields that are not None: a None in a config stands for the callee's own default."""
    fields = config.to_dict().items()
    return {name: value for name, value in fields if value is not None and name not in without}


OPTIMIZERS = {
    **{name: getattr(optax, name) for name in ("adabelief", "adagrad", "adam", "adamw", "lion")},
    **{name: getattr(optax, name) for name in ("optimistic_adam_v2", "radam", "rmsprop", "sgd")},
    "ftrl": optim.ftrl,
}
OWN = ("name", "lr", "d_lr", "schedule", "clip", "layers", "lookahead")
SCHEDULES = {
    "constant": lambda rate, steps: rate,
    "linear": lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
    "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, steps),
}


def make_optimizers(config: ConfigDict, steps: int) -> Pair:
    """A `Pair` of optax optimizers.

    Where `d_lr` is None it is `lr`; with `clip`, gradients are first clipped to that global norm;
    `layers` multiplies the rates of chosen layers, {"g/stem": 5.0}; `lookahead` is a period. The
    other fields go to the optimizer itself.
    """
    if config.name not in OPTIMIZERS:
        raise plugins.unknown("optimizer", config.name, OPTIMIZERS)
    if config.schedule not in SCHEDULES:
        raise plugins.unknown("schedule", config.schedule, SCHEDULES)
    make, layers = OPTIMIZERS[config.name], layer_factors(config.layers)
    options = given(config, without=OWN)
    valid = inspect.signature(make).parameters
    for name in options:
        if name not in valid:
            raise plugins.unknown(f"option of {config.name}", name, valid)

    def one(player: str, rate: float) -> optax.GradientTransformation:
        parts = [make(SCHEDULES[config.schedule](rate, steps), **options)]
        if config.clip is not None:
            parts.insert(0, optim.clip_by_norm(config.clip))
        if factors := layers[player]:
            parts.append(optim.scale_layers(factors))
        tx = optax.chain(*parts)
        return tx if config.lookahead is None else optim.lookahead(tx, config.lookahead)

    return Pair(one("g", config.lr), one("d", config.lr if config.d_lr is None else config.d_lr))


def layer_factors(layers: Mapping[str, float] | None) -> dict[str, dict[str, float]]:
    """{"g/stem": 5.0} by player: {"g": {"stem": 5.0}, "d": {}}; ValueError for any other shape."""
    factors = {"g": {}, "d": {}}
    for name, factor in dict(layers or {}).items():
        player, _, layer = name.partition("/")
        if player not in factors or not layer or not isinstance(factor, int | float):
            raise ValueError(
                f"layers={{{name!r}: {factor!r}}}: give a player, its layer and a factor, "
                "such as {'g/stem': 5.0}"
            )
        factors[player][layer] = factor
    return factors


def make_game(config: ConfigDict, image_shape: tuple[int, int, int], method: Method) -> Game:
    if not config.truncation >= 0:
        raise ValueError(f"truncation must be 0 or more, got {config.truncation}")
    return Game(
        nets=nets.make(config.nets.name, image_shape, **given(config.nets, without=("name",))),
        loss=losses.adversarial(config.loss),
        latent=config.latent,
        penalty=losses.penalty(**given(config.penalty)),
        method=method,
        d_steps=config.d_steps,
        truncation=config.truncation,
    )


def make_method(config: ConfigDict) -> Method:
    """The transfer method `config.method`, with the switches that come on top of it."""
    method = make_plugin(transfer, config.method)
    switches = [plugins.find(transfer, name).make() for name in config.switches]
    return transfer.combine(method, *switches) if switches else method


def make_learner(
    config: ConfigDict, game: Game, loss: outer_losses.OuterLoss = outer_losses.adversarial
) -> Learner:
    """The meta-learner `config.learner`, on the inner loop that `inner` and `adapt` describe. To
    adapt with it, any outer loss will do.
    """
    adapt = config.adapt
    if adapt.fewest is not None and not 1 <= adapt.fewest <= adapt.steps:
        raise ValueError(f"adapt.fewest={adapt.fewest}: choose 1 to adapt.steps={adapt.steps}")
    inner = Inner(
        dataclasses.replace(game, method=make_inner_method(adapt)),
        make_optimizers(config.inner, adapt.steps),
        steps=adapt.steps,
        fewest=adapt.fewest,
        learned=learned.make(adapt.learned, steps=adapt.steps),
        average=adapt.average,
        batch=None if config.train_shots is None else config.shots,
        remat=adapt.remat,
        unroll=adapt.unroll,
    )
    make = plugins.find(meta, config.learner.name).make
    if "loss" in inspect.signature(make).parameters:
        return make_plugin(meta, config.learner, inner, loss)
    if config.outer_loss.name != "adversarial":
        raise ValueError(f"{config.learner.name} has an objective of its own: leave outer_loss")
    return make_plugin(meta, config.learner, inner)


def make_inner_method(adapt: ConfigDict) -> Method:
    """The transfer method `adapt.method` within the subspaces that `adapt` names.

    ValueError for one that chooses what moves, adds parts, or keeps a memory: it begins from one
    source, whereas each step of meta-training begins from other parameters.
    """
    method, nothing = make_plugin(transfer, adapt.method), Method()
    for hook in ("subspace", "extend", "start", "finish"):
        if getattr(method, hook) != getattr(nothing, hook):
            raise ValueError(
                f"adapt.method={adapt.method.name}: an inner loop takes methods without a subspace "
                "or memory of their own, such as imle, diff_augment, mode_seeking or finetune"
            )
    subspace = Pair(make_subspace(adapt.g_subspace), make_subspace(adapt.d_subspace))
    return dataclasses.replace(method, subspace=subspace)


def held_out_inner(config: ConfigDict, learner: Learner) -> Inner:
    """How a learner adapts to held-out classes: its inner loop with `adapt.test_rate` and
    `adapt.test_d_rate` times the learning rates and `adapt.test_repeat` generated images for each
    real one, which ends in the mean of the iterates that `adapt.test_average` names; its generator
    moves what it draws `adapt.test_place` times as far.
    """
    factors = {name: config.adapt[name] for name in ("test_rate", "test_d_rate")}
    for name, factor in factors.items():
        if not factor > 0:
            raise ValueError(f"adapt.{name} must be positive, got {factor}")
    inner = copy.deepcopy(config.inner)
    inner.d_lr = factors["test_d_rate"] * (inner.lr if inner.d_lr is None else inner.d_lr)
    inner.lr *= factors["test_rate"]
    game = learner.inner.game
    place = config.adapt.test_place * game.nets.g.place
    if not 0 <= place <= 1:
        raise ValueError(f"adapt.test_place times nets.place must lie in 0 to 1, got {place:g}")
    generator = game.nets.g.clone(place=place)
    return dataclasses.replace(
        learner.inner,
        game=dataclasses.replace(
            game, nets=game.nets._replace(g=generator), repeat=config.adapt.test_repeat
        ),
        tx=make_optimizers(inner, config.adapt.steps),
        average=config.adapt.test_average,
        batch=None,
    )


SUBSPACES = ("everything", "head", "nothing", "named", "freeze", "scale_shift", "singular_values")
SUBSPACES += ("lora", "kernel_modulation", "adafm")


def make_subspace(text: str) -> Subspace:
    """One of `fsgan.subspaces` by name, with an argument after a colon where it takes one:
    "everything", "scale_shift", "lora:4", "named:stem|head".
    """
    name, colon, argument = text.partition(":")
    if name not in SUBSPACES:
        raise plugins.unknown("subspace", name, SUBSPACES)
    found = getattr(subspaces, name)
    arguments = [int(argument) if argument.isdigit() else argument] if colon else []
    try:
        return found if isinstance(found, Subspace) and not colon else found(*arguments)
    except TypeError as error:
        raise ValueError(f"subspace {text!r}: {error}") from error


OUTER_LOSSES = ("adversarial", "distance", "mixed")
DISTANCES = {
    "energy": energy.compute,
    "mmd": lambda real, fake: kid.mmd2(*kid.scaled(real, fake)),  # what KID averages
}
FEATURES = ("domain", "pixels", "random_conv")  # that need no file of weights


def make_outer_loss(
    config: ConfigDict, image_shape: tuple[int, int, int], seen: Callable[[], Images]
) -> outer_losses.OuterLoss:
    """The outer loss of that name; the fields that it does not need are not looked at.

    `seen` has the images that domain features learn from: those of another seed than the scores',
    which would else measure what has been descended.
    """
    if config.name not in OUTER_LOSSES:
        raise plugins.unknown("outer loss", config.name, OUTER_LOSSES)
    if config.distance not in DISTANCES:
        raise plugins.unknown("distance", config.distance, DISTANCES)
    if config.features not in FEATURES:
        raise plugins.unknown("features", config.features, FEATURES)
    if config.name == "adversarial":
        return outer_losses.adversarial
    learned_from = {"images": seen(), "seed": 1} if config.features == "domain" else {}
    distance = outer_losses.distance(
        features.load(config.features, image_shape, **learned_from),
        DISTANCES[config.distance],
        samples=config.samples,
    )
    return distance if config.name == "distance" else outer_losses.mixed(config.weight, distance)


def feature_space(
    name: str, image_shape: Sequence[int], seen: Callable[[], Images]
) -> features.Features:
    """The feature space of scores; `seen` has the images that domain features learn from."""
    return features.load(name, image_shape, **({"images": seen()} if name == "domain" else {}))


def make_plugin(package: ModuleType, config: ConfigDict, *args: Any) -> Any:
    """What the file `config.name` of a package makes, with the other fields as its options."""
    module = plugins.find(package, config.name)
    options = given(config, without=("name",))
    plugins.check_options(module.make, options, config.name)
    return module.make(*args, **options)


def load_data(config: ConfigDict, split: str, *others: str) -> list[Images]:
    """The images of `split`, and those of other splits in the same size and channels.

    `data.classes` and `data.exclude` choose among the classes of `split`; they hold for another
    split, too, where it has the same classes, whereas held-out classes are left as they are.
    """
    options = given(config.data, without=("name", "size", "channels", "classes", "exclude"))
    chosen = config.data.classes, config.data.exclude
    size, channels = tuple(config.data.size), config.data.channels
    whole = data.load(config.data.name, split, size=size, channels=channels, **options)
    sets, channels = [data.select(whole, *chosen)], whole.images.shape[-1]
    for other in others:
        part = data.load(config.data.name, other, size=size, channels=channels, **options)
        sets.append(data.select(part, *chosen) if part.classes == whole.classes else part)
    return sets


def hold_out(images: Images, seed: int) -> list[Images]:
    """Split an image set by class, by the seed: train, a tenth for valid, a tenth for test.

    Each has a class at least; ValueError if there are fewer than three.
    """
    total = len(images.classes)
    if total < 3:
        raise ValueError(
            f"meta-learning needs 3 classes or more to hold some out, there are {total}"
        )
    order, n = np.random.default_rng(seed).permutation(total), max(1, total // 10)
    return [
        take_classes(images, np.sort(part)) for part in np.split(order, [total - 2 * n, total - n])
    ]


def check_positive(config: ConfigDict) -> None:
    """ValueError, naming the field, for a count that is not positive."""
    fields = flatten_dict(config.to_dict(), sep=".")
    names = ("batch", "d_steps", "latent", "tasks", "shots", "eval_classes", "keep")
    names += tuple(f"adapt.{name}" for name in ("steps", "test_steps", "test_repeat", "unroll"))
    for name in (*names, "nets.width"):
        smallest = 0 if (config.phase, name) == ("transfer", "shots") else 1  # 0: all images
        if fields.get(name) is not None and fields[name] < smallest:
            raise ValueError(f"{name} must be at least {smallest}, got {fields[name]}")


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


def initial_params(config: ConfigDict, game: Game, key: jax.Array) -> Callable[[], Pair]:
    """What makes the parameters to begin with: those of `init_from`, averaged where that run kept
    an average, else fresh ones.
    """
    if not config.init_from:
        return lambda: gan.init(key, game)
    params = jax.eval_shape(lambda: gan.init(key, game))
    found = checkpoint.restore_params(Path(config.init_from) / "checkpoints", params)
    return lambda: found


def inherit(config: ConfigDict) -> ConfigDict:
    """Where the config says None, the data, networks and image shape are those of `init_from`."""
    source, image_shape = load_source(Path(config.init_from))
    config = copy.deepcopy(config)
    defaults = {"latent": source["latent"], "data.name": source["data"]["name"]}
    defaults |= {f"nets.{name}": value for name, value in source["nets"].items()}
    defaults |= {"data.size": image_shape[:2], "data.channels": image_shape[2]}
    now = flatten_dict(config.to_dict(), sep=".")
    config.update_from_flattened_dict({n: v for n, v in defaults.items() if now[n] is None})
    return config
