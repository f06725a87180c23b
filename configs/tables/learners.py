"""Meta-learners, outer losses, inner subspaces and learned strategies at equal budgets.

python main.py --config=configs/tables/learners.py                   glyphs, 3 seeds
python main.py --config=configs/tables/learners.py:omniglot,steps=400
python main.py --config="configs/tables/learners.py:rows=('maml','reptile','schedule')"

Beside the baselines of the few-shot table. Every row takes the same number of outer steps on as
many tasks of as many inner steps, and is scored as there.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs import base
from configs.tables import few_shot
from fsgan import plugins
from fsgan.tables.cells import Cell

# Words for configs/maml_gan.py.
ROWS = {
    "maml": "maml",
    "maml first order": "maml,first_order",
    "maml second order": "maml,second_order",
    "fomaml": "fomaml",
    "reptile": "reptile",
    "reptile outer sgd": "reptile,outer.name=sgd,outer.lr=1.0,outer.b1=None,outer.b2=None",
    "meta_sgd": "meta_sgd",
    "maml_plus_plus": "maml_plus_plus",
    "dawson": "dawson",
    # Outer losses.
    "energy": "maml,outer_loss.name=distance",
    "mmd": "maml,outer_loss.name=distance,outer_loss.distance=mmd,outer_loss.features=random_conv",
    "adversarial and energy": "maml,outer_loss.name=mixed",
    # Inner subspaces; the outer loop moves everything in all of them.
    "anil": "anil",
    "stem and head": "anil,learner.g_head=stem|head",
    "scale and shift": "maml,adapt.g_subspace=scale_shift,adapt.d_subspace=scale_shift",
    "singular values": "maml,adapt.g_subspace=singular_values,adapt.d_subspace=singular_values",
    "lora": "maml,adapt.g_subspace=lora:4,adapt.d_subspace=lora:4",
    "kernel modulation": "maml,adapt.g_subspace=kernel_modulation,adapt.d_subspace=everything",
    # Meta-learned parts; the others stay as they were drawn.
    "generator alone": "maml,only=g",
    "discriminator alone": "maml,only=d",
    "latent mapper": "maml,nets.mapper=2",
    "latent mapper alone": "maml,nets.mapper=2,only=g/mapper",
    "latent mapper and discriminator": "maml,nets.mapper=2,only=g/mapper|d",
    # Learned strategies, inner and outer optimizers, averages.
    "schedule": "maml,adapt.learned=('schedule',)",
    "per_leaf": "maml,adapt.learned=('per_leaf',)",
    "per_leaf_and_step": "maml,adapt.learned=('per_leaf_and_step',)",
    "momentum": "maml,adapt.learned=('momentum',)",
    "penalty": "maml,adapt.learned=('penalty',)",
    "inner ftrl": "maml,inner.name=ftrl",
    "outer ftrl": "maml,outer.name=ftrl,outer.schedule=constant,outer.b1=None,outer.b2=None",
    "outer optimistic adam": "maml,outer.name=optimistic_adam_v2",
    "inner average in training": "maml,adapt.average=uniform",
    "no inner average": "maml,adapt.test_average=none",
    "full rates on held-out classes": "maml,adapt.test_d_rate=1.0",
    "outer lookahead": "maml,outer.lookahead=5",
    "without outer average": "maml,ema_decay=0.0",
    "random inner steps": "maml,adapt.fewest=4",
}
EXPLAIN = (
    f"{few_shot.EXPLAIN} Rows differ from `maml`, the main job's learner, in what they are named "
    "after; all take as many outer steps, tasks and inner steps."
)


def get_config(arg: str = ""):
    sources = {name: [name] for name in base.sources()}
    chosen, fields = base.words(arg, **sources, size=["smoke"])
    smoke = bool(chosen.pop("size", ""))
    config = few_shot.shared_config("learners", "Meta-learners", EXPLAIN, smoke)
    config.data = tuple(chosen.values()) or ("glyphs",)
    config.rows = ("reptile",) if smoke else tuple(ROWS)
    config.steps = 4 if smoke else 2_000  # outer steps of every row
    config = base.assign(config, fields)
    if "pretrain_steps" not in fields and not smoke:
        share = config.steps / 5_000  # of the images that few_shot.py counts for 5,000 steps
        config.pretrain_steps = max(100, round(share * config.pretrain_steps / 100) * 100)
    return config


def plan(config: ConfigDict, workdir: Path) -> list[Cell]:
    """The baselines first: gaps are closed from them. ValueError for unknown rows."""
    for row in config.rows:
        if row not in ROWS:
            raise plugins.unknown("row", row, ROWS)
    return [
        cell
        for data in config.data
        for cell in (
            *few_shot.baselines(config, data, workdir),
            *(
                few_shot.meta_cell(config, row, f"{ROWS[row]},steps={config.steps}", data, workdir)
                for row in config.rows
            ),
        )
    ]
