"""Scores while training; the phase `evaluate`, end to end in its smallest form, and bad input."""

import functools
import importlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.spatial.distance import cdist, pdist

from fsgan import compare, data, panel, scoring, subjects, train
from fsgan.checkpoint import Checkpoints
from fsgan.evaluate import panel_scores
from fsgan.images import to_float
from fsgan.metrics import precision_recall
from fsgan.types import Images


class TestPanelScores:
    """The panel's cheap part, of features as the panel has them."""

    @pytest.fixture
    def sets(self):
        """Support [4, 3, 12], reals [4, 5, 12] and fakes [4, 7, 12], the classes apart."""
        rng = np.random.default_rng(0)
        means = rng.normal(size=(4, 1, 12))
        return [np.float32(means + rng.normal(size=(4, n, 12))) for n in (3, 5, 7)]

    def test_they_are_the_panels(self, sets):
        """Precision and recall of as many fakes as reals; KID of equal parts in float64."""
        support, real, fake = sets
        found = panel_scores(real, fake, support)
        expected = precision_recall.compute(real.reshape(-1, 12), fake[:, :5].reshape(-1, 12))
        assert {k: found[k] for k in expected} == expected
        scale = np.sqrt(np.square(real).mean())

        def kernels(x, y, same=False):
            blocks = np.einsum("ind,jmd->injm", *(a.astype(float) / scale for a in (x, y)))
            blocks = (blocks / 12 + 1) ** 3
            if same:  # an image is not compared with itself
                (classes, n), total = x.shape[:2], blocks.sum((1, 3))
                own = np.einsum("inin->i", blocks)
                diagonal = (np.diag(total) - own) / (n * (n - 1))
                return np.where(np.eye(classes), diagonal, total / n**2)
            return blocks.mean((1, 3))

        kid = kernels(real, real, True) + kernels(fake, fake, True) - 2 * kernels(real, fake)
        np.testing.assert_allclose(found["kid"], kid.mean(), rtol=1e-4)
        nearest = [
            [cdist(a, b).min(1) for a, b in zip(x, support, strict=True)] for x in (fake, real)
        ]
        fakes, reals = (np.mean([np.median(d) for d in each]) for each in nearest)
        np.testing.assert_allclose(found["copying_ratio"], fakes / reals, rtol=1e-5)
        spread = np.mean([pdist(x[:5]).mean() for x in fake])
        np.testing.assert_allclose(found["spread"], spread, rtol=1e-5)

    def test_kid_does_not_depend_on_the_unit_of_the_features(self, sets):
        """Short vectors would leave the kernel linear, blind to all but the means."""
        _, real, fake = sets
        wide = real.mean((0, 1)) + 3 * (real - real.mean((0, 1)))  # with the same mean
        kids = [panel_scores(u * real, u * wide)["kid"] for u in (1, 1e-3)]
        np.testing.assert_allclose(*kids, rtol=1e-3)
        assert kids[0] > 1
        assert panel_scores(real, fake)["kid"] < 0.2

    def test_too_few_for_neighbours(self, sets):
        _, real, fake = sets
        assert set(panel_scores(real[:1, :3], fake[:1])) == {"kid", "spread"}


SMALL = {"data.size": (8, 8)}


@pytest.fixture(scope="module", autouse=True)
def rendered_once():
    """The characters are rendered once, not for every run and evaluation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", functools.cache(data.load))
        yield


def config_of(name: str, arg: str, **fields) -> ConfigDict:
    config = importlib.import_module(f"configs.{name}").get_config(arg)
    config.update_from_flattened_dict(fields)
    return config


def save_run(workdir, name: str, arg: str, **fields):
    """A run that was not trained but has all that a finished one has."""
    job = train.prepare(config_of(name, arg, steps=2, report_every=1, **fields), workdir)
    state = jax.jit(job.init)()
    params, ema = jax.device_get((state.params, state.ema))
    moved = state.replace(
        params=jax.tree.map(lambda x: 1.1 * x, params), ema=jax.tree.map(lambda x: 1.2 * x, ema)
    )
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(2, moved, score=1.0)
    checkpoints.wait()
    return workdir


@pytest.fixture(scope="module")
def meta_run(tmp_path_factory):
    """A meta run on characters of 8x8 pixels."""
    plain = {"loss": "hinge", "penalty.gradient_penalty": 0.0}  # compiles faster
    workdir = tmp_path_factory.mktemp("meta")
    return save_run(workdir, "maml_gan", "smoke,reptile", shots=3, **plain, **SMALL)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A pretraining run on the same."""
    return save_run(tmp_path_factory.mktemp("source"), "pretrain", "smoke", **SMALL)


