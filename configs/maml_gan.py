"""Meta-train a GAN over few-shot tasks, so that a few gradient steps make it draw a new class.

python main.py --config=configs/maml_gan.py                      glyphs: held-out scripts
python main.py --config=configs/maml_gan.py:omniglot             Omniglot: held-out alphabets
python main.py --config=configs/maml_gan.py:maml                 another meta-learner than Reptile
python main.py --config=configs/maml_gan.py:imle                 a transfer method in the inner loop
python main.py --config=configs/maml_gan.py:maml,omniglot,tasks=16,inner.lr=0.02
"""

import importlib

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

import fsgan.meta
import fsgan.transfer
from configs import base
from fsgan import plugins


def get_config(arg: str = ""):
    chosen, fields = base.words(
        arg,
        learner=plugins.names(fsgan.meta),
        order=["first_order", "second_order"],  # of MAML; by default the one, then the other
        method=plugins.names(fsgan.transfer),  # of the inner loop
        data=base.sources(),
        size=["smoke"],
    )
    config = base.base_config("meta", base.run_name("maml_gan", chosen))
    config.data.name = chosen.get("data", "glyphs")

    # A critic's loss keeps its slope however well it tells real from generated images, so that a
    # few steps still learn what is particular to a task. The losses with a sigmoid saturate: in
    # short runs with the non-saturating one, at inner rates of 0.01 and of 0.05 against 0.01,
    # adaptation did not bring the samples closer to the task.
    config.loss, config.penalty.gradient_penalty = "wasserstein", 10.0
    # A better critic draws adaptation closer to the class: two updates, of as many images each, for
    # one of the generator. On validation classes that is worth more than a quarter more steps.
    config.d_steps = 2
    config.steps = 3_900
    # No meta-learner is better beyond the error (docs/learners*.md), and none is as fast.
    learner = importlib.import_module(f"fsgan.meta.{chosen.get('learner', 'reptile')}")
    config.learner = base.plugin(learner)
    if "order" in chosen and config.learner.name != "maml":
        raise ValueError(f"{chosen['order']} is a word for maml, not for {config.learner.name}")
    if "warm_up_steps" in config.learner:  # Reptile's direction first, then first order, then exact
        total = config.get_oneway_ref("steps")
        # In the last tenth of a run, or its last 500 steps (the lesser: FieldReferences have no
        # min): 2,000 of 20,000 steps, at as high a rate, undo what Reptile learned on Omniglot.
        tail = (total // 10 + 500 - abs(total // 10 - 500)) // 2
        ends = {"first_order": total, "second_order": total - tail, None: total - tail // 5}
        config.learner.warm_up_steps = total - tail
        if "first_order_steps" in config.learner:
            config.learner.first_order_steps = ends[chosen.get("order")]
    # Ten steps move the middle of the samples further than their edge: truncated, they are nearer
    # to the class. On validation classes glyphs vary more at 0.5 than at 0.3, at the same KID;
    # Omniglot's characters are recognised best where they vary 0.9 times as real ones do.
    config.truncation = 0.25 if config.data.name == "omniglot" else 0.5
    # What tells characters apart is where the strokes are: the generator's first layer, coarse in
    # space, and norms with a scale and a bias of their own at each place move most.
    config.nets.affine = "value"
    config.inner = base.optimizer("sgd", 0.05, d_lr=0.01, clip=30.0)
    if config.learner.name != "anil":  # whose heads alone move
        config.inner.layers = {"g/stem": 20.0}
    # MAML's three directions differ in length: b2 forgets the last one's soon, clip cuts the peaks.
    config.outer = base.optimizer("adam", 2e-3, b1=0.5, b2=0.99, clip=10.0, schedule="cosine")
    # What the adapted networks are asked for: adversarial, distance (energy or mmd, in features
    # pixels, random_conv or domain, of so many samples) or mixed.
    config.outer_loss = ConfigDict(
        {"name": "adversarial", "distance": "energy", "features": "pixels", "samples": 16}
    )
    config.outer_loss.weight = 1.0  # of the distance, where both are mixed
    config.only = ""  # meta-learn these alone, by a regular expression: "d", "g/stem", "g/inner"
    config.tasks = 2  # per outer step; many steps of few tasks, at high rates, learn fastest
    config.chunk = 0  # tasks at a time on each device; 0: one on a CPU, all elsewhere
    config.shots = 5  # support images of a task
    config.train_shots = placeholder(int)  # those in training, of which a step takes `shots`
    config.queries = 3  # query images of a task, none of them in the support

    config.adapt = ConfigDict()
    config.adapt.steps = 8  # inner steps while training
    config.adapt.fewest = placeholder(int)  # draw their number from fewest .. steps
    config.adapt.test_steps = 10  # inner steps on a held-out class
    # After training at high rates, to move far in few steps, a slower critic and the mean of the
    # iterates, which circle around their end, draw a held-out class best.
    config.adapt.test_rate, config.adapt.test_d_rate = 1.0, 0.5  # times the inner rates
    config.adapt.test_average = "ema"  # of the inner iterates, as `average`
    # A batch of more latents than images: its direction is less a matter of chance. On validation
    # classes glyphs have a lower KID, and both they and Omniglot's are recognised better.
    config.adapt.test_repeat = 4  # generated images for each support image of a step
    config.adapt.test_place = 1.0  # times nets.place, how far samples are moved
    config.adapt.show = (2, 5, 10)  # the ones after which samples are drawn
    config.adapt.g_subspace = "everything"  # where it may move: head, scale_shift, lora:4, ...
    config.adapt.d_subspace = "everything"
    config.adapt.learned = ()  # settings of the inner loop to be learned, too: learned.SETTINGS
    config.adapt.average = "none"  # of the inner iterates in training: none, uniform or ema
    config.adapt.remat = False  # compute inner steps again, to save memory in long inner loops
    config.adapt.unroll = 1  # inner steps per iteration of the compiled loop
    hand_drawn = config.data.name == "omniglot" and config.learner.name == "reptile"
    # A file of fsgan/transfer, of those that keep nothing of a source. What is drawn by hand has
    # small parts and more than one way to be drawn, which a critic alone makes one of in ten steps.
    method = chosen.get("method", "imle" if hand_drawn else "finetune")
    config.adapt.method = base.plugin(importlib.import_module(f"fsgan.transfer.{method}"))
    if hand_drawn:
        # All 20 images of a class, five in each step: what is learned then is to draw the class,
        # not these five. Two thirds as many tasks of 12 steps instead of 8 are as many images in
        # all, and more of each class. All of this was chosen on validation classes.
        config.train_shots, config.inner.lr, config.truncation = 17, 0.1, 0.4
        config.steps, config.adapt.steps = 2_600, 12
        config.adapt.test_repeat = 8
        # Where latents are few, what lies near the sample that an image pulls goes with it; of many
        # each is as far from all the others.
        config.latent = 16
        # Hand-drawn characters stand elsewhere each time. Moving is not drawing, and one number
        # moves every pixel: at the rate of the other layers images fly apart.
        config.nets.place = 0.5
        config.inner.layers = {"g/stem": 20.0, "g/place": 0.02}
        # A higher rate draws held-out classes cleaner, all their samples more alike; a stronger
        # pull of each image, and moving them further than in training, make up for that.
        config.outer.lr, config.adapt.test_place = 4e-3, 1.7
        if method == "imle":
            # Where a character stands is left to the critic: strokes are drawn sharper, and apart.
            config.adapt.method.weight, config.adapt.method.shift = 0.75, 3
    config.eval_classes = 100  # of each held-out split, evenly spaced, for scores and pictures
    config.ema_decay = 0.99
    config.observe_every = 1_300  # on Omniglot to look takes as long as some 300 steps
    config.save_every = 100
    if chosen.get("size") == "smoke":
        config.steps, config.report_every, config.observe_every, config.save_every = 4, 2, 4, 2
        config.nets.width, config.tasks, config.eval_classes = 4, 2, 8
        config.adapt.steps, config.adapt.test_steps, config.adapt.show = 2, 2, (1, 2)
        if "warm_up_steps" in config.learner:
            config.learner.warm_up_steps = 1
        if "first_order_steps" in config.learner:
            config.learner.first_order_steps = 2
    return base.assign(config, fields)
