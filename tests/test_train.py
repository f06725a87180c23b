"""The three phases end to end, in their smallest form: resuming, devices, and bad input."""

import dataclasses
import functools
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from ml_collections import ConfigDict

from fsgan import build, gan, loop, losses, pictures, sharding, tasks, train
from fsgan.checkpoint import Checkpoints
from fsgan.features import pixels
from fsgan.meta import maml
from fsgan.types import Episode, Images, Method

ROOT = Path(__file__).parent.parent


def config_of(name: str, arg: str, **fields) -> ConfigDict:
    config = importlib.import_module(f"configs.{name}").get_config(arg)
    config.update_from_flattened_dict(fields)
    return config


def run(config: ConfigDict, workdir: Path, **options) -> bool:
    return loop.run(train.prepare(config, workdir), workdir, **train.intervals(config), **options)


PHASES = ["pretrain", "transfer", "meta"]


@pytest.fixture(scope="module", autouse=True)
def images_are_made_once():
    """Every run here learns from the same few image sets."""
    patch = pytest.MonkeyPatch()
    patch.setattr(train.build.data, "load", functools.cache(train.build.data.load))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Callable[[str], Path]:
    """The workdir of a finished run of a phase. Look, but change nothing."""

    @functools.cache
    def finish(phase: str) -> Path:
        workdir = tmp_path_factory.mktemp(phase)
        before = finish("pretrain") if phase == "transfer" else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "curves", pictures.curves)
            assert run(small(phase, before), workdir)
        return workdir

    return finish


@pytest.fixture(scope="module")
def source(finished) -> Path:
    """A finished pretraining run to transfer from."""
    return finished("pretrain")


# 12 steps, 2 to a dispatch, on images that are as small as they can be.
SMALL = "smoke,steps=12,save_every=4,observe_every=12,data.size=(8,8)"


def small(phase: str, source: Path | None, **fields) -> ConfigDict:
    """The smallest form of a phase, on glyphs."""
    name = {"meta": "maml_gan"}.get(phase, phase)
    config = config_of(name, SMALL)
    if phase == "meta":  # compiles faster than with the critic's gradient penalty
        config.loss, config.penalty.gradient_penalty = "hinge", 0.0
    config.update_from_flattened_dict(fields)
    if phase == "transfer":
        config.init_from, config.data.name = str(source), "glyphs"
    return config


def saved(workdir: Path, step: int) -> dict[str, bytes]:
    """Every array of a checkpoint as bytes, by name, straight from the disk."""
    manager = Checkpoints(workdir / "checkpoints")
    example = manager._saved(step)
    example = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), example)
    leaves, _ = jax.tree_util.tree_flatten_with_path(manager._read(step, example))
    data = jax.random.key_data
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return {
        jax.tree_util.keystr(path): np.asarray(data(x) if is_key(x) else x).tobytes()
        for path, x in leaves
    }


def losses_of(workdir: Path) -> list[dict]:
    """metrics.jsonl without what the clock says."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "rate"} for line in lines]


@pytest.mark.parametrize("phase", PHASES)
def test_a_stopped_run_goes_on_bit_for_bit(phase, finished, source, tmp_path, monkeypatch):
    """2N steps equal N steps, SIGTERM, and N steps: parameters, both optimizers, average, keys,
    data order, and the losses that were logged. N is between two regular saves."""
    whole, halves = finished(phase), tmp_path
    config = small(phase, source)
    write = loop.Logger.write

    def write_and_kill(self, step, *args, **kwargs):
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return write(self, step, *args, **kwargs)

    monkeypatch.setattr(loop.Logger, "write", write_and_kill)
    assert not run(config, halves)
    monkeypatch.undo()
    assert Checkpoints(halves / "checkpoints").latest() == 6
    half = saved(halves, 6)
    assert run(config, halves)

    first, second = saved(whole, 12), saved(halves, 12)
    assert first.keys() == second.keys()
    for part in ("step", "key", "params", "opt", "ema"):
        assert any(part in name for name in first), part
    assert first == second
    assert losses_of(whole) == losses_of(halves)
    assert half != second


KILLED_WHILE_SAVING = """
import os, signal, sys
sys.path[:0] = [{root!r}, {configs!r}]
import jax
jax.config.update("jax_disable_most_optimizations", True)
from pathlib import Path

rename = os.rename
replace = os.replace