def evaluate(run, workdir, arg: str = "smoke,test", **fields):
    config = config_of("evaluate", arg, run=str(run), n=4, **fields)
    return scoring.run(config, workdir)


@pytest.fixture(scope="module")
def evaluated(meta_run, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("evaluated")
    return evaluate(meta_run, workdir), workdir


def test_a_meta_run_is_scored_on_held_out_classes(evaluated, meta_run):
    result, workdir = evaluated
    assert json.loads((workdir / "evaluation.json").read_text())["run"] == str(meta_run)
    assert (result["phase"], result["step"], result["adapt_steps"]) == ("meta", 2, 2)
    protocol = result["protocol"]
    assert {k: protocol[k] for k in ("split", "shots", "n", "m")} == {
        "split": "test",
        "shots": 3,
        "n": 4,
        "m": 8,
    }
    classes = train.class_splits(ConfigDict(result["config"]))["test"].classes
    assert len(protocol["images"]) == 8
    assert set(protocol["images"]) <= set(classes)
    for parts in protocol["images"].values():
        assert list(map(len, parts)) == [3, 4, 4]
        assert len({i for part in parts for i in part}) == 11  # all different
    found = result["features"]["pixels"]
    assert set(found["scores"]) == set(panel.SCORES)
    kid = found["scores"]["kid"]
    assert kid["value"] > kid["floor"] + 10 * kid["floor_error"]  # it was not trained
    assert kid["ceiling"] != kid["value"]
    assert all(np.isfinite(score["error"]) for score in found["scores"].values())
    assert found["scores"]["kid"]["generated"] == 64
    assert found["scores"]["fid"]["generated"] == 32
    assert "recognisability" in found["shortcomings"]


def test_a_comparison_with_itself(evaluated, capsys):
    workdir = str(evaluated[1])
    compare.main([workdir, workdir])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.split()[:1] == ["kid"] and "0 ± 0" in line for line in lines) == 1


def subject_of(run, arg: str = "smoke,test", **fields) -> subjects.Subject:
    config = config_of("evaluate", arg, run=str(run), n=4, **fields)
    return subjects.make(config, subjects.load_run(config))[0]


def test_a_pretrained_run_has_the_protocol_of_the_meta_run(evaluated, source):
    subject = subject_of(source, shots=3, adapt_steps=2)
    assert subject.protocol.items() <= evaluated[0]["protocol"].items()
    images = subject.unadapted()
    assert images.shape == (8, 8, 8, 8, 1)
    assert (images[0] != images[1]).any()
    test = data.load("glyphs", "test", size=(8, 8), channels=None)
    for i, (name, parts) in enumerate(subject.protocol["images"].items()):
        for part, found in zip(parts, (subject.support, subject.real, subject.spare), strict=True):
            np.testing.assert_array_equal(found[i], test.images[part])
            assert {test.classes[label] for label in test.labels[part]} == {name}


def test_samples_of_a_pretrained_run(source):
    subject = subject_of(source, "smoke")
    assert (subject.unit, subject.unadapted) == ("group", None)
    assert subject.support.shape == (10, 1024, 8, 8, 1)
    assert subject.real.shape == subject.spare.shape == (10, 4, 8, 8, 1)
    real, spare = (np.ravel(subject.protocol["images"][name]) for name in ("real", "spare"))
    assert len(set(real) | set(spare)) == 80
    first, again, other = subject.draw(0), subject.draw(0), subject.draw(1)
    assert first.shape == (10, 8, 8, 8, 1)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    latest = subject_of(source, "smoke", ema=False)
    assert (latest.draw(0) != first).any()


def test_a_transfer_run_is_compared_with_images_that_it_has_not_seen(source, tmp_path):
    run = save_run(tmp_path, "transfer", "smoke,glyphs", init_from=str(source), shots=3)
    subject = subject_of(run, "smoke")
    chosen = set(json.loads((run / "data.json").read_text())["chosen"])
    protocol = subject.protocol
    assert (protocol["split"], set(protocol["chosen"])) == ("test", chosen)
    assert not chosen & set(np.ravel([protocol["images"][k] for k in ("real", "spare")]).tolist())
    assert subject.support.shape == (10, 3, 8, 8, 1)
    assert (subject.draw(0) != subject.unadapted()).any()
    assert len(subject.seen.classes) > 1000  # the source's training classes


