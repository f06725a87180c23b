"""Nearest-neighbour copying ratio: are generated images nearer to the support than real ones?"""

from __future__ import annotations

import jax.numpy as jnp

from fsgan.metrics._check import check_sets
from fsgan.metrics._distances import nearest
from fsgan.types import Array, Metrics


def compute(real: Array, fake: Array, support: Array) -> Metrics:
    """Distances to the nearest support image [k, d], of fakes [m, d] and of held-out reals [n, d].

    Returns the medians "fake_to_support" and "real_to_support", and the first over the second as
    "copying_ratio": 1 if the fakes are as new as real images of the class, far below 1 if they
    copy the support. A high ratio is no praise: noise is far from everything. `real` must be of the
    class of the support and share no image with it. One image or more of each.
    """
    check_sets("the copying ratio", 1, real=real, fake=fake, support=support)
    fake_to, real_to = (jnp.median(nearest(x, support)) for x in (fake, real))
    return {
        "copying_ratio": fake_to / real_to,
        "fake_to_support": fake_to,
        "real_to_support": real_to,
    }
