"""Adapt a pretrained GAN to a few target images; networks and image size are the source's.

python main.py --config=configs/pretrain.py:mnist,data.exclude=9 --workdir=runs/digits
python main.py --config=configs/transfer.py:mnist,data.classes=9 --config.init_from=runs/digits
python main.py --config=configs/transfer.py:freeze_d,folder:PATH --config.init_from=runs/digits
python main.py --config="configs/transfer.py:cdc,mnist,switches=('ada',)" --config.init_from=...
"""

import importlib

import fsgan.transfer
from configs import base
from fsgan import plugins


def get_config(arg: str = ""):
    chosen, fields = base.words(
        arg, method=plugins.names(fsgan.transfer), data=base.sources(), size=["smoke"]
    )
    config = base.base_config("transfer", base.run_name("transfer", chosen))
    base.like_source(config)
    config.data.name = chosen.get("data")
    method = importlib.import_module(f"fsgan.transfer.{chosen.get('method', 'finetune')}")
    config.method = base.plugin(method)
    config.switches = ()  # methods on top of it: ("diff_augment", "lecam")

    config.split = "test"  # the target images come from this split of the data
    config.shots = 10  # how many of them, drawn by the seed; 0: all
    config.batch = 10
    config.penalty.r1 = 0.1
    lr = getattr(method, "LEARNING_RATE", 1e-3)
    config.optimizer = base.optimizer("adam", lr, b1=0.5, b2=0.99)
    config.ema_decay = 0.98  # few steps want a short memory
    config.steps = 500
    config.observe_every = 100
    config.save_every = 100
    if chosen.get("size") == "smoke":
        config.steps, config.report_every, config.observe_every, config.save_every = 4, 2, 4, 2
        config.batch = 4
    return base.assign(config, fields)
