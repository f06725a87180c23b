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
    return select(_matcher(pattern), f"the pattern {pattern!r}")


def freeze(*patterns: str) -> Subspace:
    """All layers but those that match one of the patterns; ValueError if one matches nothing."""
    matchers = {pattern: _matcher(pattern) for pattern in patterns}
    rest = select(
        lambda name: not any(match(name) for match in matchers.values()), f"freezing {patterns}"
    )

    def split(params: Params):
        names = flatten_dict(params, sep="/")
        for pattern, match in matchers.items():
            if not any(map(match, names)):
                raise ValueError(f"no layer {pattern!r} to freeze among: {', '.join(names)}")
        return rest.split(params)

    return Subspace(split, rest.join)


def _matcher(pattern: str) -> Callable[[str], bool]:
    match = re.compile(f"({pattern})(/|$)").match
    return lambda name: bool(match(name))
