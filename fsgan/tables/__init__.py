"""The phase `table`: a published table as one job of many runs.

A file of configs/tables/ has, beside its `get_config`, `plan(config, workdir)`: the cells of the
table, row by row, each with the runs that fill it. A run is what its command line says, so that
each can be made, looked at and repeated by hand. What is done is skipped and what was interrupted
goes on: the same command finishes a table at any time.
"""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path

from ml_collections import ConfigDict

from fsgan import loop
from fsgan.tables import report
from fsgan.tables.cells import Filled, fill
from fsgan.tables.runs import Failed, Runner, Stopped


def run(config: ConfigDict, workdir: Path) -> list[Filled] | None:
    """Fill the table's cells, and write results.json, table.md and curves after each row.

    None after a signal: what was trained is saved. Raises Failed, when all that can be done is
    done, naming the cells that could not be filled.
    """
    table = importlib.import_module(f"configs.tables.{config.table}")
    cells = table.plan(config, workdir)
    filled: list[Filled] = []
    with loop.Interrupt() as interrupt:
        runner = Runner(interrupt.anywhere, report.known(config.known, cells))
        try:
            for _, row in itertools.groupby(cells, lambda cell: (cell.part, cell.row)):
                filled += [fill(cell, runner, config.choose) for cell in row]
                report.write(workdir, config, cells, filled)
        except Stopped:
            print(f"{interrupt.signal or 'stopped'}: the same command goes on from there")
            return None
    print(f"\n{(workdir / 'table.md').read_text()}")
    failed = [f"{each.cell.row} ({each.failed})" for each in filled if each.failed]
    if failed:
        raise Failed(f"{len(failed)} of {len(cells)} cells failed: {'; '.join(failed)}")
    return filled
