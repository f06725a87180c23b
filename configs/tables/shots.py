"""How many images of a class it takes: a meta-trained GAN, adapted to fewer and to more of them.

python main.py --config=configs/tables/shots.py                        Omniglot, 3 seeds
python main.py --config="configs/tables/shots.py:glyphs,shots=(1,2),n=1"

The runs are main jobs: what they have learned serves any number of images.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs import base
from configs.tables.base import asked, evaluation, joined, table_config, training
from fsgan.tables.cells import Cell, Option

EXPLAIN = (
    "A meta-trained GAN, the main job's, adapts to each held-out class from so many of its images "
    "(shots), in as many steps; samples are compared with other images of the class."
)


def get_config(arg: str = ""):
    data, smoke, fields = asked(arg)
    config = table_config("shots", "How many images it takes", EXPLAIN, smoke)
    config.data = data or ("glyphs" if smoke else "omniglot",)
    config.meta = ""  # further words for configs/maml_gan.py
    config.columns = ("kid", "recognisability", "spread", "recall", "copying_ratio")
    config.m = 8 if smoke else 32
    config.classes = 8 if smoke else 150  # test classes, evenly spaced; 0: all
    # Reference images of a class. With 14 shots that is all of the 20 images that Omniglot has: as
    # many are a reference, as many the floor. Where a class has too few, it is left out of a row.
    config.n = 1 if smoke else 3
    config.shots = (1, 2) if smoke else (1, 2, 5, 10, 14)
    return base.assign(config, fields)


def plan(config: ConfigDict, workdir: Path) -> list[Cell]:
    cells = []
    for data in config.data:
        words = joined(f"maml_gan:{data}", config.meta)
        runs = [
            training(config, words, workdir / data / f"seed{seed}", seed=seed)
            for seed in range(config.seeds)
        ]
        for shots in config.shots:
            fields = {"shots": shots, "n": config.n, "classes": config.classes}
            test = (evaluation(config, run, "test", f"{shots}_shots", **fields) for run in runs)
            row = f"{shots} shot{'s' * (shots > 1)}"
            cells.append(Cell(data, row, data, {"": Option((), tuple(test))}))
    return cells
