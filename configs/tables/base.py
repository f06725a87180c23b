"""The fields that all tables share, and the evaluations that they are made of."""

from pathlib import Path

from ml_collections import ConfigDict

from configs import base
from fsgan.tables.runs import Run


def asked(arg: str) -> tuple[tuple[str, ...], bool, dict[str, str]]:
    """The data sources, whether `smoke`, and the fields among the words after the colon."""
    sources = {name: [name] for name in base.sources()}  # any number of them
    chosen, fields = base.words(arg, **sources, size=["smoke"])
    smoke = bool(chosen.pop("size", ""))
    return tuple(chosen.values()), smoke, fields


def table_config(table: str, title: str, explain: str, smoke: bool) -> ConfigDict:
    """What the phase `table` reads."""
    config = ConfigDict()
    config.phase = "table"
    config.table = table  # a file of configs/tables
    config.name = f"tables/{base.run_name(table, {'size': 'smoke'} if smoke else {})}"
    config.title = title
    config.explain = explain
    config.smoke = smoke  # everything as small as it runs
    config.seeds = 2 if smoke else 3
    config.choose = "kid"  # options are chosen by it on validation data, and gaps measured in it
    config.baseline = ""  # the row that gaps are closed from
    config.columns = ()  # scores in table.md; all of them are in results.json
    config.curves = ()  # scores that are drawn over the options
    config.over = ""  # what the options are numbers of, where they are numbers
    config.features = "pixels" if smoke else "domain"
    config.m = 8 if smoke else 128  # generated images of a class
    # results.json files of this table, made elsewhere: what was evaluated there is not done again.
    config.known = ()
    return config


def evaluation(config: ConfigDict, run: Run, split: str, folder: str, **fields) -> Run:
    """The evaluation of a run, in a folder of it."""
    fields = {"run": run.workdir, "features": config.features, "m": config.m, **fields}
    return Run(words("evaluate", split, config.smoke, **fields), run.workdir / folder, (run,))


def training(
    config: ConfigDict, what: str, workdir: Path, needs: tuple[Run, ...] = (), **fields
) -> Run:
    """A training run of FILE:WORDS."""
    return Run(words(*what.split(":", 1), config.smoke, **fields), workdir, needs)


def words(file: str, chosen: str, smoke: bool, **fields) -> str:
    """FILE:WORDS with fields; later words win over earlier ones."""
    given = [f"{name}={value}" for name, value in fields.items()]
    return f"{file}:{joined('smoke' if smoke else '', chosen, *given)}"


def joined(*given: str) -> str:
    """Words with commas between them, without the empty ones."""
    return ",".join(filter(None, given))
