"""Transfer methods on pairs of a source and its targets, 10 images each.

python main.py --config=configs/tables/transfer.py                       all methods, 3 seeds
python main.py --config=configs/tables/transfer.py:ewc,cdc,mnist_digits  these methods, this pair
python main.py --config=configs/tables/transfer.py --config.seeds=5 --config.shots=100
python main.py --config=configs/tables/transfer.py:every                 each switch alone, too
python main.py --config=configs/tables/transfer.py --config.methods="('cdc','cdc+ada+lecam')"

Each pair has targets to test on and others to validate on. A method runs to the last of `stops` on
the validation target, where the stop with the smallest KID is chosen and the curves are drawn; then
it is trained anew on the test target, just as long. `finetune` always takes part: gaps are closed
from it, with its own best stop.
"""

from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

import fsgan.transfer
from configs import base
from configs.tables.base import evaluation, joined, table_config, training
from fsgan import plugins
from fsgan.tables.cells import Cell, Option
from fsgan.tables.runs import Run


class Target(NamedTuple):
    """Words for configs/pretrain.py, and for the data of configs/transfer.py."""

    source: str
    data: str
    split: str


def digit(n: int, split: str) -> Target:
    return Target(f"mnist,data.exclude={n}", f"mnist,data.classes={n}", split)


def of(source: str, data: str, split: str, *classes: str) -> list[Target]:
    return [Target(source, f"{data},data.classes={name}", split) for name in classes]


# Test targets, each with the validation target that decides for it.
FASHION = of("mnist", "fashion_mnist", "valid", "Bag")[0]
ALPHABET = of("omniglot", "omniglot", "valid", "Greek")[0]
SCRIPT = of("glyphs,data.classes=Latin", "glyphs", "valid", "Lao")[0]
PAIRS: dict[str, list[tuple[Target, Target]]] = {
    # Characters of an alphabet that was held out; ten images are ten of them.
    "omniglot_alphabets": [
        (target, ALPHABET)
        for target in of("omniglot", "omniglot", "test", "Angelic", "Gurmukhi", "Tengwar")
    ],
    "mnist_fashion": [
        (target, FASHION)
        for target in of("mnist", "fashion_mnist", "test", "T-shirt", "Trouser", "Sneaker")
    ],
    # Each digit from all others. The stop is chosen on another digit, which its own source has
    # never seen: 9, and 8 for 9.
    "mnist_digits": [(digit(n, "test"), digit(8 if n == 9 else 9, "valid")) for n in range(10)],
    "glyphs_scripts": [
        (target, SCRIPT)
        for target in of("glyphs,data.classes=Latin", "glyphs", "test", "Armenian", "Georgian")
    ],
}
# Rows are methods, with switches after a plus: by default one for every method, and these.
SWITCHED = ("finetune+ada", "freeze_d+ada", "rssa+ada")
SWITCHES = ("ada", "consistency", "diff_augment", "imle", "lecam", "mode_seeking")
# What begins late by its own default begins earlier, within the stops. A miner as fast as the
# generator collapses. RICK's quantile is the released one for distant domains.
FITTED = {
    "minegan": "method.mine_steps=200,optimizer.layers={'g/miner':0.1}",
    "rick": "method.warm_up=50,method.quantile=0.85",
}
EXPLAIN = (
    "Each method adapts the pretrained GAN to a few images of the target. The stop is chosen on a "
    "validation target and applied unchanged (column chosen). gap closed: the share of the way in "
    "KID from `finetune` at its own best stop to real images."
)


def get_config(arg: str = ""):
    methods = plugins.names(fsgan.transfer)
    single = {name: [name] for name in (*methods, *PAIRS)}
    chosen, fields = base.words(arg, **single, size=["smoke"], methods=["every"])
    if "data" in chosen:
        raise ValueError(f"{chosen['data']!r} has no test images: use configs/transfer.py")
    smoke = bool(chosen.pop("size", ""))
    config = table_config("transfer", "Transfer", EXPLAIN, smoke)
    config.pairs = tuple(name for name in chosen if name in PAIRS)
    config.pairs = config.pairs or (("glyphs_scripts",) if smoke else tuple(PAIRS))
    named = tuple(name for name in chosen if name in methods)
    every = "methods" in chosen
    usual = (*SWITCHED, *(name for name in methods if every or name not in SWITCHES))
    config.methods = named or (SWITCHED[:1] if smoke and not every else usual)
    config.shots = (10,)
    config.baseline = "finetune"
    config.columns = ("kid", "recall", "coverage", "diversity", "copying_ratio")
    config.curves, config.over = ("kid", "recall", "diversity", "copying_ratio"), "steps"
    config.stops = (2, 4) if smoke else (50, 100, 200, 400, 800)  # multiples of the first
    config.pretrain = "" if smoke else "steps=3000,observe_every=1000"  # of each source
    config.transfer = ""  # further words for configs/transfer.py, such as d_steps=2
    return base.assign(config, fields)


def plan(config: ConfigDict, workdir: Path) -> list[Cell]:
    """ValueError for unknown pairs, or stops that are no multiples of the first."""
    if any(stop % config.stops[0] for stop in config.stops):
        raise ValueError(f"stops={config.stops} must be multiples of the first, {config.stops[0]}")
    for name in config.pairs:
        if name not in PAIRS:
            raise plugins.unknown("pair", name, PAIRS)
    rows = tuple(dict.fromkeys((config.baseline, *config.methods)))
    return [
        cell(config, workdir, f"{pair}, {shots} shots", row, shots, test, valid)
        for pair in config.pairs
        for shots in config.shots
        for row in rows
        for test, valid in PAIRS[pair]
    ]


def cell(
    config: ConfigDict,
    workdir: Path,
    part: str,
    row: str,
    shots: int,
    test: Target,
    valid: Target,
) -> Cell:
    """A method, with its switches, on one target, with an option for each stop."""
    method, *switches = row.split("+")

    def run(target: Target, steps: int, seed: int) -> Run:
        source = training(
            config,
            joined("pretrain:" + target.source, config.pretrain),
            workdir / "sources" / folder(target.source),
        )
        on_top = f"switches={tuple(switches)}".replace(" ", "") if switches else ""
        what = joined(
            f"transfer:{method},{target.data}", FITTED.get(method, ""), on_top, config.transfer
        )
        return training(
            config,
            what,
            workdir
            / f"{folder(target.data)}_{target.split}"
            / f"{shots}_shots"
            / row
            / f"steps{steps}_seed{seed}",
            (source,),
            init_from=source.workdir,
            split=target.split,
            shots=shots,
            seed=seed,
            steps=steps,
            report_every=config.stops[0],
            save_every=config.stops[0],
            observe_every=steps,
            keep=steps // config.stops[0],
        )

    def score(transfer: Run, step: int) -> Run:
        return evaluation(config, transfer, "", f"evaluate_{step}", step=step)

    seeds, last = range(config.seeds), max(config.stops)
    options = {
        str(stop): Option(
            tuple(score(run(valid, last, seed), stop) for seed in seeds),
            tuple(score(run(test, stop, seed), stop) for seed in seeds),
        )
        for stop in config.stops
    }
    return Cell(part, row, test.data, options)


def folder(target: str) -> str:
    """A target's words as the name of a folder."""
    return base.run_name("", {"": target}).strip("_")
