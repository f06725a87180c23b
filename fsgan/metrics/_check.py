"""What every metric asks of its features."""

from __future__ import annotations

import jax
import numpy as np

from fsgan.types import Array


def check_sets(metric: str, smallest: int, **features: Array) -> None:
    """Raise ValueError unless all sets [n, d] have `smallest` samples or more and the same d.

    Looks at shapes alone, so that it works under jit.
    """
    if min(map(len, features.values())) < smallest:
        sizes = " and ".join(f"{len(x)} {name}" for name, x in features.items())
        raise ValueError(f"{metric} needs {smallest} or more samples of each, got {sizes}")
    if len({x.shape[1:] for x in features.values()}) > 1:
        shapes = " and ".join(f"{list(x.shape)} {name}" for name, x in features.items())
        raise ValueError(f"{metric} needs features of one network, got {shapes}")


def check_as_many(metric: str, real: Array, fake: Array) -> None:
    """Raise ValueError unless there are as many reals as fakes."""
    if len(real) != len(fake):
        raise ValueError(
            f"{metric} needs as many reals as fakes, got {len(real)} real and {len(fake)} fake: "
            "leave some out"
        )


def check_finite(metric: str, **features: Array) -> None:
    """Raise ValueError if a set [n, ...] has a row with NaN or infinity. Not for use under jit."""
    for name, x in features.items():
        x = np.asarray(jax.device_get(x))
        bad = int((~np.isfinite(x).all(tuple(range(1, x.ndim)))).sum())
        if bad:
            raise ValueError(
                f"{metric} cannot be computed: {bad} of {len(x)} rows of the {name} features are "
                "not finite; look for NaN in the images or in the feature network's weights"
            )
