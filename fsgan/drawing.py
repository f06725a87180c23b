"""The phase `sample`: new images from a finished run, as files, a grid and a film strip."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fsgan import build, data, gan, pictures, subjects, tasks
from fsgan.images import to_float, to_uint8
from fsgan.types import Array, Game, Method, Pair

CHUNK = 256  # images generated at a time


def run(config: ConfigDict, workdir: Path) -> None:
    """Write `config.n` images of the run `config.run` to workdir/images, and two pictures.

    grid.png shows the first of them, film.png a way through the space of latents, each row from one
    image to the next. A meta-trained GAN first adapts to the images of `config.target`. ValueError
    or FileNotFoundError, in one line, for whatever cannot be done as it was asked.
    """
    if config.n < 1:
        raise ValueError(f"n must be at least 1, got {config.n}")
    trained = subjects.load_run(config)
    with subjects.of_this_version(config.run):
        game, params = generator(config, trained)
    draw = jax.jit(lambda params, z: to_uint8(game.nets.g.apply({"params": params.g}, z)))
    z_key, film_key = jax.random.split(jax.random.key(config.seed))
    z = game.truncation * gan.latents(z_key, config.n, game.latent)
    images = np.concatenate(
        [np.asarray(draw(params, z[i : i + CHUNK])) for i in range(0, config.n, CHUNK)]
    )

    folder = workdir / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        pictures.save(image, folder / f"{i:05d}.png")
    side = min(10, int(config.n**0.5))
    square = images[: side * side].reshape(side, side, *images.shape[1:])
    pictures.save(pictures.grid(square), workdir / "grid.png")
    film = draw(params, game.truncation * path(film_key, game.latent, stops=5, frames=9))
    film = np.asarray(film).reshape(-1, 9, *film.shape[1:])
    pictures.save(pictures.grid(film), workdir / "film.png")
    print(f"{config.n} images in {folder}, beside them grid.png and film.png")


def generator(config: ConfigDict, trained: ConfigDict) -> tuple[Game, Pair]:
    """The game and the full parameters that images are drawn from."""
    if bool(config.target) != (trained.phase == "meta"):
        raise ValueError(
            f"run={config.run!r} was meta-trained: --config.target=folder:PATH says to which "
            "images it is to adapt"
            if trained.phase == "meta"
            else f"run={config.run!r} has its images already: leave out target"
        )
    state, _ = subjects.restore(config, trained)
    shape = tuple(json.loads((Path(config.run) / "data.json").read_text())["image_shape"])
    if trained.phase != "meta":
        method = build.make_method(trained) if trained.phase == "transfer" else Method()
        game = method.extend(build.make_game(trained, shape, method))
        return game, gan.weights(state, method, ema=config.ema)
    images = data.load(config.target, "train", size=shape[:2], channels=shape[2]).images
    learner = build.make_learner(trained, build.make_game(trained, shape, Method()))
    inner = build.held_out_inner(trained, learner)
    adapt = jax.jit(tasks.make_adapt(inner, steps=config.adapt_steps or trained.adapt.test_steps))
    params, _ = adapt(
        gan.weights(state, ema=config.ema), jax.random.key(config.seed), to_float(images)
    )
    return inner.game, params


def path(key: Array, latent: int, *, stops: int, frames: int) -> Array:
    """A closed way [stops * frames, latent] through random latents, on the sphere between two.

    Spherical interpolation (White 2016): the latents in between are as long as normal ones are.
    """
    points = gan.latents(key, stops, latent)

    def between(a: Array, b: Array, t: Array) -> Array:
        cosine = jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
        angle = jnp.arccos(jnp.clip(cosine, -1, 1))
        return (jnp.sin((1 - t) * angle) * a + jnp.sin(t * angle) * b) / jnp.sin(angle)

    fractions = jnp.arange(frames) / frames
    segment: Callable = jax.vmap(between, (None, None, 0))
    every = jax.vmap(segment, (0, 0, None))(points, jnp.roll(points, -1, 0), fractions)
    return every.reshape(-1, latent)
