"""The panel: from features of real and generated images to one set of scores with their errors.

    reals = Reals(support, real, spare)          # features [classes, images, d], all disjoint
    fakes = score(reals, fake, key)              # Scores of generated images [classes, m, d]
    floor = score(reals, None, key)              # real images in their place: as good as it gets
    fakes["kid"].value, fakes["kid"].error

Where there are no classes (samples of an unconditional generator), random groups of equal size take
their place, and what tells classes apart is left out.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fsgan.metrics import (
    classification_accuracy,
    copying,
    density_coverage,
    diversity,
    fid,
    kid,
    precision_recall,
    recognisability,
    two_sample,
    vendi,
)
from fsgan.types import Array, Metrics

GROUPS = 10  # of classes, for the jackknife
WAYS = 20  # of recognisability, at most
BLOCK = 128  # samples of a class whose distances are looked at together, at most
NEIGHBOURS = 6  # k + 1 of density and coverage: the smallest number of images that the panel takes


class About(NamedTuple):
    """How a score is to be read."""

    best: str  # lower, higher, or like the floor's
    all: bool = False  # of all m generated images of a class, not of n


SCORES = {  # in the order of tables
    "kid": About("lower", all=True),
    "fid": About("lower"),
    "precision": About("higher"),
    "recall": About("higher"),
    "density": About("higher"),
    "coverage": About("higher"),
    "two_sample": About("floor"),
    "two_sample_real": About("floor"),
    "two_sample_fake": About("floor"),
    "vendi": About("floor"),
    "class_kid": About("lower", all=True),
    "copying_ratio": About("floor", all=True),
    "spread": About("floor", all=True),
    "diversity": About("floor", all=True),
    "empty_clusters": About("floor", all=True),
    "assignment_entropy": About("floor", all=True),
    "recognisability": About("higher"),
    "classification_accuracy": About("higher"),
}

# No score sees every failure, and copies of the support have the KID of real images: a KID counts
# only where each of these is near the floor's, see `shortcomings`. docs/calibration.md shows why.
CHECKS = (
    "copying_ratio",  # low for copies of the support, high for blurred images and noise
    "spread",  # low for one image over and over
    "recall",  # low for missing classes, of whatever has classes or not
    "recognisability",  # low for images of another class
)
NEAR = 0.8  # of the floor's at least; of what should be like the floor's, 1 / NEAR at most


class Reals(NamedTuple):
    """Features of real images that share no image: all that a panel compares with."""

    support: Array  # [classes, shots, d], what the generator has seen
    real: Array  # [classes, n, d], the reference
    spare: Array  # [classes, n, d], which take the place of generated images for the floor


@dataclasses.dataclass(frozen=True)
class Score:
    """A score and what is needed for its error and for that of a difference of two scores."""

    value: float
    parts: tuple[float, ...]  # the score without one group of classes, for each group
    classes: int

    @property
    def error(self) -> float:
        """The standard error over classes, see `jackknife`; NaN where it was not asked for."""
        return jackknife(self.parts, self.classes) if self.parts else math.nan


def jackknife(parts, classes: int) -> float:
    """The standard error of a score of `classes` from its values without one group each.

    With s classes in each of the G groups it is sqrt((classes - s) / (s G) sum (part - mean)^2),
    which for means is the usual standard error (Shao and Wu 1989, eq. 2.4, with G of the subsets).
    The groups differ in their classes, their images and the generator's draws: all three are in it.
    It is rough for what jumps when few images change, as precision and recall of a few classes do.
    """
    parts, size = np.asarray(parts, np.float64), classes // len(parts)
    scale = (classes - size) / (size * len(parts))
    return float(np.sqrt(scale * np.square(parts - parts.mean()).sum()))


def kept_classes(classes: int) -> np.ndarray:
    """[groups, classes - size]: the classes that stay when a group is left out.

    Class i is in group i modulo `GROUPS`, or the number of classes where that is smaller. The last
    classes, if they do not share out evenly, stay always.
    """
    groups = min(GROUPS, classes)
    group = np.arange(classes) % groups
    group[classes // groups * groups :] = -1
    return np.stack([np.flatnonzero(group != g) for g in range(groups)])


def check(classes: int, n: int, m: int | None = None) -> None:
    """ValueError, naming the smallest number, for too few classes, or n real or m generated images
    of each.
    """
    if classes < 2:
        raise ValueError("the panel needs 2 classes or more for its errors, got 1")
    kept = kept_classes(classes).shape[1]
    if kept * n < NEIGHBOURS:
        raise ValueError(
            f"the panel needs {NEIGHBOURS} reference images without a group of classes, got "
            f"{kept} classes x {n}: ask for more classes, or for more images of each"
        )
    block = min(2 * n, BLOCK)
    if m is not None and m < block:
        raise ValueError(
            f"the panel needs {block} generated images of each class beside {n} real ones, got {m}"
        )


def score(
    reals: Reals, fake: Array | None, key: Array, *, classes: bool = True, errors: bool = True
) -> dict[str, Score]:
    """All scores of generated images [classes, m, d], or of `reals.spare` where `fake` is None.

    With n reference images of each class, m at least min(2n, 128). ValueError, naming the smallest
    number, for too few classes or images. Set `classes` to False where they are random groups;
    without `errors`, the scores have none, and a tenth of the time is enough.

    Pooled over classes, n images of each:
      fid, precision, recall, density, coverage, two_sample, two_sample_real, two_sample_fake, vendi
      kid: of all 2n real and m generated images, with each class an equal part of both
        distributions, see `kernel_means`
    Of each class, averaged over classes:
      class_kid: of 2n real and m generated images
      copying_ratio: distances to the nearest support image, their medians averaged over classes
        before they are divided; 1 for new images, 0 for copies
      diversity, empty_clusters, assignment_entropy: of clusters around the support images, in
        blocks of min(2n, 128) samples, the number of real images in the floor
      spread: the mean distance of two samples of a class, which does not depend on their number
    Across classes:
      recognisability: `WAYS`-way, fewer where there are fewer classes
      classification_accuracy: of a classifier trained on n generated images of each class

    The floor of kid and class_kid needs n = 2, and clusters need a block of more samples than there
    are support images: without, these scores are missing.
    """
    total, n = reals.real.shape[:2]
    check(total, n, None if fake is None else fake.shape[1])
    kept = kept_classes(total)
    found = _by_class(reals, fake)
    pooled = reals.spare if fake is None else fake[:, :n]
    ways = min(WAYS, kept.shape[1]) if classes else None
    chosen = [np.arange(total), *(kept if errors else ())]
    values, *parts = jax.device_get(
        [_scores(found, reals.real, pooled, each, key, ways) for each in chosen]
    )
    return {
        name: Score(float(values[name]), tuple(float(part[name]) for part in parts), total)
        for name in values
    }


def mean(scores: list[dict[str, Score]]) -> dict[str, Score]:
    """The mean of the same scores of several draws of the generator (seeds)."""

    def one(name: str) -> Score:
        parts = np.mean([s[name].parts for s in scores], 0)
        value = float(np.mean([s[name].value for s in scores]))
        return Score(value, tuple(map(float, parts)), scores[0][name].classes)

    return {name: one(name) for name in scores[0]}


def shortcomings(scores: Mapping[str, Score], floor: Mapping[str, Score]) -> list[str]:
    """The `CHECKS` that are not near the floor's, in their order: whoever wins by KID has none.

    Those that the panel does not compute, as recognisability without classes, are left out.
    """

    def near(name: str) -> bool:
        value, ideal = scores[name].value, floor[name].value
        return value >= NEAR * ideal and (SCORES[name].best == "higher" or NEAR * value <= ideal)

    return [name for name in CHECKS if name in scores and not near(name)]


def kernel_means(x: Array, y: Array, *, same: bool = False) -> Array:
    """KID's kernel averaged over the images of each two classes: [classes, classes].

    Of features [classes, n, d] and [classes, m, d]. With `same`, x and y are one set, and pairs of
    an image with itself are left out. The mean of within(real) + within(fake) - 2 between is the
    squared MMD of two mixtures that have the classes in equal parts, its diagonal that of each
    class: unbiased, as KID of the pooled images is not, whose samples are not independent because
    each class has the same number of them.
    """
    m, d = y.shape[1:]

    def row(of_class: Array) -> Array:
        values = kid.kernel(of_class, y.reshape(-1, d))
        return values.reshape(len(of_class), -1, m).sum((0, 2))

    total = jax.lax.map(row, x)
    if not same:
        return total / (x.shape[1] * m)
    itself = jax.lax.map(lambda c: jax.vmap(lambda v: kid.kernel(v[None], v[None]))(c).sum(), x)
    own = (jnp.diagonal(total) - itself) / (m * (m - 1))
    return jnp.fill_diagonal(total / m**2, own, inplace=False)


def _discrepancy(real: Array, fake: Array) -> Array:
    within = kernel_means(real, real, same=True) + kernel_means(fake, fake, same=True)
    between = kernel_means(real, fake)
    return within - between - between.T


def _of_class(support: Array, real: Array, fake: Array, alone: Array, block: int) -> Metrics:
    """Scores of one class; `alone` [blocks * block, d] are the samples whose variety is asked."""
    found = copying.compute(real, fake, support)

    def variety(samples: Array) -> Metrics:
        one_cluster = diversity.compute(support[:1], samples)
        found = {"spread": one_cluster["diversity"]}
        if block > len(support):
            clusters = diversity.compute(support, samples)
            names = ("diversity", "empty_clusters", "assignment_entropy")
            found |= {name: clusters[name] * 1.0 for name in names}
        return found

    blocks = jax.lax.map(variety, alone.reshape(-1, block, alone.shape[-1]))
    return {
        "fake_to_support": found["fake_to_support"],
        "real_to_support": found["real_to_support"],
        **jax.tree.map(jnp.mean, blocks),
    }


def _pooled(real: Array, fake: Array, key: Array, ways: int | None) -> Metrics:
    """Scores of n real and n generated images of each class, [classes, n, d] both."""
    classes, n, d = real.shape
    x, y = real.reshape(-1, d), fake.reshape(-1, d)
    scores = {
        "fid": fid.compute(x, y),
        **precision_recall.compute(x, y),
        **density_coverage.compute(x, y),
        **two_sample.compute(x, y),
        "vendi": vendi.score(y),
    }
    if ways is not None:
        labels = jnp.repeat(jnp.arange(classes), n)
        scores["recognisability"] = recognisability.compute(real, fake, key, ways=ways)
        scores["classification_accuracy"] = classification_accuracy.compute(
            x, y, labels, labels, classes=classes
        )
    return scores


@jax.jit
def _by_class(reals: Reals, fake: Array | None) -> Metrics:
    """What is measured of each class alone [classes], and between each two of them."""
    support, real, spare = reals
    held_out, block = jnp.concatenate([real, spare], 1), min(2 * real.shape[1], BLOCK)
    if fake is None:
        fake, alone, compared = spare, held_out, real
    else:
        alone, compared = fake, held_out
    alone = alone[:, : alone.shape[1] // block * block]
    found = jax.lax.map(lambda x: _of_class(*x, block), (support, real, fake, alone))
    if min(compared.shape[1], fake.shape[1]) >= 2:
        found["discrepancy"] = _discrepancy(compared, fake)
    return found


@functools.partial(jax.jit, static_argnames="ways")
def _scores(
    found: Metrics, real: Array, fake: Array, chosen: Array, key: Array, ways: int | None
) -> Metrics:
    """All scores of the classes `chosen`, from what `_by_class` found."""
    scores = _pooled(real[chosen], fake[chosen], key, ways)
    found = {name: x[chosen] for name, x in found.items()}
    if "discrepancy" in found:
        discrepancy = found.pop("discrepancy")[:, chosen]
        scores["kid"] = discrepancy.mean()
        scores["class_kid"] = jnp.diagonal(discrepancy).mean()
    means = jax.tree.map(jnp.mean, found)
    scores["copying_ratio"] = means.pop("fake_to_support") / means.pop("real_to_support")
    return {**scores, **means}