def kill_at_the_second(function):
    def wrapped(source, target, *args, **kwargs):
        # orbax writes into a temporary folder beside the final one and renames it when complete
        if Path(target).name == "8":
            os.kill(os.getpid(), signal.SIGKILL)
        return function(source, target, *args, **kwargs)
    return wrapped

os.rename, os.replace = kill_at_the_second(rename), kill_at_the_second(replace)
sys.argv = ["main.py", *{argv!r}]
import runpy
runpy.run_path({main!r}, run_name="__main__")
"""


def test_a_run_killed_in_the_middle_of_a_save_goes_on_bit_for_bit(finished, tmp_path):
    """SIGKILL when the save of step 8 is written but not yet in place."""
    whole, killed = finished("pretrain"), tmp_path / "killed"
    argv = [f"--config={ROOT / 'configs' / 'pretrain.py'}:{SMALL}", f"--workdir={killed}"]
    script = KILLED_WHILE_SAVING.format(
        root=str(ROOT), configs=str(ROOT / "configs"), argv=argv, main=str(ROOT / "main.py")
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert Checkpoints(killed / "checkpoints").latest() == 4

    assert run(small("pretrain", None), killed)
    assert saved(whole, 12) == saved(killed, 12)
    assert losses_of(whole) == losses_of(killed)


@pytest.mark.parametrize(
    ("phase", "fields", "shape"),
    [
        ("pretrain", {}, (8, 8, 8, 1)),
        ("pretrain", {"d_steps": 2}, (2, 8, 8, 8, 1)),
        # Adam would divide by its own rounding errors where a gradient is almost zero.
        ("meta", {"outer.name": "sgd", "outer.b1": None, "outer.b2": None}, (2, 5, 8, 8, 1)),
    ],
)
def test_two_devices_equal_one(phase, fields, shape, source, tmp_path, monkeypatch):
    """And each has one half of the images, or of the tasks."""
    devices = jax.devices()
    assert len(devices) == 2
    config = small(phase, source, steps=4, observe_every=4, **fields)
    states, seen = [], []
    for n in (1, 2):
        monkeypatch.setattr(sharding, "share", lambda *args, n=n, **kwargs: devices[:n])
        job = train.prepare(config, tmp_path / str(n))

        def step(state, batch, job=job):
            images = batch.support if phase == "meta" else batch
            jax.debug.inspect_array_sharding(images, callback=seen.append)
            return job.step(state, batch)

        # Without a look at the samples, which has nothing to do with the devices.
        bare = dataclasses.replace(job, step=step, observe=lambda state, log, last: {})
        workdir = tmp_path / str(n)
        assert loop.run(bare, workdir, **train.intervals(config))
        example = jax.eval_shape(job.init)
        states.append(Checkpoints(workdir / "checkpoints").restore(example).params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), *states)
    half = list(shape)
    half[job.batch_axis] //= 2
    assert seen[-1].shard_shape(shape) == tuple(half)


PANEL = {"kid", "precision", "recall", "spread", "energy"}
PANEL |= {"copying_ratio", *(f"{name}_floor" for name in PANEL)}


def test_target_images_that_may_not_be_meant(monkeypatch):
    """Those that the source has seen, and grey ones for its networks of colour images."""
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    source = Images(images[:4], np.zeros(4, np.int32), ("a",))
    monkeypatch.setattr(train, "source_images", lambda config: source)
    assert list(train.doubts(images[4:], None)) == []
    (seen,) = train.doubts(images[3:], None)
    assert "has learned from 1 of the 3 target images" in seen
    (grey,) = train.doubts(np.repeat(images[4:, ..., :1], 3, -1), None)
    assert "the target images are grey" in grey
    assert list(train.doubts(images[4:, ..., :1], None)) == []  # the source's are grey, too


@pytest.mark.parametrize("phase", PHASES)
def test_a_run_leaves_what_a_person_wants_to_see(phase, finished):
    workdir = finished(phase)
    for name in ("config.json", "data.json", "metrics.jsonl", "curves.png"):
        assert (workdir / name).stat().st_size > 0, name
    assert list(workdir.rglob("events.out.tfevents.*"))
    pictures = {path.name for path in (workdir / "samples").glob("*.png")}
    assert any("00012" in name for name in pictures), pictures
    if phase == "meta":
        assert any("test" in name for name in pictures)
        final = losses_of(workdir)[-1]
        assert {f"score/test_{name}" for name in PANEL} <= set(final)
    scores = losses_of(workdir)[-1]
    if phase == "transfer":  # there is nothing that it might be compared with
        variety = {"diversity", "nearest_target", "spread", "spread_floor"}
        assert {name.removeprefix("score/") for name in scores} - {"step", "phase"} == variety
    else:
        assert {f"score/{name}" for name in PANEL} <= set(scores)
        assert Checkpoints(workdir / "checkpoints").extra(12)["score"] == scores["score/kid"]
        assert next(name for name in scores if name.startswith("score/")) == "score/kid"
    record = json.loads((workdir / "data.json").read_text())
    assert all(len(part["fingerprint"]) == 12 for part in record["data"].values())


def test_meta_holds_classes_out_where_the_source_does_not(source, tmp_path):
    """An own folder of classes, and one shot: valid and test are classes that train has not."""
    from PIL import Image

    noise = np.random.default_rng(0)
    for i in range(10):
        (tmp_path / f"images/{i}").mkdir(parents=True)
        for j in range(4):
            pixels = noise.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"images/{i}/{j}.png")
    name = f"folder:{tmp_path / 'images'}"
    config = small("meta", source, **{"data.name": name, "shots": 1})
    parts = train.prepare(config, tmp_path / "run").record["data"]
    classes = [set(parts[split]["classes"]) for split in ("train", "valid", "test")]
    assert [len(c) for c in classes] == [8, 1, 1]
    assert set.union(*classes) == {str(i) for i in range(10)}


def test_held_out_classes_have_rates_batches_and_an_average_of_their_own():
    config = config_of("maml_gan", "smoke", **{"inner.lr": 0.4, "inner.d_lr": None})
    config.nets.place, config.adapt.test_place = 0.5, 1.5
    config.adapt.test_repeat, config.train_shots = 3, 9
    config.adapt.test_rate, config.adapt.test_d_rate, config.inner.layers = 0.25, 0.5, None
    learner = build.make_learner(config, build.make_game(config, (8, 8, 1), Method()))
    inner = build.held_out_inner(config, learner)
    assert (learner.inner.average, inner.average) == ("none", "ema")
    assert (learner.inner.game.repeat, inner.game.repeat) == (1, 3)
    assert (learner.inner.game.nets.g.place, inner.game.nets.g.place) == (0.5, 0.75)
    assert (learner.inner.batch, inner.batch) == (config.shots, None)
    for txs, expected in ((learner.inner.tx, [-0.4, -0.4]), (inner.tx, [-0.1, -0.2])):
        moves = [tx.update(1.0, tx.init(0.0), 0.0)[0] for tx in txs]
        np.testing.assert_allclose(moves, expected, rtol=1e-6)
    assert config.inner.lr == 0.4


@pytest.mark.parametrize("words", ["imle", "diff_augment", "mode_seeking"])
def test_a_method_changes_the_inner_loop_in_training_and_after_it(words):
    """Its options are fields, and the subspaces are still those that `adapt` names."""
    support = jax.random.uniform(jax.random.key(0), (5, 8, 8, 1), minval=-1)
    ends = []
    for method in ("finetune", words):
        config = config_of("maml_gan", f"smoke,{method},adapt.g_subspace=named:stem")
        game = build.make_game(config, (8, 8, 1), Method())
        learner = build.make_learner(config, game)
        params = gan.init(jax.random.key(1), game)
        for inner in (learner.inner, build.held_out_inner(config, learner)):
            adapted, _ = jax.jit(tasks.make_adapt(inner))(params, jax.random.key(2), support)
            np.testing.assert_array_equal(params.g["head"]["kernel"], adapted.g["head"]["kernel"])
            ends.append(adapted.g["stem"]["dense"]["kernel"])
    for without, with_it in zip(ends[:2], ends[2:], strict=True):
        assert np.abs(without - with_it).max() > 1e-6
    assert config_of("maml_gan", "imle,adapt.method.weight=2.0").adapt.method.weight == 2.0


def test_figr_is_the_released_one_on_every_data_set(tmp_path):
    """Nothing that the main job chooses for its data, or after training, is in it."""
    configs = [json.loads(config_of("figr", data).to_json()) for data in ("omniglot", "glyphs")]
    for config in configs:
        del config["name"], config["data"]["name"]
    assert configs[0] == configs[1]
    config = config_of("figr", "glyphs,smoke")
    assert (config.nets.place, config.truncation, config.inner.layers) == (0.0, 1.0, None)
    assert (config.inner.lr, config.inner.d_lr, config.outer.lr) == (1e-3, 5e-4, 1e-4)
    assert (config.adapt.test_rate, config.adapt.test_repeat) == (1.0, 1)
    train.prepare(config, tmp_path / "run")


def test_rates_of_layers_are_one_field_that_words_replace():
    layers = {"g/head": 2.0, "g/stem/dense/kernel": 0.5}
    assert config_of("maml_gan", f"smoke,inner.layers={layers}").inner.layers == layers
    assert config_of("maml_gan", "smoke,inner.layers=None").inner.layers is None


@pytest.mark.parametrize("words", ["", "omniglot", "omniglot,maml", "omniglot,anil"])
def test_layers_with_rates_of_their_own_are_there(words):
    config = config_of("maml_gan", words)
    game = build.make_game(config, (28, 28, 1), Method())
    for tx, params in zip(
        build.make_optimizers(config.inner, 1),
        jax.eval_shape(lambda key: gan.init(key, game), jax.random.key(0)),
        strict=True,
    ):
        jax.eval_shape(tx.init, params)


@pytest.mark.parametrize(("steps", "ends"), [(1_000, (900, 980)), (20_000, (19_500, 19_900))])
def test_mamls_own_stages_are_short_and_do_not_grow_without_end(steps, ends):
    learner = config_of("maml_gan", "maml", steps=steps).learner
    assert (learner.warm_up_steps, learner.first_order_steps) == ends


def test_high_rates_train_or_stop_with_a_good_checkpoint(tmp_path):
    """1,000 steps through all three directions of MAML, at ten times the main job's rates."""
    config = config_of("maml_gan", "", **{"inner.layers": {"g/block0": 20.0}})
    for rates in (config.inner, config.outer):
        rates.lr *= 10
    config.inner.d_lr *= 10
    outer = build.make_optimizers(config.outer, 1000)
    game = toys.game("wasserstein", penalty=losses.penalty(gradient_penalty=10.0))
    inner = tasks.Inner(game, build.make_optimizers(config.inner, 3), steps=3)
    learner = maml.make(inner, warm_up_steps=300, first_order_steps=600)
    key = jax.random.key(0)
    job = loop.Job(
        phase="meta",
        init=lambda: tasks.start(gan.init(key, game), key, outer, learner),
        step=tasks.make_step(learner, outer),
        sample=lambda key, data: Episode(
            toys.images(key, 2, 5), toys.images(key, 2, 3), jnp.zeros(2, jnp.int32)
        ),
        data={},
        data_key=key,
        observe=lambda state, log, last: {},
        record={},
    )
    every = {"report_every": 100, "observe_every": 1000, "save_every": 100}
    try:
        outcome = "trained" if loop.run(job, tmp_path, steps=1000, **every) else ""
    except loop.NonFiniteError as error:
        outcome = str(error)
    assert re.search(r"^trained$|at step \d+: stopped, .*; lower the learning rates", outcome)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    saved = checkpoints.restore(jax.eval_shape(job.init), checkpoints.latest())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved.params))