def test_truncated_samples_are_more_alike(source):
    whole, mean = (subject_of(source, truncation=t).draw(0) for t in (None, 0.0))
    assert np.ptp(whole, 1).any()
    assert not np.ptp(mean, 1).any()
    with pytest.raises(ValueError, match="truncation must be 0 or more, got -1"):
        subject_of(source, truncation=-1.0)


def test_the_state_that_is_asked_for(source):
    def params(**fields):
        config = config_of("evaluate", "smoke", run=str(source), **fields)
        state, step = subjects.restore(config, subjects.load_run(config))
        return step, jax.device_get(jax.tree.leaves(state.params)[0])

    (best, moved), (fresh, first) = params(best=True), params(fresh=True)
    assert (best, fresh) == (2, 0)
    np.testing.assert_allclose(moved, 1.1 * first, rtol=1e-6)


def images(*counts: int) -> Images:
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    names = tuple("abcdefgh"[: len(counts)])
    return Images(np.zeros((len(labels), 4, 4, 1), np.uint8), labels, names)


def test_images_are_embedded_in_chunks(monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", 4)
    x = np.random.default_rng(0).integers(0, 256, (2, 5, 8, 8, 1), np.uint8)
    space = scoring.features.load("pixels", (8, 8, 1))
    found = scoring.embed(space, x)
    expected = space(to_float(x.reshape(10, 8, 8, 1))).reshape(2, 5, -1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


class TestEpisodes:
    def choose(self, counts, shots, n, classes=0, largest=64):
        labels, n = subjects.choose_classes(
            images(*counts), shots, n, classes=classes, largest=largest
        )
        return labels.tolist(), n

    def test_n_is_what_the_smallest_class_allows(self):
        assert self.choose([9, 20, 30], 5, None) == ([0, 1, 2], 2)
        assert self.choose([200, 300], 5, None) == ([0, 1], 64)

    def test_smaller_classes_are_left_out_for_a_given_n(self):
        assert self.choose([9, 20, 30], 5, 7) == ([1, 2], 7)
        assert self.choose([9, 9, 9, 9, 9], 5, 2, classes=3) == ([0, 2, 4], 2)

    def test_too_few_images(self):
        with pytest.raises(ValueError, match="class 'b' has 6 images, but 7 are the fewest"):
            self.choose([9, 6], 5, None)
        with pytest.raises(ValueError, match=r"need 2 classes of 9 images.* largest has 10.*is 1"):
            self.choose([10, 8], 5, 2)

    def test_images_depend_on_the_seed_and_the_class_alone(self):
        a, b = images(20, 20, 20), images(5, 20)
        draw = subjects.draw_images
        first = draw(a, 1, 0, 5, 3)
        np.testing.assert_array_equal(draw(b, 1, 0, 5, 3)[0], np.array(first[0]) - 15)
        np.testing.assert_array_equal(draw(a, 1, 0, 5, 7)[0], first[0])
        assert (draw(a, 1, 1, 5, 3)[0] != first[0]).any()
        assert (draw(a, 0, 0, 5, 3)[0] + 20 != first[0]).any()  # no class like another
        assert (np.concatenate(first) // 20 == 1).all()


class TestBadInput:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"run": ""}, "holds no run: give the workdir"),
            ({"run": "nowhere"}, "'nowhere' holds no run"),
            ({"split": "tset"}, "unknown split 'tset'; did you mean 'test'"),
            ({"seeds": 0}, "seeds must be at least 1, got 0"),
            ({"m": 1}, "m must be at least 2, got 1"),
            ({"shots": -1}, "shots must be at least 0, got -1"),
            ({"shots": 0}, "shots must be at least 1"),
        ],
    )
    def test_config(self, fields, message, meta_run, tmp_path):
        config = config_of("evaluate", "smoke", run=str(meta_run))
        config.update_from_flattened_dict(fields)
        with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
            scoring.run(config, tmp_path / "scores")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "scores").exists()

    def test_a_checkpoint_that_is_not_there(self, source):
        with pytest.raises(FileNotFoundError, match="no checkpoint of step 7"):
            subject_of(source, step=7)

    def test_no_checkpoint_with_a_score(self, source, monkeypatch):
        monkeypatch.setattr(Checkpoints, "best", lambda self: None)
        with pytest.raises(ValueError, match="has no scored checkpoint: leave out best"):
            subject_of(source, best=True)

    def test_too_few_images_without_classes(self, source):
        config = config_of("evaluate", "smoke", run=str(source), n=13, m=26)
        message = "240 held-out images, the panel needs 260: 10 groups of n=13, twice"
        with pytest.raises(ValueError, match=message):
            subjects.make(config, subjects.load_run(config))

    def copy(self, run, tmp_path, **fields):
        """A copy of a run with other fields in its config."""
        shutil.copytree(run, tmp_path / "run")
        file = tmp_path / "run" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))
        return tmp_path / "run"

    def test_an_unfinished_run(self, source, tmp_path):
        run = self.copy(source, tmp_path, steps=4)
        with pytest.raises(ValueError, match=r"is at step 2 of 4: let it finish, or .*step=2"):
            evaluate(run, tmp_path)

    def test_a_run_of_another_version(self, source, tmp_path):
        run = self.copy(source, tmp_path)
        (run / "config.json").write_text('{"phase": "pretrain", "steps": 2}')
        with pytest.raises(ValueError, match="made by another version of fsgan"):
            evaluate(run, tmp_path)

    def test_a_run_on_other_data(self, source, tmp_path):
        run = self.copy(source, tmp_path)
        record = json.loads((run / "data.json").read_text())
        record["data"]["train"]["fingerprint"] = "0" * 12
        (run / "data.json").write_text(json.dumps(record))
        with pytest.raises(ValueError, match="learned from other data: its train images"):
            evaluate(run, tmp_path)

    def test_classes_that_were_trained_on(self, source, tmp_path, monkeypatch):
        load = subjects.build.load_data
        same = lambda config, *splits: load(config, "valid", "valid")  # noqa: E731
        config = config_of("evaluate", "smoke", run=str(source), shots=3)
        state = type("State", (), {"params": {}})
        monkeypatch.setattr(subjects, "restore", lambda *_: (state, 2))
        monkeypatch.setattr(subjects.gan, "weights", lambda *_, **__: {})
        monkeypatch.setattr(subjects.build, "load_data", same)
        with pytest.raises(ValueError, match="trained on classes of its valid split"):
            scoring.run(config, tmp_path)

    def test_missing_weights_are_said_and_the_rest_goes_on(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FSGAN_WEIGHTS", str(tmp_path))
        zeros = np.zeros((2, 2, 8, 8, 1), np.uint8)
        subject = subjects.Subject(zeros, zeros, zeros, *[None] * 6)
        spaces, missing = scoring.load_features("pixels,vgg", subject)
        assert list(spaces) == ["pixels"]
        assert "no weight file" in missing["vgg"]
        with pytest.raises(FileNotFoundError, match="no weight file"):
            scoring.load_features("vgg", subject)
        with pytest.raises(ValueError, match="unknown feature space 'pixel'; did you mean 'pixe"):
            scoring.load_features("pixel", subject)

    def test_a_generator_that_is_not_finite(self):
        ones = np.full((2, 2, 8, 8, 1), 7, np.uint8)
        subject = subjects.Subject(ones, ones, ones, *[None] * 3, "class", {}, [])
        space = scoring.features.load("pixels", (8, 8, 1))
        broken = space.replace(apply=lambda params, x: space.apply(params, x) * np.nan)
        with pytest.raises(ValueError, match="rows of the real features are not finite"):
            scoring.score(broken, subject, [], None)

    def test_features_of_generated_images_that_are_not_finite(self):
        """A network that fails at black images alone."""
        grey, black = (np.full((8, n, 8, 8, 1), x, np.uint8) for n, x in ((4, 7), (8, 0)))
        subject = subjects.Subject(grey, grey, grey, *[None] * 3, "class", {}, [])
        space = scoring.features.load("pixels", (8, 8, 1))
        broken = space.replace(apply=lambda params, x: space.apply(params, jnp.sqrt(x + 0.99)))
        with pytest.raises(ValueError, match="8 rows of the generated features are not finite"):
            scoring.score(broken, subject, [black], None)

    def test_images_that_are_not_finite(self, source, monkeypatch):
        """They would be black as uint8."""

        def broken(game, params, key, n):
            return jnp.where(jax.random.uniform(key) < 0.5, jnp.nan, jnp.zeros((n, 8, 8, 1)))

        monkeypatch.setattr(subjects.gan, "sample", broken)
        with pytest.raises(ValueError, match=r"images of [1-9] of 10 classes or groups are not f"):
            subject_of(source, "smoke").draw(0)

    def test_images_of_another_type_or_size(self):
        space = scoring.features.load("pixels", (8, 8, 1))
        with pytest.raises(ValueError, match="images to score are uint8, got float32"):
            scoring.embed(space, np.zeros((2, 2, 8, 8, 1), np.float32))
        with pytest.raises(ValueError, match=r"of \(8, 8, 1\), got \(12, 8, 1\)"):
            scoring.embed(space, np.zeros((2, 2, 12, 8, 1), np.uint8))
