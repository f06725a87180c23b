"""Who may import what: the library needs jax, flax and optax alone, and imports run one way."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "fsgan"
MODULES = sorted(
    ".".join(("fsgan", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)
# From the left to the right of the design: a module imports from its own layer or from lower ones.
LAYERS = [
    {"types", "plugins"},
    {"losses", "augment", "optim", "trees", "images"}
    | {"nets", "data", "episodes", "features", "metrics"},
    {"subspaces"},
    {"gan"},
    {"learned", "outer_losses", "panel"},
    {"tasks"},
    {"transfer", "meta"},
    {"sharding", "log", "checkpoint", "pictures", "watch"},
    {"evaluate"},
    {"loop", "build"},
    {"train"},
    {"subjects"},
    {"scoring", "compare", "drawing"},
    {"calibration", "tables"},
]
DRIVERS = {"train", "build", "loop", "evaluate", "checkpoint", "log"}
DRIVERS |= {"subjects", "scoring", "compare", "drawing", "calibration", "tables"}
LIBRARY = [name for name in MODULES if [*name.split("."), ""][1] not in DRIVERS]


def imported(module: str) -> set[str]:
    """The names that a module imports anywhere, dotted."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(module: str) -> int:
    name = module.split(".")[1]
    return next(i for i, names in enumerate(LAYERS) if name in names)


def test_imports_run_one_way():
    for module in MODULES:
        if module == "fsgan":
            continue
        for name in imported(module):
            own = name.split(".")
            if own[0] == "fsgan" and len(own) > 1:
                assert layer(name) <= layer(module), f"{module} imports {name}"


def test_only_one_place_knows_each_service():
    owners = {
        "orbax": {"checkpoint"},
        "tensorflow_datasets": {"data"},
        "tensorboardX": {"log"},
        "clu": {"log"},
        "ml_collections": {"train", "build", "subjects", "scoring", "drawing", "calibration"}
        | {"tables"},
        "absl": set(),
        "tensorflow": set(),
    }
    for module in MODULES:
        for name in imported(module):
            allowed = owners.get(name.split(".")[0])
            if allowed is not None:
                assert module.split(".")[1] in allowed, f"{module} imports {name}"


BLOCKED = """
import builtins, sys

absent = {"tensorflow", "tensorflow_datasets", "clu", "ml_collections", "tensorboardX",
          "matplotlib", "PIL"}
not_ours = {"absl", "orbax"}  # flax and jax may use them, fsgan may not
real = builtins.__import__

def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    top = name.split(".")[0]
    importer = (globals or {}).get("__name__", "")
    if top in absent or (top in not_ours and importer.split(".")[0] == "fsgan"):
        raise ImportError(f"{importer} imports {name}")
    return real(name, globals, locals, fromlist, level)

builtins.__import__ = guarded
import importlib
for module in sys.argv[1:]:
    importlib.import_module(module)
assert not absent & {name.split(".")[0] for name in sys.modules}
print("imported", len(sys.argv) - 1)
"""


def test_the_library_imports_with_jax_flax_and_optax_alone():
    assert {"fsgan", "fsgan.gan", "fsgan.meta.maml", "fsgan.data.glyphs"} <= set(LIBRARY)
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED, *LIBRARY],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
    )
    assert result.stdout == f"imported {len(LIBRARY)}\n", result.stderr
