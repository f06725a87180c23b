"""Subspaces that are a choice among the parameters as they are."""

from __future__ import annotations

import re
from collections.abc import Callable

from flax.traverse_util import flatten_dict, unflatten_dict

from fsgan.types import Params, Subspace

nothing = Subspace(split=lambda params: ({}, params), join=lambda trainable, frozen: frozen)


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
    return select(matcher(pattern), f"the pattern {pattern!r}")


def freeze(*patterns: str) -> Subspace:
    """All layers but those that match one of the patterns; ValueError if one matches nothing."""
    matchers = {pattern: matcher(pattern) for pattern in patterns}
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


def freeze_blocks(*, first: int = 0, last: int = 0) -> Subspace:
    """All layers but the first and the last so many blocks, in the order of computation.

    ValueError if a network has fewer blocks than that.
    """

    def split(params: Params):
        total = sum(bool(re.fullmatch(r"block\d+", name)) for name in params)
        if first + last > total:
            raise ValueError(f"{first + last} blocks to freeze, but there are {total}")
        chosen = [*range(first), *range(total - last, total)]
        return freeze(*(f"block{i}" for i in chosen)).split(params)

    return Subspace(split, freeze().join)


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a name begins with whole path parts that match the regular expression."""
    match = re.compile(f"({pattern})(/|$)").match
    return lambda name: bool(match(name))


head = named("head")
