"""Score a finished run, of any phase, with errors, floors and a copying check.

python main.py --config=configs/evaluate.py --config.run=runs/maml_gan          validation classes
python main.py --config=configs/evaluate.py:test --config.run=runs/maml_gan     test classes
python main.py --config=configs/evaluate.py:pixels,shots=5 --config.run=runs/pretrain

The last one fine-tunes a pretrained GAN on each held-out class: the baseline of meta-learning. The
scores go to evaluation.json in the workdir, by default a folder of the run. To see several side by
side: python -m fsgan.compare RUN/evaluate OTHER_RUN/evaluate
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import base
from fsgan import features


def get_config(arg: str = ""):
    chosen, fields = base.words(
        arg, split=["valid", "test"], features=features.names(), size=["smoke"]
    )
    config = ConfigDict()
    config.phase = "evaluate"
    config.name = base.run_name("evaluate", chosen)  # the default workdir is RUN/<name>
    config.run = ""  # workdir of the run to score
    config.step = placeholder(int)  # of its checkpoint; None: the last one of a finished run
    config.best = False  # the checkpoint with the best validation score
    config.ema = True  # the averaged weights, where the run kept an average
    config.truncation = placeholder(float)  # None: the run's
    config.fresh = False  # the run's networks as they were before training: from scratch

    config.split = chosen.get("split", "valid")  # a transfer run has its target's split
    config.features = chosen.get("features", "domain")  # of fsgan/features, several with commas
    config.seed = 0  # decides on the episodes and, with the seeds, on all that is drawn
    config.seeds = 1  # how often adaptation and sampling are repeated
    config.classes = 100  # held-out classes, evenly spaced; 0: all of them
    config.shots = placeholder(int)  # support images; None: as many as a meta run has, pretrain 0
    config.n = placeholder(int)  # reference images of a class; None: what the smallest one allows
    config.m = 128  # generated images of a class
    config.adapt_steps = placeholder(int)  # None: the run's test_steps, 10 for a pretrained one
    config.inner = base.optimizer("sgd", 0.1, d_lr=0.01, clip=30.0)  # of a pretrained run
    config.average = "none"  # of its inner iterates: none, uniform or ema
    config.repeat = 1  # generated images for each support image of its inner steps
    if "size" in chosen:
        config.features, config.classes, config.m = chosen.get("features", "pixels"), 8, 8
    return base.assign(config, fields)
