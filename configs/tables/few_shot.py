"""The main table: adaptation to held-out classes from 5 images in 10 steps.

python main.py --config=configs/tables/few_shot.py                  glyphs and Omniglot, 3 seeds
python main.py --config=configs/tables/few_shot.py:omniglot         one of them, any source
python main.py --config=configs/tables/few_shot.py --config.seeds=5

A meta-trained GAN beside one that was pretrained on the same classes and is fine-tuned in as many
steps, and beside one that was not trained at all. The two latter have the inner optimizer, averaged
or not, and samples truncated or not, that is best in validation KID among `rates`: the meta-trained
one has learned for its own.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs import base
from configs.tables.base import asked, evaluation, joined, table_config, training
from fsgan.tables.cells import Cell, Option
from fsgan.tables.runs import Run

EXPLAIN = (
    "Each GAN adapts to each held-out class from a few of its images; samples are compared with "
    "other images of the class. gap closed: the share of the way in KID from the fine-tuned GAN "
    "to real images. The inner optimizer of `finetune` and `scratch`, whether its iterates are "
    "averaged and whether samples are truncated, is chosen on validation classes (column chosen)."
)

MAIN = (
    "On Omniglot the main job's generator can move and scale what it has drawn (nets.place), each "
    "image draws the nearest sample towards it (adapt.method=imle), and for that there are fewer "
    "latents (latent); `finetune` and `scratch` do without these."
)


def get_config(arg: str = ""):
    data, smoke, fields = asked(arg)
    config = shared_config("few_shot", "Few-shot generation", f"{EXPLAIN} {MAIN}", smoke)
    config.data = data or (("glyphs",) if smoke else ("glyphs", "omniglot"))
    if not smoke:  # all three as in the main job
        config.rates = (*config.rates, f"{config.rates[-1]},average=ema,repeat=4")
    config.meta = ""  # further words for configs/maml_gan.py
    return base.assign(config, fields)


def shared_config(table: str, title: str, explain: str, smoke: bool) -> ConfigDict:
    """The fields of tables of few-shot adaptation."""
    config = table_config(table, title, explain, smoke)
    config.baseline = "finetune"
    config.columns = ("kid", "recognisability", "spread", "diversity", "recall", "copying_ratio")
    config.m = 8 if smoke else 32
    config.shots = 5
    config.adapt_steps = 2 if smoke else 10
    config.classes = 8 if smoke else 0  # test classes, evenly spaced; 0: all
    config.valid_classes = 8 if smoke else 30  # of the choice of the inner optimizer
    # Reference images of a class, where it has as many; without, what the smallest class allows.
    # Glyphs have classes of 8 images: 5 shots leave too few for KID's floor, so the larger ones
    # alone. Of Omniglot's 659 classes 7 images each would take minutes for every evaluation.
    config.n = ConfigDict({"glyphs": 2 if smoke else 3, "omniglot": 3})
    # In the main job the generator sees 3,900 x 2 tasks x 8 steps of 5 images = 312,000 images (on
    # Omniglot 2,600 x 2 x 12 steps), the discriminator twice as many: 468,000 on average, here in
    # batches of 64.
    config.pretrain_steps = 4 if smoke else 7_300
    # The same networks as the main job's (on Omniglot but for the generator's place and number of
    # latents), with the loss and optimizer that suit pretraining.
    config.pretrain = "" if smoke else "nets.affine=value,observe_every=1000,save_every=500"
    config.rates = (
        ("inner.lr=0.01,inner.d_lr=0.001", "inner.lr=0.1,inner.d_lr=0.01")
        if smoke
        else (
            "inner.lr=0.01,inner.d_lr=0.001",
            "inner.lr=0.1,inner.d_lr=0.01",
            "inner.name=adam,inner.lr=0.005,inner.d_lr=0.001,inner.b1=0.5",
            # As in the main job, whose samples are those of averaged iterates, and truncated.
            "inner.name=adam,inner.lr=0.005,inner.d_lr=0.001,inner.b1=0.5,average=ema",
            "inner.name=adam,inner.lr=0.005,inner.d_lr=0.001,inner.b1=0.5,truncation=0.3",
        )
    )
    return config


def plan(config: ConfigDict, workdir: Path) -> list[Cell]:
    cells = []
    for data in config.data:
        cells.append(meta_cell(config, "meta", config.meta, data, workdir))
        cells += baselines(config, data, workdir)
    return cells


def meta_cell(
    config: ConfigDict, row: str, what: str, data: str, workdir: Path, start: str = ""
) -> Cell:
    """A meta-trained GAN: words for configs/maml_gan.py; with `start`, words for the run that it
    begins from, which rows share.
    """
    runs = []
    for seed in range(config.seeds):
        fields, needs = {"shots": config.shots, "seed": seed}, ()
        if start:
            place = workdir / data / "start" / f"seed{seed}"
            needs = (training(config, joined(f"maml_gan:{data}", start), place, **fields),)
            fields["init_from"] = place
        place = workdir / data / base.run_name(row, {}) / f"seed{seed}"
        words = joined(f"maml_gan:{data}", what)
        runs.append(training(config, words, place, needs, **fields))
    test = tuple(few_shot(config, run, data, "test", "test") for run in runs)
    return Cell(data, row, data, {"": Option((), test)})


def baselines(config: ConfigDict, data: str, workdir: Path) -> list[Cell]:
    """One GAN, pretrained on the classes that the others are meta-trained on, and untrained."""
    steps = f"steps={config.pretrain_steps}"
    what = joined(f"pretrain:{data}", config.pretrain, steps)
    runs = [
        training(config, what, workdir / data / "pretrain" / f"seed{seed}", seed=seed)
        for seed in range(config.seeds)
    ]
    cells = []
    for row, fresh in (("finetune", False), ("scratch", True)):

        def each(split: str, i: int, rate: str, row=row, fresh=fresh) -> tuple[Run, ...]:
            split, folder = f"{split},{rate}", f"{row}_{split}_{i}"
            return tuple(few_shot(config, run, data, split, folder, fresh=fresh) for run in runs)

        options = {
            rate: Option(each("valid", i, rate), each("test", i, rate))
            for i, rate in enumerate(config.rates)
        }
        cells.append(Cell(data, row, data, options))
    return cells


def few_shot(config: ConfigDict, run: Run, data: str, split: str, folder: str, **fields) -> Run:
    """An evaluation on held-out classes. Validation takes what the smallest class allows."""
    test = split.startswith("test")
    fields |= {"shots": config.shots, "adapt_steps": config.adapt_steps}
    fields["classes"] = config.classes if test else config.valid_classes
    if test and config.n.get(data):
        fields["n"] = config.n[data]
    return evaluation(config, run, split, folder, **fields)
