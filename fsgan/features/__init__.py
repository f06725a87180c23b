"""Feature spaces for metrics and losses: one file per space, found by its file name.

Each file has `load(image_shape, ...) -> Features`. `image_shape` is that of the images to come,
(height, width, channels) with 1 or 3 channels, so that a space that does not fit them is an error
before anything is computed. Weights are read from files and never downloaded, see `weights`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from fsgan import plugins
from fsgan.features._base import Features

__all__ = ["Features", "load", "names"]


def names() -> list[str]:
    """The feature spaces, sorted."""
    found = plugins.names(sys.modules[__name__])
    return [name for name in found if name not in ("convert", "weights")]


def load(name: str, image_shape: Sequence[int], **options: Any) -> Features:
    """The feature space of that name for images of that shape; `options` are the file's own.

    Raises ValueError for a wrong name, option or shape and for a damaged weight file,
    FileNotFoundError for a missing one, in one line that says what to do.
    """
    if name not in names():
        raise plugins.unknown("feature space", name, names())
    module = plugins.find(sys.modules[__name__], name)
    plugins.check_options(module.load, options, name)
    return module.load(image_shape, **options)
