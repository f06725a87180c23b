"""Few-shot classification of Omniglot by the meta-learning code of the GANs, as a check of it.

    PYTHONPATH=. TFDS_DATA_DIR=DIR python tests/benchmarks/classification.py --out=FILE.json

MAML (Finn et al. 2017) has a known result here, 98.7 % accuracy for 5 ways and 1 shot after 60,000
steps; for GANs there is none. So the classifier is played as a game: the discriminator tells the
classes of a task apart instead of real from generated images, its loss is the cross-entropy, and
the generator draws black images with no parameters. Inner and outer loop, exact second order and
the training loop are then the GANs' own.

Protocol: the network of Vinyals et al. 2016 as Finn et al. had it on Omniglot, four times 3x3
convolution with stride 2, batch norm and ReLU, then the mean over the 2x2 pixels and a linear
layer; batch norm by the statistics of the images at hand, always. One inner step of SGD at 0.4 in
meta-training and three in evaluation; outside Adam at 0.001. All characters of the training
alphabets, turned by 0, 90, 180 and 270 degrees, are classes; validation (5 alphabets of the
official background set) and test (the 20 of the evaluation set, once, at the end) are not turned.
Finn et al. split characters at random instead, so that alphabets are in both parts.

classification.json: 96.1 +- 0.3 % on test (95 % interval over tasks, one seed) after 10,000 steps
of 8 tasks, which is 4 % of the published number of tasks, in 42 minutes of one CPU core that was
busy with other work, too.

It can be stopped at any time: the same command goes on from the last checkpoint in `--workdir`.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fsgan import Episode, Game, Images, Method, Pair, Pool, data, episodes, gan, sharding, tasks
from fsgan.loop import Job, run
from fsgan.meta import maml
from fsgan.nets import layers
from fsgan.train import claim, default_chunk

RATE, TRAIN_STEPS, TEST_STEPS = 0.4, 1, 3  # of the inner loop
OUTER_RATE = 1e-3
QUERIES = 15  # of each class, in evaluation
NEW_TASKS = {"valid": 200, "test": 1000}
REPORT_EVERY, SCORE_EVERY = 100, 500  # steps


class BatchNorm(nn.Module):
    """Each channel of [n, h, w, c] by its mean and variance over this batch: transductive."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        x = x - x.mean((0, 1, 2))
        return x * jax.lax.rsqrt(jnp.square(x).mean((0, 1, 2)) + 1e-5) * scale + bias


class Classifier(nn.Module):
    """Images [n, h, w, c] in [-1, 1] -> logits [n, ways]."""

    ways: int
    filters: int = 64
    blocks: int = 4

    @nn.compact
    def __call__(self, images):
        x = (images + 1) / 2  # a black border is 0, as the padding is
        for i in range(self.blocks):
            x = layers.Conv(self.filters, strides=(2, 2), use_bias=False, name=f"conv{i}")(x)
            x = nn.relu(BatchNorm(name=f"norm{i}")(x))
        return nn.Dense(self.ways, name="head")(x.mean((1, 2)))


class Blank(nn.Module):
    """The other player: latents [n, latent] -> black images, without parameters."""

    shape: tuple[int, int, int]

    def __call__(self, z):
        return jnp.full((len(z), *self.shape), -1.0, z.dtype)


