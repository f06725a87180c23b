"""Means over targets and seeds, and intervals of anything made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fsgan import compare, panel


class Sample(NamedTuple):
    """Scores of one target that are measured on the same classes.

    `scores` is [k, seeds, 1 + groups]: k scores, each with its values without one group of classes,
    as `panel.Score` has them.
    """

    scores: np.ndarray
    classes: int


class Estimate(NamedTuple):
    """A value and its independent sources of error, each a variance and its degrees of freedom."""

    value: float
    sources: tuple[tuple[float, int], ...]

    @property
    def half(self) -> float:
        """Half of the 95 % interval; the degrees of freedom are those of Welch and Satterthwaite
        (Satterthwaite 1946, eq. 17).
        """
        variances, degrees = np.array(self.sources).T
        total = variances.sum()
        if total == 0 or not math.isfinite(total):
            return float(total)
        return compare.quantile(total**2 / (variances**2 / degrees).sum()) * float(total) ** 0.5


def estimate(f: Callable[..., float], samples: Sequence[Sample]) -> Estimate:
    """f of k scores, each the mean over targets and seeds, with the errors of all of them.

    One sample for each target. Each is a source of error twice: by its classes and the generator's
    draws (jackknife over groups of classes), and by the seeds of training where there are two or
    more (jackknife over seeds). The targets themselves count as given. Of the mean of one score,
    the latter is the usual variance over the number of seeds.
    """
    means = np.stack([sample.scores[:, :, 0].mean(1) for sample in samples])  # [targets, k]
    sources = []
    for i, (scores, classes) in enumerate(samples):

        def at(values: np.ndarray, i: int = i) -> float:
            """f where target i has these scores."""
            return f(*np.concatenate([means[:i], values[None], means[i + 1 :]]).mean(0))

        without_group = [at(values) for values in scores.mean(1)[:, 1:].T]
        sources.append((panel.jackknife(without_group, classes) ** 2, len(without_group) - 1))
        seeds = scores.shape[1]
        if seeds > 1:
            without_seed = [at(np.delete(scores, s, 1)[:, :, 0].mean(1)) for s in range(seeds)]
            sources.append((panel.jackknife(without_seed, seeds) ** 2, seeds - 1))
    return Estimate(float(f(*means.mean(0))), tuple(sources))


def gap_closed(baseline: float, score: float, floor: float) -> float:
    """The share of the way from the baseline to the floor, NaN where the baseline is there."""
    return (baseline - score) / (baseline - floor) if baseline != floor else math.nan
