"""What a run shows of itself while it trains: pictures from fixed latents, and scores.

The functions `observe_...` make an observer for the loop: `(state, log, last) -> scores`. Their
scores are the panel's where they have its names, of fewer images and without errors; `x_floor` is
what real images score in the place of generated ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fsgan import gan, panel, sharding, tasks
from fsgan.features import Features, pixels
from fsgan.images import to_float, to_uint8
from fsgan.log import Logger
from fsgan.metrics import copying, diversity, energy, kid, precision_recall
from fsgan.metrics._distances import kth_nearest
from fsgan.pictures import grid
from fsgan.types import Array, Episode, Game, GANState, Method, Metrics, Pair

Observer = Callable[[GANState, Logger, bool], dict[str, float]]


def panel_scores(real: Array, fake: Array, support: Array | None = None) -> Metrics:
    """The panel's cheap part: of features [classes, n, d] and [classes, m, d], n and m at least 2.

    `kid` of the mixtures of the classes. `precision` and `recall` of n images of each class on
    either side, missing where there are fewer than 4 in all. `spread`, the mean distance of two
    images of a class, which is that of the fakes alone. With `support` [classes, k, d], which the
    generator has seen, `copying_ratio`.
    """
    n, d = real.shape[1:]
    some = fake[:, :n]
    scores = {"kid": mixture_kid(*kid.scaled(real, fake)), "spread": jax.vmap(spread)(some).mean()}
    x, y = real.reshape(-1, d), some.reshape(-1, d)
    if min(len(x), len(y)) >= 4:
        scores |= precision_recall.compute(x, y)
    if support is not None:
        found = jax.lax.map(lambda args: copying.compute(*args), (real, fake, support))
        scores["copying_ratio"] = found["fake_to_support"].mean() / found["real_to_support"].mean()
    return scores


def mixture_kid(real: Array, fake: Array) -> Array:
    """KID, without bias, of two mixtures: of features [classes, n, d] and [others, m, d], in which
    the classes have equal parts, see `panel.kernel_means`; n and m are at least 2.
    """
    within = sum(panel.kernel_means(x, x, same=True).mean() for x in (real, fake))
    return within - 2 * panel.kernel_means(real, fake).mean()


def spread(x: Array) -> Array:
    """The mean distance of two rows of x [n, d], n at least 2."""
    return diversity.compute(x[:1], x)["diversity"]


def with_floors(scores: Metrics, floors: Metrics) -> Metrics:
    return scores | {f"{name}_floor": value for name, value in floors.items()}


def on_host(scores: Metrics) -> dict[str, float]:
    """As numbers, KID first: the console repeats the first score."""
    first = {name: scores[name] for name in ("kid",) if name in scores}
    return {name: float(value) for name, value in (first | scores).items()}


def pixel_energy(real: Array, fake: Array) -> Array:
    """Energy distance of two sets of images [n, h, w, c] in pixels at three scales."""
    return energy.compute(pixels.features(real), pixels.features(fake))


def observe_samples(
    game: Game,
    space: Features,
    held_out: np.ndarray,
    seen: np.ndarray | None,
    key: Array,
    *,
    n: int = 64,
) -> Observer:
    """For pretraining: a square of n samples, and the scores of 4n against held-out images.

    Args:
      game: what is played.
      space: the feature space of all scores but `energy`.
      held_out: uint8 [images, h, w, c]. Half of them at most, 4n, are the reference, as many others
        are for the floors; there are no scores if that leaves fewer than 2 each.
      seen: training images, for `copying_ratio`; without, it is missing.
      key: of the latents and the choice of images.
    """
    z_key, order_key = jax.random.split(key)
    k = min(4 * n, len(held_out) // 2)
    order = np.asarray(jax.random.permutation(order_key, len(held_out)))
    images = (held_out[order[:k]], held_out[order[k : 2 * k]], seen)

    @jax.jit
    def measure(params: Pair, key: Array, space: Features, images):
        fake = gan.sample(game, params, key, 4 * n)
        if k < 2:
            return to_uint8(fake[:n]), {}
        real, other, seen = jax.tree.map(to_float, images)
        scores = with_floors(
            {"energy": pixel_energy(real, fake)}, {"energy": pixel_energy(real, other)}
        )
        x, y, spare = (space(images)[None] for images in (real, fake, other))
        support = None if seen is None else space(seen)[None]
        scores |= with_floors(panel_scores(x, y, support), panel_scores(x, spare))
        return to_uint8(fake[:n]), scores

    def observe(state: GANState, log: Logger, last: bool) -> dict[str, float]:
        shown, scores = jax.device_get(measure(gan.weights(state), z_key, space, images))
        side = int(n**0.5)
        log.images(
            int(state.step),
            "samples",
            grid(shown[: side**2].reshape(side, side, *shown.shape[1:])),
        )
        return on_host(scores)

    return observe


def observe_transfer(
    game: Game,
    space: Features,
    source: Pair,
    target: np.ndarray,
    key: Array,
    *,
    n: int = 10,
    m: int = 64,
) -> Observer:
    """For transfer: the target images, and source and adapted samples from the same latents.

    No other image of the target may be looked at, so that the scores of m samples compare them with
    target images themselves (evenly spaced ones, m at most), which are all used for training. They
    say what became of the samples' variety, and nothing of their quality:
      nearest_target: their distance to the nearest target image, over that of each target image to
        the nearest other one, medians of both; near 0 for copies
      spread: the mean distance of two samples; the floor is that of two target images
      diversity: the same among samples with the same nearest target image, averaged over these
    and where the method augments those of `leakage`. With a single target image there is neither
    nearest_target nor a floor.
    """
    z_key, augment_key = jax.random.split(key)
    method, compared = game.method, target[:: -(-len(target) // m)]
    draw = jax.jit(lambda params, key: gan.sample(game, params, key, max(m, 3 * n)))

    @jax.jit
    def measure(compared: Array, fake: Array, space: Features, memory, key: Array) -> Metrics:
        real, samples = to_float(compared), fake[:m]
        x, y = space(real), space(samples)
        scores = {"spread": spread(y), "diversity": diversity.compute(x, y)["diversity"]}
        if len(x) > 1:
            scores["spread_floor"] = spread(x)
            nearest = copying.compute(x, y, x)["fake_to_support"]
            scores["nearest_target"] = nearest / jnp.median(kth_nearest(x, 1))
        if method.augment is not Method.augment:
            scores |= leakage(space, lambda x: method.augment(key, x, memory), real, y)
        return scores

    def observe(state: GANState, log: Logger, last: bool) -> dict[str, float]:
        adapted = draw(gan.weights(state, method), z_key)
        shape = (3, n, *target.shape[1:])
        before, after = (
            to_uint8(x[: 3 * n]).reshape(shape) for x in (draw(source, z_key), adapted)
        )
        shown = np.resize(target, shape[1:])[None]  # repeated where there are fewer than n
        rows = np.concatenate([shown, *np.stack([before, after], 1)])
        labels = ["target"] + ["source", "adapted"] * 3
        log.images(int(state.step), "samples", grid(rows, row_labels=labels))
        scores = measure(compared, adapted, space, state.memory, augment_key)
        return on_host(jax.device_get(scores))

    return observe


def leakage(
    space: Features, augment: Callable[[Array], Array], real: Array, fake: Array, *, draws: int = 8
) -> Metrics:
    """Whether generated images are augmented ones, by KID.

    Of features [m, d] of generated images, m at least 2, to the target images [k, h, w, c] as they
    are, `kid_to_targets`, and as the discriminator sees them, `kid_to_augmented`; and between these
    two, `kid_of_augmentation`. A generator of target images has 0 as the first of the three and the
    third as the second, a generator of augmented ones the other way round. The target images count
    as all there are: each is a class, of which there are `draws` augmented forms.
    """
    repeated = jnp.repeat(real, draws, 0)
    plain, augmented = (
        space(x).reshape(len(real), draws, -1) for x in (repeated, augment(repeated))
    )
    plain, augmented, fake = kid.scaled(plain, augmented, fake[None])
    return {
        "kid_to_targets": mixture_kid(plain, fake),
        "kid_to_augmented": mixture_kid(augmented, fake),
        "kid_of_augmentation": mixture_kid(plain, augmented),
    }


def observe_tasks(
    inner: tasks.Inner,
    space: Features,
    valid: Episode,
    test: Episode,
    key: Array,
    *,
    steps: int,
    show: Sequence[int],
    n: int = 32,
    m: int = 8,
) -> Observer:
    """For meta-learning: adaptation to held-out classes, those of `test` at the end only.

    Args:
      inner: the inner loop.
      space: the feature space of the panel's scores.
      valid, test: one episode per class, on a leading axis; 2 query images or more.
      steps: inner steps taken.
      show: the inner steps after which samples are shown, none beyond `steps` (ValueError).
      n: samples per class for the scores in pixels.
      m: how many of these there are for the panel's, whose cost grows with their square.

    The scores compare the adapted samples of all classes of `valid` with the query images: `kid`,
    `precision`, `recall`, `spread` and `copying_ratio`, see `panel_scores`; the floors are those of
    the support images, missing if there is a single one. In pixels, means over classes: `energy`,
    `energy_before`, the same without adaptation, `energy_floor`, and `separation`, the variance
    between the classes' mean images over the variance within them: near 0 when adaptation does not
    tell classes apart, far above `separation_real`, the same of the real images, when the samples
    of a class are all alike.
    """
    if not all(0 <= s <= steps for s in show):
        raise ValueError(f"show={tuple(show)}: there are only steps 0 to {steps} of adaptation")
    adapt = tasks.make_adapt(inner, steps=steps, history=True)
    stages = np.array(sorted({0, *show, steps}))

    def one(params: Pair, key: Array, episode: Episode) -> Array:
        adapt_key, z_key = jax.random.split(key)
        path, _ = adapt(params, adapt_key, episode.support)
        start, _ = tasks.separate(params)
        path = jax.tree.map(lambda a, after: jnp.concatenate([a[None], after]), start, path)
        chosen = jax.tree.map(lambda x: x[stages], path)
        return jax.lax.map(lambda p: gan.sample(inner.game, p, z_key, n), chosen)

    @sharding.map_shared
    def measure(shared: tuple[Pair, Array, Features], episode: Episode):
        (params, key, space), (support, query) = shared, (episode.support, episode.query)
        images = one(params, key, episode)
        scores = {
            "energy": pixel_energy(query, images[-1]),
            "energy_before": pixel_energy(query, images[0]),
        }
        if len(support) > 1:  # there is no distance to a single image
            scores["energy_floor"] = pixel_energy(query, support)
        real = jnp.concatenate([support, query])
        sets = {"separation": images[-1], "separation_real": real}
        embedded = tuple(map(space, (support, query, images[-1, :m])))
        return to_uint8(images[:, : len(support)]), scores, jax.tree.map(moments, sets), embedded

    @jax.jit
    def summarize(scores: Metrics, sets: Metrics, embedded: tuple[Array, Array, Array]) -> Metrics:
        support, query, fake = embedded
        separation = {
            name: means.var(0).sum() / within.mean() for name, (means, within) in sets.items()
        }
        floors = panel_scores(query, support) if support.shape[1] > 1 else {}
        found = with_floors(panel_scores(query, fake, support), floors)
        return {**jax.tree.map(jnp.mean, scores), **separation, **found}

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
        shown, *found = measure((gan.weights(state), key, space), episodes)
        shown, scores = jax.device_get((shown, summarize(*found)))
        every = max(1, len(shown) // 8)
        some = jax.tree.map(lambda x: x[::every][:8], episodes)
        log.images(int(state.step), split, picture(some, shown[::every][:8]))
        return on_host(scores)

    def observe(state: GANState, log: Logger, last: bool) -> dict[str, float]:
        scores = look("valid", valid, state, log)
        if last:
            held_out = look("test", test, state, log)
            scores |= {f"test_{name}": value for name, value in held_out.items()}
        return scores

    return observe
