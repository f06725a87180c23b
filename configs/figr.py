"""FIGR (Clouatre & Demers 2019) as released: Reptile with Adam outside, WGAN-GP by SGD inside.

python main.py --config=configs/figr.py                     Omniglot, 4 images, 10 inner steps
python main.py --config=configs/figr.py:mnist               MNIST without its last classes
python main.py --config=configs/figr.py:as_released         with the gradient penalty as released

The published pictures were made after 140,000 (Omniglot) and 50,000 (MNIST) steps: for a GPU.
"""

from configs import base, maml_gan


def get_config(arg: str = ""):
    chosen, fields = base.words(arg, penalty=["as_released"], data=base.sources(), size=["smoke"])
    words = ["reptile", "finetune", chosen.get("data", "omniglot"), chosen.get("size", "")]
    config = maml_gan.get_config(",".join(filter(None, words)))
    config.name = base.run_name("figr", chosen)
    config.data.size = (32, 32)
    config.nets.name, config.nets.place = "figr", 0.0
    config.latent = 100

    # The released critic averages over the 2K images of both kinds, which halves its loss but not
    # the penalty's weight of 10: the same steps as those of the whole loss with twice the penalty
    # and half the rate.
    config.loss = "wasserstein"
    config.penalty.gradient_penalty = 20.0
    if "penalty" in chosen:  # its norm is over the channels of each pixel, not over the image
        config.penalty.gradient_penalty, config.penalty.pixel_gradient_penalty = 0.0, 20.0
    config.inner = base.optimizer("sgd", 1e-3, d_lr=5e-4)
    config.outer = base.optimizer("adam", 1e-4)
    config.tasks, config.shots, config.adapt.steps = 1, 4, 10
    config.train_shots = None
    config.adapt.test_rate = config.adapt.test_d_rate = 1.0
    config.adapt.test_average, config.adapt.test_repeat = "none", 1
    config.adapt.test_place = 1.0
    config.d_steps = 1
    config.truncation = 1.0
    config.ema_decay = 0.0  # the last parameters, as released
    config.steps = 140_000
    config.report_every, config.observe_every, config.save_every = 100, 10_000, 1_000
    if "size" in chosen:
        config.nets.width, config.adapt.steps = 4, 2
        config.steps, config.report_every, config.observe_every, config.save_every = 4, 2, 4, 2
    else:
        config.nets.width = 64
    return base.assign(config, fields)
