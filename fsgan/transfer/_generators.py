"""Generators with something before them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from fsgan.types import Array, Game, Params


@dataclasses.dataclass(frozen=True)
class Mapped:
    """The linen module `net` on mapped latents. `change` is (params, z) -> z; where a method has
    not added its part to the parameters (`part`), they are the source's, and z stays as it is.
    """

    net: Any
    part: str
    change: Callable[[Params, Array], Array]

    def init_with_output(self, key: Array, z: Array):
        return self.net.init_with_output(key, z)

    def apply(self, variables: dict, z: Array, **options):
        params = variables["params"]
        return self.net.apply(
            variables, self.change(params, z) if self.part in params else z, **options
        )


def mapped(game: Game, part: str, change: Callable[[Params, Array], Array]) -> Game:
    """The game with a `Mapped` generator."""
    nets = game.nets._replace(g=Mapped(game.nets.g, part, change))
    return dataclasses.replace(game, nets=nets)
