"""Train a GAN on all images of a data set: a source for transfer, or a baseline.

python main.py --config=configs/pretrain.py                    glyphs
python main.py --config=configs/pretrain.py:mnist,resnet,data.exclude=9
python main.py --config=configs/pretrain.py:data=cifar10       any image set of TFDS
python main.py --config=configs/pretrain.py:folder:PATH        your own images
"""

from configs import base
from fsgan import nets


def get_config(arg: str = ""):
    chosen, fields = base.words(arg, data=base.sources(), nets=nets.names(), size=["smoke"])
    config = base.base_config("pretrain", base.run_name("pretrain", chosen))
    config.data.name = chosen.get("data", "glyphs")
    config.nets.name = chosen.get("nets", "dcgan")
    config.batch = 64
    config.penalty.r1 = 0.1
    config.optimizer = base.optimizer("adam", 2e-4, b1=0.5, b2=0.99)
    if chosen.get("size") == "smoke":
        config.steps, config.report_every, config.observe_every, config.save_every = 4, 2, 4, 2
        config.nets.width, config.batch = 4, 8
    return base.assign(config, fields)