@pytest.mark.parametrize(("excluded", "gone"), [("Greek", "Greek/"), (0, "the first class")])
def test_classes_are_chosen_in_the_training_split_where_others_are_held_out(
    excluded, gone, source, tmp_path
):
    config = small("pretrain", source, **{"data.exclude": excluded})
    record = train.prepare(config, tmp_path).record["data"]
    every = train.build.data.load("glyphs", "train", size=8).classes
    left = [name for i, name in enumerate(every) if not name.startswith(gone) and i != excluded]
    assert record["train"]["classes"] == left != list(every)
    assert record["valid"]["classes"]


@pytest.mark.parametrize("phase", PHASES)
def test_domain_features_of_the_scores_learn_from_training_images(
    phase, source, tmp_path, monkeypatch
):
    """Those of the run itself, or for transfer those of its source: never from held-out ones."""
    learned_from = []

    def load(name, image_shape, *, images):
        learned_from.append((name, train.build.data.fingerprint(images)))
        return pixels.load(image_shape)

    monkeypatch.setattr(build.features, "load", load)
    config = small(phase, source, **{"scores.features": "domain"})
    train.prepare(config, tmp_path / "run")
    record = json.loads((source / "data.json").read_text())  # meta and pretrain have the same
    assert learned_from == [("domain", record["data"]["train"]["fingerprint"])]


