"""The fields that all phases share, and the words after the colon of --config=FILE:WORDS."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from types import ModuleType

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

import fsgan.data
from fsgan import losses, plugins


def base_config(phase: str, name: str) -> ConfigDict:
    """Every field once. A None stands for the default of whatever the field is passed to."""
    config = ConfigDict()
    config.phase = phase  # pretrain, transfer or meta
    config.name = name  # the default workdir is runs/<name>
    config.seed = 0  # of the run: parameters, latents, batches, target images, held-out episodes
    config.init_from = ""  # workdir of a finished run to start from

    config.data = ConfigDict()
    config.data.name = "glyphs"  # a file of fsgan/data, any image set of TFDS, or folder:PATH
    config.data.size = (28, 28)  # height and width, both divisible by 4
    config.data.channels = placeholder(int)  # 1, 3 or 4; None: as the data come
    config.data.classes = placeholder(object)  # keep these classes alone: names or numbers
    config.data.exclude = placeholder(object)  # leave these classes out
    for option in source_options():  # the sources' own, such as min_images or skip_bad
        config.data[option] = placeholder(object)

    config.nets = ConfigDict()
    config.nets.name = "dcgan"  # a file of fsgan/nets
    config.nets.width = 32  # channels at the finest level
    config.nets.activation = "leaky_relu"  # or a smooth one: silu, gelu, softplus, tanh
    config.nets.affine = "channel"  # the generator's norms have a scale for each channel or value
    config.nets.impl = "auto"  # convolutions: matmul or lax; auto: what is fast on the platform
    config.nets.dtype = "float32"  # computed in, or bfloat16; parameters are float32 always
    config.nets.mapper = 0  # hidden layers of a mapping network before the generator
    config.nets.place = 0.0  # how far the generator moves what it has drawn, in half sides; to 1
    config.latent = 64  # latent dimensions
    config.truncation = 1.0  # standard deviation of the latents of samples; in training it is 1

    config.loss = "non_saturating"  # losses.ADVERSARIAL
    config.penalty = ConfigDict(dict.fromkeys(losses.PENALTIES, 0.0))
    config.d_steps = 1  # discriminator updates for each one of the generator
    config.ema_decay = 0.999  # of the averaged generator; meta: of both networks; 1: uniform mean

    config.scores = ConfigDict()
    config.scores.features = "random_conv"  # of the scores while training; domain: minutes, once

    config.steps = 10_000
    config.report_every = 50  # steps per dispatch and report line
    config.observe_every = 1_000  # pictures and scores, with which a checkpoint is saved, too
    config.save_every = 500  # checkpoints
    config.keep = 3  # last checkpoints kept, besides the best
    return config


def source_options() -> set[str]:
    """The options of all data sources but those that their name in the config stands for."""
    sources = (plugins.find(fsgan.data, name) for name in plugins.names(fsgan.data))
    options = {name for source in sources for name in plugins.defaults(source.load)}
    return options - {"path", "dataset"}


def like_source(config: ConfigDict) -> None:
    """Leave the networks and the images' shape to the run that `init_from` names."""
    for section, names in (
        (config, ("latent",)),
        (config.nets, tuple(config.nets)),
        (config.data, ("name", "size")),
    ):
        for name in names:
            section[name] = placeholder(type(section[name]))


def optimizer(name: str, lr: float, **options) -> ConfigDict:
    """An optimizer of optax for each player; fields that are None are left to optax."""
    config = ConfigDict()
    config.name = name
    config.lr = lr  # generator, and discriminator where d_lr is None
    config.d_lr = placeholder(float)
    config.schedule = "constant"  # constant, linear or cosine, down to 0 at the last step
    config.clip = placeholder(float)  # largest norm of a player's gradient
    config.layers = placeholder(object)  # factors of chosen layers' rates: {"g/stem": 5.0}
    config.lookahead = placeholder(int)  # go half the way back every so many updates
    for field in ("b1", "b2", "eps_root", "momentum", "decay", "weight_decay", "l1", "l2", "beta"):
        config[field] = placeholder(float)
    config.update(options)
    return config


def plugin(module: ModuleType, **options) -> ConfigDict:
    """A method or meta-learner with all of its options."""
    name = module.__name__.rpartition(".")[2]
    config = ConfigDict({"name": name, **plugins.defaults(module.make)}, convert_dict=False)
    config.update(options)
    return config


def assign(config: ConfigDict, fields: dict[str, str]) -> ConfigDict:
    """Set fields, named with dots, from text; ValueError with the nearest name for unknown ones."""
    # `layers` has keys of the user's own: it is one field.
    known = flatten_dict(
        config.to_dict(), sep=".", is_leaf=lambda path, _: path[-1:] == ("layers",)
    )
    for name, text in fields.items():
        name = f"{name}.name" if f"{name}.name" in known else name  # data=mnist is data.name=mnist
        if name not in known:
            raise plugins.unknown("config field", name, known)
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        config.update_from_flattened_dict({name: value})
    return config


def sources() -> list[str]:
    """The data sources that are a word of their own; any other is given as data=NAME."""
    return [name for name in plugins.names(fsgan.data) if name not in ("folder", "tfds")]


def words(arg: str, **choices: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Sort the comma-separated words after the colon: `omniglot,width=64`.

    Each bare word belongs to the first of `choices` that has it, folder:PATH to `data`; `key=value`
    is kept as it is. Returns ({kind: word}, {key: value}); ValueError, listing all words, for any
    other.
    """
    chosen, fields = {}, {}
    # Commas within brackets belong to a value.
    for word in filter(None, re.split(r",(?![^(\[{]*[)\]}])", arg)):
        key, equals, value = word.partition("=")
        if equals:
            fields[key] = value
            continue
        kind = next((kind for kind, names in choices.items() if word in names), None)
        if word.startswith("folder:"):
            kind = "data"
        if kind is None:
            known = [w for names in choices.values() for w in names]
            raise ValueError(f"{plugins.unknown('word', word, known)}; any other data: data=NAME")
        if kind in chosen:
            raise ValueError(f"{chosen[kind]!r} and {word!r} are both a {kind}: give one")
        chosen[kind] = word
    return chosen, fields


def run_name(config_name: str, chosen: dict[str, str]) -> str:
    """The default workdir under runs/: the config's name and its words."""
    return re.sub(r"[^\w.-]+", "-", "_".join([config_name, *chosen.values()]))
