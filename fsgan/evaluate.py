"""What a run shows of itself while it trains: pictures from fixed latents, and scores.

Each function here makes an observer for the loop: `(state, log, last) -> scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fsgan import gan, tasks
from fsgan.episodes import batch
from fsgan.features import pixels
from fsgan.images import to_uint8
from fsgan.log import Logger
from fsgan.metrics import energy
from fsgan.pictures import grid
from fsgan.types import Array, Episode, Game, GANState, Pair, Pool

Observer = Callable[[GANState, Logger, bool], dict[str, float]]


def pixel_energy(real: Array, fake: Array) -> Array:
    """Energy distance of two sets of images [n, h, w, c] in pixels at three scales."""
    return energy.compute(pixels.features(real), pixels.features(fake))


def observe_samples(game: Game, held_out: Pool, key: Array, *, n: int = 64) -> Observer:
    """For pretraining: a square of samples, and their energy distance to held-out images.

    The floor is the same distance between two sets of held-out images of the same size.
    """
    real_key, other_key, z_key = jax.random.split(key, 3)

    @jax.jit
    def measure(params: Pair, held_out: Pool):
        fake = gan.sample(game, params, z_key, 4 * n)
        real, other = (batch(k, held_out, 4 * n) for k in (real_key, other_key))
        scores = {"energy": pixel_energy(real, fake), "energy_floor": pixel_energy(real, other)}
        return to_uint8(fake[:n]), scores

    def observe(state: GANState, log: Logger, last: bool) -> dict[str, float]:
        images, scores = jax.device_get(measure(gan.weights(state), held_out))
        side = int(n**0.5)
        log.images(
            int(state.step),
            "samples",
            grid(images[: side**2].reshape(side, side, *images.shape[1:])),
        )
        return {name: float(value) for name, value in scores.items()}

    return observe


def observe_transfer(
    game: Game, source: Pair, target: np.ndarray, key: Array, *, n: int = 10
) -> Observer:
    """For transfer: the target images, and source and adapted samples from the same latents.

    No score: the target images are all used for training, and no others may be looked at.
    """
    draw = jax.jit(lambda params: to_uint8(gan.sample(game, params, key, 3 * n)))

    def observe(state: GANState, log: Logger, last: bool) -> dict[str, float]:
        adapted = gan.weights(state, game.method)
        shape = (3, n, *target.shape[1:])
        before, after = (np.asarray(draw(params)).reshape(shape) for params in (source, adapted))
        shown = np.resize(target, shape[1:])[None]  # repeated where there are fewer than n
        rows = np.concatenate([shown, *np.stack([before, after], 1)])
        labels = ["target"] + ["source", "adapted"] * 3
        log.images(int(state.step), "samples", grid(rows, row_labels=labels))
        return {}

    return observe


def observe_tasks(
    inner: tasks.Inner,
    valid: Episode,
    test: Episode,
    key: Array,
    *,
    steps: int,
    show: Sequence[int],
    n: int = 32,
) -> Observer:
    """For meta-learning: adaptation to held-out classes, those of `test` at the end only.

    Args:
      inner: the inner loop.
      valid, test: one episode per class, on a leading axis.
      steps: inner steps taken.
      show: the inner steps after which samples are shown, none beyond `steps` (ValueError).
      n: samples per class for the scores.

    The scores are means over the classes of `valid`: `energy` from the adapted samples to the query
    images, `energy_before` the same without adaptation, `energy_floor` from the support images to
    the query images (real against real), and `spread`, the variance between the classes' mean
    images over the variance within them: near 0 when adaptation does not tell classes apart, far
    above `spread_real`, the same of the real images, when the samples of a class are all alike.
    """
    if not all(0 <= s <= steps for s in show):
        raise ValueError(f"show={tuple(show)}: there are only steps 0 to {steps} of adaptation")
    adapt = tasks.make_adapt(inner, steps=steps, history=True)
    adapt_key, z_key = jax.random.split(key)
    stages = np.array(sorted({0, *show, steps}))

    def one(params: Pair, episode: Episode) -> Array:
        path, _ = adapt(params, adapt_key, episode.support)
        start, _ = tasks.separate(params)
        path = jax.tree.map(lambda a, after: jnp.concatenate([a[None], after]), start, path)
        chosen = jax.tree.map(lambda x: x[stages], path)
        return jax.lax.map(lambda p: gan.sample(inner.game, p, z_key, n), chosen)

    @jax.jit
    def measure(params: Pair, episodes: Episode):
        def body(episode: Episode):
            images = one(params, episode)
            scores = {
                "energy": pixel_energy(episode.query, images[-1]),
                "energy_before": pixel_energy(episode.query, images[0]),
            }
            if len(episode.support) > 1:  # there is no distance to a single image
                scores["energy_floor"] = pixel_energy(episode.query, episode.support)
            real = jnp.concatenate([episode.support, episode.query])
            sets = {"spread": images[-1], "spread_real": real}
            return to_uint8(images[:, : len(episode.support)]), scores, jax.tree.map(moments, sets)

        shown, scores, spreads = jax.lax.map(body, episodes)
        spread = {
            name: means.var(0).sum() / within.mean() for name, (means, within) in spreads.items()
        }
        return shown, {**jax.tree.map(jnp.mean, scores), **spread}

    def moments(images: Array) -> tuple[Array, Array]:
        features = pixels.features(images)
        return features.mean(0), features.var(0, ddof=1).sum()

    def picture(episodes: Episode, shown: np.ndarray, across: int = 4) -> np.ndarray:
        """Tasks side by side, each a block of rows: support, then samples at each stage."""
        blocks = np.concatenate([to_uint8(episodes.support)[:, None], shown], 1)
        blank = np.full_like(blocks[:, :, :1], 255)
        blocks = np.concatenate([blocks, blank], 2)  # [tasks, rows, columns, h, w, c]
        bands = [
            np.concatenate(blocks[i : i + across], 1)[:, :-1] for i in range(0, len(blocks), across)
        ]
        labels = ["support", *(f"step {s}" for s in stages)] * len(bands)
        return grid(np.concatenate(bands), row_labels=labels)

    def look(split: str, episodes: Episode, state: GANState, log: Logger) -> dict[str, float]:
        shown, scores = jax.device_get(measure(gan.weights(state), episodes))
        every = max(1, len(shown) // 8)
        some = jax.tree.map(lambda x: x[::every][:8], episodes)
        log.images(int(state.step), split, picture(some, shown[::every][:8]))
        return {name: float(value) for name, value in scores.items()}

    def observe(state: GANState, log: Logger, last: bool) -> dict[str, float]:
        scores = look("valid", valid, state, log)
        if last:
            held_out = look("test", test, state, log)
            scores |= {f"test_{name}": value for name, value in held_out.items()}
        return scores

    return observe
