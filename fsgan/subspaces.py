"""Where adaptation may move: `split(params) -> (trainable, frozen)` and its inverse `join`."""

from __future__ import annotations

import re
from collections.abc import Callable

from flax.traverse_util import flatten_dict, unflatten_dict

from fsgan.types import Params, Subspace, everything

__all__ = ["everything", "freeze", "named", "select"]


def select(trainable: Callable[[str], bool], what: str) -> Subspace:
    """The parameters whose name ("block0/conv/kernel") `trainable` accepts.

    Both parts are flat dicts {name: array}. `split` raises ValueError, listing the names, if the
    selection is empty; `what` names it in the message.
    """

    def split(params: Params):
        flat = flatten_dict(params, sep="/")
        chosen = {name: leaf for name, leaf in flat.items() if trainable(name)}
        if not chosen:
            raise ValueError(f"{what} leaves nothing to train among: {', '.join(flat)}")
        return chosen, {name: leaf for name, leaf in flat.items() if name not in chosen}

    return Subspace(split, lambda chosen, rest: unflatten_dict({**rest, **chosen}, sep="/"))


def named(pattern: str) -> Subspace:
    """The layers whose path matches a regular expression from its start: `named("head|block2")`."""
    matches = re.compile(f"({pattern})(/|$)").match
    return select(lambda name: bool(matches(name)), f"the pattern {pattern!r}")


def freeze(pattern: str) -> Subspace:
    """All layers but those that match: `freeze("block[01]")`. ValueError if none matches."""
    frozen = named(pattern)

    def split(params: Params):
        rest, trainable = frozen.split(params)
        if not trainable:
            raise ValueError(f"freezing {pattern!r} leaves nothing to train")
        return trainable, rest

    return Subspace(split, lambda trainable, rest: frozen.join(rest, trainable))