def judged(game: Game, params: Pair, images) -> tuple[jax.Array, jax.Array]:
    """(cross-entropy, accuracy) on images in the order of their classes, equally many of each."""
    logits = game.nets.d.apply({"params": params.d}, images)
    labels = jnp.repeat(jnp.arange(logits.shape[-1]), len(images) // logits.shape[-1])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits.argmax(-1) == labels).mean()


def make_game(shape: tuple[int, int, int], ways: int, filters: int, blocks: int = 4) -> Game:
    nothing = lambda real, fake: jnp.zeros(())  # noqa: E731
    return Game(
        Pair(Blank(shape), Classifier(ways, filters, blocks)),
        Pair(nothing, nothing),
        latent=1,
        method=Method(d_loss=lambda game, play, loss: judged(game, play.params, play.real)[0]),
    )


def init(key: jax.Array, game: Game) -> Pair:
    """Fresh parameters: the generator has none."""
    return Pair({}, game.nets.d.init(key, jnp.zeros((1, *game.nets.g.shape)))["params"])


def on_query(game: Game, adapted: Pair, query, key) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The outer loss, for both players."""
    loss, accuracy = judged(game, adapted, query)
    return loss, {"loss": loss, "accuracy": accuracy}


def make_task(key: jax.Array, pool: Pool, ways: int, shots: int, queries: int) -> Episode:
    """`ways` different classes, images in their order; `label` is [ways]."""
    class_key, images_key = jax.random.split(key)
    classes = episodes.distinct(class_key, len(pool.count), ways)

    def of(key, i) -> Episode:  # an episode of the pool's class i
        alone = Pool(pool.images, pool.start[i][None], pool.count[i][None])
        return episodes.episode(key, alone, shots=shots, queries=queries)

    each = jax.vmap(of)(jax.random.split(images_key, ways), classes)
    support, query = (x.reshape(-1, *x.shape[2:]) for x in (each.support, each.query))
    return Episode(support, query, classes)


def make_tasks(key: jax.Array, pool: Pool, n: int, ways: int, shots: int, queries: int) -> Episode:
    keys = jax.random.split(key, n)
    return jax.vmap(lambda key: make_task(key, pool, ways, shots, queries))(keys)


def turned(images: Images) -> Images:
    """Four times as many classes: as they are, and by 90, 180 and 270 degrees."""
    n = len(images.classes)
    return Images(
        np.concatenate([np.rot90(images.images, k, (1, 2)) for k in range(4)]),
        np.concatenate([images.labels + k * n for k in range(4)]),
        tuple(f"{name}/{90 * k}" for k in range(4) for name in images.classes),
    )


def make_learner(game: Game) -> tasks.Learner:
    sgd = Pair(optax.sgd(RATE), optax.sgd(RATE))
    return maml.make(tasks.Inner(game, sgd, steps=TRAIN_STEPS), on_query)


def make_accuracy(inner: tasks.Inner):
    """`(params, task) -> accuracy` on the query after adaptation to the support."""
    adapt = tasks.make_adapt(inner, steps=TEST_STEPS)

    def accuracy(params: Pair, task: Episode) -> jax.Array:
        adapted, _ = adapt(params, jax.random.key(0), task.support)  # it draws nothing that counts
        return judged(inner.game, adapted, task.query)[1]

    return accuracy


def make_job(given: argparse.Namespace) -> Job:
    sets = {split: data.load("omniglot", split) for split in data.SPLITS}
    sets["train"] = turned(sets["train"])
    pools = {split: episodes.make_pool(images) for split, images in sets.items()}
    params_key, train_key, data_key, *new_keys = jax.random.split(jax.random.key(given.seed), 5)
    game = make_game(sets["train"].images.shape[1:], given.ways, given.filters)
    learner, outer = make_learner(game), Pair(optax.adam(OUTER_RATE), optax.adam(OUTER_RATE))
    mesh = sharding.make_mesh(sharding.share(given.tasks, "tasks", cores=True))
    accuracies = sharding.map_shared(make_accuracy(learner.inner))

    def observe(state, log, last: bool) -> dict[str, float]:
        scores = {}
        for (split, n), key in zip(NEW_TASKS.items(), new_keys, strict=True):
            if split == "valid" or last:
                new = make_tasks(key, pools[split], n, given.ways, given.shots, QUERIES)
                each = np.asarray(accuracies(gan.weights(state), new))
                scores[split] = each.mean()
                scores[f"{split}_half_interval"] = 1.96 * each.std(ddof=1) / math.sqrt(n)
        return scores

    return Job(
        phase="classification",
        init=lambda: tasks.start(init(params_key, game), train_key, outer, learner),
        step=tasks.make_step(learner, outer, chunk=default_chunk(given.tasks, mesh), mesh=mesh),
        sample=lambda key, pool: make_tasks(
            key, pool, given.tasks, given.ways, given.shots, given.queries
        ),
        data=pools["train"],
        data_key=data_key,
        observe=observe,
        record={k: [len(v.classes), data.fingerprint(v)] for k, v in sets.items()},
        mesh=mesh,
    )


def report(workdir: Path) -> dict:
    """The curve and the result of a finished run, from its metrics.jsonl: accuracies, and minutes
    of training, without compilation and scores.
    """
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    curve, step, seconds = [], 0, 0.0
    for row in rows:
        if "rate" in row:
            seconds += (row["step"] - step) / row["rate"]
            step = row["step"]
        if "score/valid" in row:
            valid = round(row["score/valid"], 4)
            curve.append({"step": step, "minutes": round(seconds / 60, 1), "valid": valid})
    names = ("valid", "valid_half_interval", "test", "test_half_interval")
    return {"result": {name: round(rows[-1][f"score/{name}"], 4) for name in names}, "curve": curve}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = {"steps": 10000, "tasks": 8, "ways": 5, "shots": 1, "queries": 5, "filters": 64}
    for name, default in {**numbers, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--workdir", type=Path, default=Path("runs/classification"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    sharding.cores_as_devices()
    settings = {name: getattr(given, name) for name in (*numbers, "seed")}
    job = make_job(given)
    # More steps than before go on with the same run: the outer rate is constant.
    claim(given.workdir, {k: v for k, v in settings.items() if k != "steps"}, job.record)
    every = {"report_every": REPORT_EVERY, "observe_every": SCORE_EVERY, "save_every": SCORE_EVERY}
    if run(job, given.workdir, steps=given.steps, **every) and given.out:
        words = " ".join(f"--{name}={value}" for name, value in settings.items())
        about = {"command": f"python tests/benchmarks/classification.py {words}"}
        about |= {"settings": settings, "seeds": 1, "data": job.record, "new_tasks": NEW_TASKS}
        about |= {"inner_rate": RATE, "inner_steps": [TRAIN_STEPS, TEST_STEPS]}
        about |= {"outer_rate": OUTER_RATE, "evaluated_queries": QUERIES}
        about |= {"device": jax.devices()[0].device_kind, "devices": job.mesh.size}
        about |= {"machine": platform.machine(), "jax": jax.__version__}
        given.out.write_text(json.dumps({**about, **report(given.workdir)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
