"""Scores of generated images, one file each: `compute(real, fake, ...)` of features [n, d].

`compute` is pure and runs under jit and vmap. It returns a scalar, called like its file, or a dict
of scalars, each under a name of its own. Too few samples for a metric, or features of different
networks, are a ValueError; values that are not finite are found by `check_finite`, outside of jit.
"""

from fsgan.metrics._check import check_finite

__all__ = ["check_finite"]
