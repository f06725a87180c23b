"""Names for the leaves of a pytree, and what differs between two trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def named(tree: Any) -> dict[str, Any]:
    """The leaves by name: {"g/block0/kernel": array}. Dicts, tuples and structs name alike."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def map_named(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """The tree with each leaf replaced by `function(name, leaf)`."""
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(map(function, names(tree), leaves))


def names(tree: Any) -> list[str]:
    """The names of the leaves, in the order of `jax.tree.leaves`."""
    return list(named(tree))


def mismatches(loaded: Any, expected: Any) -> list[str]:
    """One line for each leaf that is missing, too many, or of another shape or dtype.

    The leaves are arrays or anything else with `shape` and `dtype`. Containers may differ in type:
    what counts is the leaves' names. An empty list means that the two fit.
    """
    loaded, expected = named(loaded), named(expected)
    lines = []
    for name in sorted(loaded.keys() | expected.keys()):
        if name not in loaded:
            lines.append(f"{name}: not in the checkpoint, here {_text(expected[name])}")
        elif name not in expected:
            lines.append(f"{name}: checkpoint {_text(loaded[name])}, not here")
        else:
            pair = loaded[name], expected[name]
            if any(tuple(a.shape) != tuple(b.shape) or a.dtype != b.dtype for a, b in [pair]):
                shapes = len({a.dtype for a in pair}) == 1  # then the dtype says nothing
                there, here = (_text(leaf, dtype=not shapes) for leaf in pair)
                lines.append(f"{name}: checkpoint {there}, here {here}")
    return lines


def _text(leaf: Any, *, dtype: bool = True) -> str:
    shape = "[" + ",".join(map(str, leaf.shape)) + "]"
    return f"{leaf.dtype}{shape}" if dtype else shape
