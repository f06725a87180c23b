"""New images from a finished run: files, a grid, and a film strip between random images.

python main.py --config=configs/sample.py --config.run=runs/transfer_freeze_d --config.n=100
python main.py --config=configs/sample.py --config.run=runs/maml_gan --config.target=folder:PATH

The second one adapts a meta-trained GAN to the images of a folder first. All goes to RUN/sample.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import base


def get_config(arg: str = ""):
    _, fields = base.words(arg)
    config = ConfigDict()
    config.phase = "sample"
    config.name = "sample"  # the default workdir is RUN/sample
    config.run = ""  # workdir of the run
    config.target = ""  # folder:PATH, the images that a meta-trained GAN adapts to
    config.n = 100  # images
    config.seed = 0
    config.step = placeholder(int)  # of the run's checkpoint; None: the last one of a finished run
    config.best = False  # the checkpoint with the best validation score
    config.ema = True  # the averaged weights, where the run kept an average
    config.adapt_steps = placeholder(int)  # None: the run's test_steps
    config.truncation = placeholder(float)  # None: the run's
    config.fresh = False  # the networks as they were before training
    return base.assign(config, fields)
