"""Networks: ONE FILE PER ARCHITECTURE, with a `Generator` and a `Discriminator` (`layers.Net`).

A generator maps latents [n, latent] to images [n, h, w, c] in (-1, 1), a discriminator images to
logits [n]. Their blocks are called block0, block1, ... in the order of computation, the last layer
head, a generator's first one stem, so that a `Subspace` can choose among them by name. Options may
put a mapper before a generator and a place after it.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from fsgan import plugins
from fsgan.nets.layers import check_image_shape
from fsgan.types import Pair

__all__ = ["check_image_shape", "make", "names"]


def names() -> list[str]:
    """The architectures, sorted."""
    return [name for name in plugins.names(sys.modules[__name__]) if name != "layers"]


def make(
    name: str,
    image_shape: Sequence[int] = (28, 28, 1),
    *,
    g: dict[str, Any] | None = None,
    d: dict[str, Any] | None = None,
    **options: Any,
) -> Pair:
    """The generator and discriminator of an architecture, as linen modules.

    `options` are fields of both modules (width, activation, impl, ...), `g` and `d` those for one
    of them. ValueError for an unknown name, option or value, and where `check_image_shape` has one.
    """
    if name not in names():
        raise plugins.unknown("network", name, names())
    module = importlib.import_module(f"{__name__}.{name}")

    def build(kind: type, own: dict[str, Any]):
        reserved = ("image_shape", "parent", "name")
        fields = {f.name for f in dataclasses.fields(kind)} - {*reserved}
        for option in own:
            if option not in fields:
                raise plugins.unknown(f"option of {name}'s {kind.__name__}", option, fields)
        return kind(image_shape=tuple(image_shape), **own)

    return Pair(
        build(module.Generator, {**options, **(g or {})}),
        build(module.Discriminator, {**options, **(d or {})}),
    )
