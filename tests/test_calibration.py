"""Failures made of hand-made images, what the scores say of them, and the table in the docs."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import convolve1d

from configs import calibrate
from fsgan import calibration, data, panel, scoring
from fsgan.types import Images

CLASSES, SHOTS, N = 8, 3, 4  # as in test_panel.py, so that one compilation does
DOCS = Path(__file__).parent.parent / "docs"


def patterns(split: str) -> Images:
    """Each class is a black and white pattern, each of its images has some pixels turned."""
    rng = np.random.default_rng(len(split))
    classes, each = CLASSES, SHOTS + 4 * N
    pattern = rng.random((classes, 1, 8, 8, 1)) < 0.5
    images = 255 * (pattern ^ (rng.random((classes, each, 8, 8, 1)) < 0.15))
    names = tuple(f"{split}/{i}" for i in range(classes))
    labels = np.repeat(np.arange(classes, dtype=np.int32), each)
    return Images(images.astype(np.uint8).reshape(-1, 8, 8, 1), labels, names)


@pytest.fixture(autouse=True)
def source(monkeypatch):
    monkeypatch.setattr(data, "load", lambda name, split, **_: patterns(split))


def config_of(**fields):
    config = calibrate.get_config("smoke")
    config.update({"shots": SHOTS, "n": N, **fields})
    return config


def made():
    """Failures of images that are all different: number i is i black pixels."""
    images = np.arange(7 * 13).reshape(7, 13, 1, 1, 1) > np.arange(7 * 13).reshape(7, 13, 1)
    images = (255 * images).astype(np.uint8)
    support, other = images[:, :5], images[:, 5:]
    return support, other, calibration.failures(support, other, seed=0)


class TestFailures:
    def test_copies_show_every_support_image_and_nothing_else(self):
        support, _, found = made()
        for own, copies in zip(support, found["copies"], strict=True):
            assert {x.tobytes() for x in copies} == {x.tobytes() for x in own}

    def test_one_image_of_each_class_or_of_all(self):
        _, other, found = made()
        np.testing.assert_array_equal(found["repeated"], other[:, [0] * 8])
        np.testing.assert_array_equal(found["collapsed"], other[[0] * 7][:, [0] * 8])

    def test_half_of_the_classes_show_another_one(self):
        _, other, found = made()
        numbers = found["half missing"].sum((2, 3, 4)) // 255
        owner = {int(x.sum()) // 255: i for i, row in enumerate(other) for x in row}
        shown = [{owner[int(x)] for x in row} for row in numbers]
        assert all(len(classes) == 1 for classes in shown)
        missing = set(range(7)) - set.union(*shown)
        assert len(missing) == 3
        assert [i for i in range(7) if shown[i] != {i}] == sorted(missing)
        pooled = numbers[:, :4].ravel()  # n of 2n
        assert len(set(pooled)) == len(pooled)

    def test_noise_has_all_grey_levels(self):
        noise = calibration.failures(*np.zeros((2, 4, 6, 28, 28, 1), np.uint8), seed=0)["noise"]
        assert noise.shape == (4, 6, 28, 28, 1)
        counts = np.bincount(noise.ravel(), minlength=256)
        assert counts.min() > 0.5 * counts.mean()
        assert len({x.tobytes() for x in noise.reshape(24, -1)}) == 24

    def test_blur_against_scipy(self):
        images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 12, 3), np.uint8)
        expected = images.astype(float)
        for axis in (2, 3) * 3:
            expected = convolve1d(expected, [0.25, 0.5, 0.25], axis, mode="nearest")
        np.testing.assert_array_equal(calibration.blur(images, passes=3), expected.round())


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda name, split, **_: patterns(split))
        workdir = tmp_path_factory.mktemp("calibrated")
        return calibration.run(config_of(), workdir), workdir


def test_each_failure_is_caught_and_real_images_pass(calibrated):
    short = calibrated[0]["features"]["pixels"]["shortcomings"]
    assert short["real"] == []
    assert "copying_ratio" in short["copies"]
    assert "spread" in short["repeated"]
    assert {"recall", "recognisability"} <= set(short["half missing"])
    assert all(short[name] for name in ("blurred", "collapsed", "noise"))


def test_the_verdicts_of_scores_that_are_known(calibrated):
    scores = calibrated[0]["features"]["pixels"]["scores"]
    assert set(scores) == set(panel.SCORES)
    seen = {name for name, x in scores["copying_ratio"].items() if x["verdict"] == "sees"}
    assert "copies" in seen
    assert scores["spread"]["repeated"]["verdict"] == "sees"
    assert scores["fid"]["noise"]["verdict"] == "sees"
    assert scores["recognisability"]["half missing"]["verdict"] == "sees"
    for row in scores.values():
        assert (row["real"]["difference"], row["real"]["interval"]) == (0, 0)
    assert sum(row["floor"]["verdict"] != "misses" for row in scores.values()) <= 3  # by chance


def test_the_protocol_and_what_is_written(calibrated):
    result, workdir = calibrated
    assert json.loads((workdir / "calibration.json").read_text()) == result
    assert (workdir / "calibration.md").read_text() == calibration.report(result) + "\n"
    protocol = result["protocol"]
    assert {k: protocol[k] for k in ("classes", "shots", "n", "m")} == {
        "classes": CLASSES,
        "shots": SHOTS,
        "n": N,
        "m": 2 * N,
    }
    subject = calibration.make(config_of())
    valid = patterns("valid")
    for i, (name, parts) in enumerate(protocol["images"].items()):
        assert list(map(len, parts)) == [SHOTS, N, N, 2 * N]
        assert len({index for part in parts for index in part}) == SHOTS + 4 * N  # all different
        assert {valid.classes[label] for part in parts for label in valid.labels[part]} == {name}
        sets = (subject.support, subject.real, subject.spare, subject.draw(0))
        for images, part in zip(sets, parts, strict=True):
            np.testing.assert_array_equal(images[i], valid.images[part])
    assert set(subject.seen.classes) == set(patterns("train").classes)


def test_sentences_and_winners():
    row = {
        name: {"value": value, "difference": value - 1, "verdict": verdict}
        for name, value, verdict in [
            ("floor", 9.0, "sees"),
            ("real", 1.0, "misses"),
            ("copies", 0.5, "prefers"),
            ("noise", 3.0, "sees"),
            ("blurred", 1.1, "misses"),
        ]
    }
    assert calibration.sentence("kid", row) == (
        "- `kid` sees noise; misses blurred; prefers copies (best failure: copies)"
    )
    assert calibration.favourite("higher", row) == "noise"
    assert calibration.favourite("floor", row) == "blurred"
    short = {"real": [], "copies": ["copying_ratio"], "noise": []}
    lines = calibration.winners(short, row)
    assert lines[-1] == "Lowest KID: copies; of those that pass: real."
    assert "- copies: copying_ratio" in lines
    assert calibration.winners({"copies": ["spread"]}, row)[-1].endswith("pass: nobody.")


@pytest.mark.parametrize(
    ("best", "delta", "expected"),
    [
        ("lower", 0.2, "sees"),
        ("lower", -0.2, "prefers"),
        ("higher", -0.2, "sees"),
        ("higher", 0.2, "prefers"),
        ("floor", 0.2, "sees"),
        ("floor", -0.2, "sees"),
        ("lower", 0.1, "misses"),
    ],
)
def test_verdicts(best, delta, expected):
    assert calibration.verdict(best, delta, 0.1) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "tset"}, "unknown split 'tset'; did you mean 'test'"),
        ({"shots": 0}, "shots must be at least 1, got 0"),
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"n": N + 1}, "need 2 classes of 23 images, the largest has 19"),
        ({"n": None, "shots": 16}, "16 shots leave 3 images of the smallest class, .* 4: ask for"),
        ({"features": "pixel"}, "unknown feature space 'pixel'"),
    ],
)
def test_bad_input(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        calibration.run(config_of(**fields), tmp_path / "new")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["omniglot", "glyphs"])
def test_the_table_in_the_docs_is_that_of_its_numbers(name):
    result = json.loads((DOCS / f"calibration_{name}.json").read_text())
    assert calibration.report(result) in (DOCS / "calibration.md").read_text()
    for found in result["features"].values():
        passed = [failure for failure, lacks in found["shortcomings"].items() if not lacks]
        assert passed == ["real"]
        assert found["scores"]["kid"]["copies"]["verdict"] == "misses"  # hence the checks
    assert result["versions"].keys() == scoring.versions().keys()
