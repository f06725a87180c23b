"""Things found by name: one file per method, the file's name is the config's name."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any


def names(package: ModuleType) -> list[str]:
    """The plug-ins of a package: its public modules, sorted."""
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def unknown(kind: str, name: str, choices: Iterable[str]) -> ValueError:
    """The error for a wrong name: one line, the nearest right name first."""
    choices = sorted(choices)
    near = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return ValueError(f"unknown {kind} {name!r}{hint} (there are: {', '.join(choices)})")


def find(package: ModuleType, name: str) -> ModuleType:
    """The module `name` of a package; ValueError listing the right names if there is none."""
    if name not in names(package):
        raise unknown(package.__name__.rpartition(".")[2], name, names(package))
    return importlib.import_module(f"{package.__name__}.{name}")


def check_options(function: Callable, options: dict[str, Any], what: str) -> None:
    """Raise ValueError if `function` has no keyword parameter of one of these names."""
    parameters = inspect.signature(function).parameters.values()
    valid = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in valid:
            raise unknown(f"option of {what}", name, valid)


def defaults(function: Callable) -> dict[str, Any]:
    """A function's keyword options that have a default, with it: the fields of a config."""
    parameters = inspect.signature(function).parameters.values()
    empty = inspect.Parameter.empty
    return {
        p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not empty
    }