def test_domain_features_of_the_outer_loss_are_not_those_of_the_scores(tmp_path, monkeypatch):
    """Of the same training images, by another seed; to adapt with the learner takes none."""
    asked = []

    def load(name, image_shape, *, images, seed=0):
        asked.append((name, train.build.data.fingerprint(images), seed))
        return pixels.load(image_shape)

    monkeypatch.setattr(build.features, "load", load)
    outer = {"outer_loss.name": "distance", "outer_loss.features": "domain"}
    config = config_of("maml_gan", f"{SMALL},maml", **outer, **{"scores.features": "domain"})
    record = train.prepare(config, tmp_path / "run").record["data"]
    seen = record["train"]["fingerprint"]
    assert sorted(asked) == [("domain", seen, 0), ("domain", seen, 1)]
    build.make_learner(config, build.make_game(config, (8, 8, 1), Method()))
    assert len(asked) == 2


def test_without_held_out_images_there_is_no_copying_ratio(source, tmp_path):
    """A folder that is training and validation data in one."""
    from PIL import Image

    noise = np.random.default_rng(0)
    for i in range(9):
        Image.fromarray(noise.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / f"{i}.png")
    config = small("pretrain", None, steps=2, **{"data.name": f"folder:{tmp_path}"})
    assert run(config, tmp_path / "run")
    scores = losses_of(tmp_path / "run")[-1]
    assert "score/recall" in scores
    assert "score/copying_ratio" not in scores


