"""Meta-learners, outer losses, inner subspaces and learned strategies at equal budgets.

python main.py --config=configs/tables/learners.py                   glyphs, 3 seeds
python main.py --config=configs/tables/learners.py:omniglot,steps=2000
python main.py --config="configs/tables/learners.py:rows=('maml','reptile','schedule')"

Beside the baselines of the few-shot table. Every row takes the same number of outer steps on as
many tasks of as many inner steps, and is scored as there. What follows a query loss learns nothing
from scratch, and far fewer steps of it suffice: those rows take their last steps from a common
warm start, by Reptile.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs import base
from configs.tables import few_shot
from configs.tables.base import asked, joined
from fsgan import plugins
from fsgan.tables.cells import Cell

# Words for configs/maml_gan.py, of all steps.
WHOLE = {
    "maml": "maml",
    "reptile": "reptile",
    "reptile outer sgd": "reptile,outer.name=sgd,outer.lr=1.0,outer.b1=None,outer.b2=None",
    "fomaml from scratch": "fomaml,learner.warm_up_steps=0",
    "dawson from scratch": "dawson",
    # Meta-learned parts; the others stay as they were drawn.
    "generator alone": "reptile,only=g",
    "discriminator alone": "reptile,only=d",
    "latent mapper": "reptile,nets.mapper=2",
    "latent mapper alone": "reptile,nets.mapper=2,only=g/mapper",
    "latent mapper and discriminator": "reptile,nets.mapper=2,only=g/mapper|d",
    # Optimizers and averages.
    "inner ftrl": "reptile,inner.name=ftrl",
    "outer ftrl": "reptile,outer.name=ftrl,outer.schedule=constant,outer.b1=None,outer.b2=None",
    "outer optimistic adam": "reptile,outer.name=optimistic_adam_v2",
    "outer lookahead": "reptile,outer.lookahead=5",
    "without outer average": "reptile,ema_decay=0.0",
    "inner average in training": "reptile,adapt.average=uniform",
    "no inner average": "reptile,adapt.test_average=none",
    "full rates on held-out classes": "reptile,adapt.test_d_rate=1.0",
    "random inner steps": "reptile,adapt.fewest=4",
}
# Of the last steps, after Reptile's, at once in exact second order.
EXACT = "learner.warm_up_steps=0,learner.first_order_steps=0"
ENERGY = f"maml,{EXACT},outer_loss.name=distance"
# The settings are logarithms of factors and the like: they have a longer way to go than weights.
SETTINGS = "outer.layers={'g/inner':30.0,'d/inner':30.0}"
WARM = {
    "second order": f"maml,{EXACT}",
    "fomaml": "fomaml,learner.warm_up_steps=0",
    "dawson": "dawson",
    "meta_sgd": f"meta_sgd,{EXACT},{SETTINGS}",
    "maml_plus_plus": f"maml_plus_plus,{EXACT},{SETTINGS}",
    # Outer losses.
    "energy": ENERGY,
    "mmd": f"{ENERGY},outer_loss.distance=mmd,outer_loss.features=random_conv",
    "mmd in domain features": f"{ENERGY},outer_loss.distance=mmd,outer_loss.features=domain",
    "adversarial and energy": f"maml,{EXACT},outer_loss.name=mixed",
    # Inner subspaces; the outer loop moves everything in all of them.
    "anil": f"anil,{EXACT}",
    "stem and head": f"anil,{EXACT},learner.g_head=stem|head",
    "scale and shift": f"maml,{EXACT},adapt.g_subspace=scale_shift,adapt.d_subspace=scale_shift",
    "singular values": (
        f"maml,{EXACT},adapt.g_subspace=singular_values,adapt.d_subspace=singular_values"
    ),
    "lora": f"maml,{EXACT},adapt.g_subspace=lora:4,adapt.d_subspace=lora:4",
    "kernel modulation": f"maml,{EXACT},adapt.g_subspace=kernel_modulation",
    # Learned strategies.
    "schedule": f"maml,{EXACT},adapt.learned=('schedule',),{SETTINGS}",
    "per_leaf": f"maml,{EXACT},adapt.learned=('per_leaf',),{SETTINGS}",
    "per_leaf_and_step": f"maml,{EXACT},adapt.learned=('per_leaf_and_step',),{SETTINGS}",
    "momentum": f"maml,{EXACT},adapt.learned=('momentum',),{SETTINGS}",
    "penalty": f"maml,{EXACT},adapt.learned=('penalty',),outer.layers={{'d/inner':30.0}}",
}
ROWS = {**WHOLE, **WARM}
# In the main job on Omniglot Reptile's steps see ever new images of a class, by IMLE, too, and its
# generator can move what it has drawn. Here all rows, which are compared with each other, have one
# generator, and steps on the same five, at the rates that suit that.
FIVE = (
    "finetune,train_shots=None,latent=64,inner.lr=0.05,truncation=0.25,nets.place=0.0,"
    "inner.layers={'g/stem':20.0},adapt.steps=8,outer.lr=0.002"
)
OF_REPTILE = {"omniglot": FIVE}


def get_config(arg: str = ""):
    data, smoke, fields = asked(arg)
    config = few_shot.shared_config("learners", "Meta-learners", "", smoke)
    config.data = data or ("glyphs",)
    config.rows = ("reptile", "energy") if smoke else tuple(ROWS)
    if not smoke:
        config.classes = 112  # all of the glyphs' test classes, as many of Omniglot's 659
    config.steps = 4 if smoke else 1_000  # outer steps of every row
    config.own_steps = 2 if smoke else 150  # the last of them, where the others are a warm start
    # Of those: ten times as much, after Reptile's, undoes what it learned (validation classes).
    config.own_lr = 1e-4
    config = base.assign(config, fields)
    config.explain = (
        f"{few_shot.EXPLAIN} All rows take {config.steps:,} outer steps of as many tasks and inner "
        f"steps. `{'`, `'.join(WHOLE)}` take all of them by themselves; the others take the last "
        f"{config.own_steps} by exact second order (`fomaml`, `dawson`: first order), from a warm "
        "start by Reptile. `maml` goes from Reptile's direction to first order and to exact second "
        "order; rows differ from it, from `reptile` or from `second order` in what they are named "
        "after. Inner steps update the discriminator once, in the main job twice, and those on "
        "held-out classes have each image once, in the main job several times. In training all "
        "steps of a task are on the same images, in the main job on Omniglot each on others of the "
        "class, by IMLE, too, and its generator can move what it has drawn."
    )
    if "pretrain_steps" not in fields and not smoke:
        # 2 tasks x (8 steps of 5 images + 3 queries) are 86 images; exact steps count more.
        batches_of_64 = 1.46 * config.steps
        config.pretrain_steps = max(100, round(batches_of_64 / 100) * 100)
    return config


def plan(config: ConfigDict, workdir: Path) -> list[Cell]:
    """The baselines first: gaps are closed from them. ValueError for unknown rows, and where
    `own_steps` leave nothing for the warm start.
    """
    # The table's own evaluation comes after each run: its own one, of fewer classes, is soon done.
    shared = "d_steps=1,eval_classes=8,adapt.test_repeat=1"

    def cell(row: str, data: str) -> Cell:
        five = OF_REPTILE.get(data, "")
        if row in WHOLE:
            common = five if WHOLE[row].startswith("reptile") else ""
            words = joined(common, f"{WHOLE[row]},steps={config.steps},{shared}")
            return few_shot.meta_cell(config, row, words, data, workdir)
        start = joined(five, f"reptile,steps={config.steps - config.own_steps},{shared}")
        words = f"{WARM[row]},steps={config.own_steps},outer.lr={config.own_lr},{shared}"
        return few_shot.meta_cell(config, row, words, data, workdir, start)

    for row in config.rows:
        if row not in ROWS:
            raise plugins.unknown("row", row, ROWS)
    if not 0 < config.own_steps < config.steps:
        raise ValueError(f"own_steps={config.own_steps} must be 1 to steps - 1={config.steps - 1}")
    return [
        made
        for data in config.data
        for made in (
            *few_shot.baselines(config, data, workdir),
            *(cell(row, data) for row in config.rows),
        )
    ]
