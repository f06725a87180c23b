"""What the README says is so: its example runs in a foreign project, its tables are complete."""

import os
import re
import subprocess
import sys
from pathlib import Path

import fsgan.data
import fsgan.meta
import fsgan.metrics
import fsgan.transfer
from fsgan import features, learned, losses, nets, plugins

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def code_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_example_runs_in_a_foreign_project(tmp_path):
    """A script of 20 lines outside of the package that meta-trains under its own jit and scan."""
    (script,) = [block for block in code_blocks() if "import jax\n" in block]
    (tmp_path / "mine.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    result = subprocess.run(
        [sys.executable, "mine.py"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("(16, 28, 28, 1)")
    assert "nan" not in result.stdout


def test_the_shown_method_is_the_one_in_the_package():
    (shown,) = [block for block in code_blocks() if "def make(" in block]
    assert shown in (ROOT / "fsgan" / "transfer" / "freeze_d.py").read_text()


def test_every_name_is_in_the_tables():
    there = [
        *plugins.names(fsgan.transfer),
        *plugins.names(fsgan.meta),
        *(set(plugins.names(fsgan.data)) - {"tfds", "folder"}),
        *nets.names(),
        *plugins.names(fsgan.metrics),
        *features.names(),
        *learned.SETTINGS,
        *losses.ADVERSARIAL,
        *losses.PENALTIES,
    ]
    assert [name for name in there if f"`{name}`" not in README] == []


def test_every_file_it_names_is_there():
    for path in re.findall(r"`((?:fsgan|configs|tests)/[\w/.]*)", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(((?!http)[^)]*)\)", README):
        assert (ROOT / path).exists(), path