class TestBadInput:
    """Each is one line that says what to do, before anything long starts."""

    @pytest.mark.parametrize(
        ("phase", "fields", "message"),
        [
            ("pretrain", {"loss": "hing"}, "did you mean 'hinge'"),
            ("pretrain", {"data.name": "omniglott"}, "did you mean 'omniglot'"),
            ("pretrain", {"nets.name": "resnett"}, "did you mean 'resnet'"),
            ("pretrain", {"data.size": (30, 28)}, "divisible by 4"),
            ("pretrain", {"data.channels": 2}, "channels must be 1"),
            ("pretrain", {"optimizer.name": "adamm"}, "did you mean 'adam"),
            ("pretrain", {"optimizer.momentum": 0.9}, "option of adam 'momentum'"),
            ("pretrain", {"optimizer.schedule": "cosin"}, "did you mean 'cosine'"),
            ("pretrain", {"save_every": 3}, "save_every=3 must be a multiple of report_every=2"),
            ("pretrain", {"steps": 0}, "steps must be at least 1"),
            ("pretrain", {"data.name": "folder:nowhere"}, "nowhere"),
            ("transfer", {"method.name": "freezd"}, "did you mean 'freeze_d'"),
            ("transfer", {"init_from": ""}, "transfer needs init_from"),
            ("transfer", {"init_from": "nowhere"}, "'nowhere' holds no run"),
            ("transfer", {"shots": 10_000}, "shots=10000, but the target has"),
            ("meta", {"learner.name": "reptil"}, "did you mean 'reptile'"),
            ("meta", {"adapt.g_subspace": "loraa:4"}, "did you mean 'lora'"),
            ("meta", {"adapt.g_subspace": "lora"}, "subspace 'lora': .*'rank'"),
            ("meta", {"shots": 50}, r"shots 50 \+ queries 3 = 53 images, but class"),
            ("meta", {"adapt.steps": 0}, "adapt.steps"),
            ("meta", {"chunk": 3}, "2 tasks cannot be taken 3 at a time on 2 devices"),
            ("meta", {"chunk": -1}, "chunk=-1 must be at least 1, or 0"),
            ("meta", {"queries": 1}, "2 query images or more"),
            ("meta", {"train_shots": 4}, "train_shots=4 must be at least shots=5"),
            ("meta", {"train_shots": 50}, r"shots 50 \+ queries 3 = 53 images, but class"),
            ("pretrain", {"batch": 0}, "batch must be at least 1"),
            ("pretrain", {"nets.width": 0}, "nets.width must be at least 1"),
            ("pretrain", {"keep": 0}, "keep must be at least 1"),
            ("pretrain", {"scores.features": "pixel"}, "did you mean 'pixels'"),
            ("pretrain", {"init_from": "nowhere"}, "'nowhere' holds no run"),
            ("transfer", {"method.name": "freeze_d", "method.blocks": 8}, "no layer 'block2'"),
            ("meta", {"adapt.show": (1, 3)}, "only steps 0 to 2"),
            ("meta", {"adapt.method.name": "imlee"}, "did you mean 'imle'"),
            *(
                ("meta", {"adapt.method.name": name}, f"{name}: an inner loop takes methods")
                for name in ("ewc", "ada", "lora", "minegan", "rick")
            ),
            ("meta", {"adapt.test_average": "emma"}, "did you mean 'ema'"),
            ("meta", {"adapt.test_rate": 0.0}, "adapt.test_rate must be positive"),
            ("meta", {"adapt.test_repeat": 0}, "adapt.test_repeat must be at least 1"),
            ("meta", {"nets.place": 0.5, "adapt.test_place": 2.5}, "must lie in 0 to 1, got 1.25"),
        ],
    )
    def test_config(self, phase, fields, message, source, tmp_path):
        config = small(phase, source)
        with config.unlocked():
            config.update_from_flattened_dict(fields)
        with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
            train.prepare(config, tmp_path / "run")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()

    def test_a_source_of_other_shapes_names_every_leaf(self, source, tmp_path):
        config = small("transfer", source, **{"nets.width": 6})
        with pytest.raises(ValueError, match="g/head/kernel") as error:
            train.prepare(config, tmp_path)
        for name in ("d/block0/conv/kernel", "d/head/kernel", "g/stem/", "g/block0/conv/kernel"):
            assert name in str(error.value)

    def test_a_source_without_a_checkpoint(self, source, tmp_path):
        for name in ("config.json", "data.json"):
            shutil.copy(source / name, tmp_path)
        config = small("transfer", tmp_path)
        with pytest.raises(FileNotFoundError, match="no checkpoint"):
            train.prepare(config, tmp_path / "run")

    def test_a_workdir_of_another_config(self, source, tmp_path):
        train.prepare(small("pretrain", source, loss="minimax"), tmp_path)
        train.prepare(small("pretrain", source), tmp_path)  # nothing was saved: nothing is lost
        assert json.loads((tmp_path / "config.json").read_text())["loss"] == "non_saturating"
        shutil.copytree(source / "checkpoints", tmp_path / "checkpoints")
        train.prepare(small("pretrain", source), tmp_path)  # the same one is welcome
        with pytest.raises(
            ValueError, match=r"belongs to another config: loss is 'non_sat.*'hinge'"
        ):
            train.prepare(small("pretrain", source, loss="hinge"), tmp_path)

    def test_a_workdir_of_other_data(self, source, tmp_path, monkeypatch):
        """The same config, but what is behind its names has changed since."""
        workdir = shutil.copytree(source, tmp_path / "run")
        load = train.build.data.load

        def changed(*args, **options):
            found = load(*args, **options)
            return found._replace(images=np.roll(found.images, 1, axis=1))

        monkeypatch.setattr(train.build.data, "load", changed)
        with pytest.raises(ValueError, match=r"another data: data.train.fingerprint is '\w{12}'"):
            train.prepare(small("pretrain", source), workdir)

    def test_the_command_ends_with_one_line_and_code_2(self, tmp_path):
        """Each in a process of its own, forked from one that has imported everything."""
        commands = [
            ([], "--config must have a value"),
            (["--config=configs/nowhere.py"], "configs/nowhere.py"),
            (["--config=configs/pretrain.py:mnits"], "did you mean 'mnist'"),
            (
                ["--config=configs/pretrain.py", "--config.los=hinge"],
                "config field 'los' Did you mean",
            ),
            (["--config=configs/pretrain.py", "--config.loss=hing"], "did you mean 'hinge'"),
            (["--config=configs/pretrain.py", "--config.batch=many"], "many"),
        ]
        argv = [[f"--workdir={tmp_path / 'run'}", *given] for given, _ in commands]
        script = COMMANDS.format(root=str(ROOT), commands=argv, errors=str(tmp_path))
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT)
        assert result.stdout.split() == [b"2"] * len(commands), result
        for i, (_, message) in enumerate(commands):
            error = (tmp_path / str(i)).read_text()
            assert message in error
            assert len(error.strip().splitlines()) == 1, error
            assert "Traceback" not in error
        assert not (tmp_path / "run").exists()


COMMANDS = """
import os, sys
sys.path.insert(0, {root!r})
import main
from absl import app

for i, argv in enumerate({commands!r}):
    child = os.fork()
    if not child:
        os.dup2(os.open(os.path.join({errors!r}, str(i)), os.O_CREAT | os.O_WRONLY), 2)
        sys.argv = ["main.py", *argv]
        app.run(main.main, flags_parser=main.parse)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
