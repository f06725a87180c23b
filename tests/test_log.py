"""What a run reports can be read back, and reads the same whether it was stopped or not."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from fsgan import log
from fsgan.log import Logger, grid
from fsgan.types import Pair


def read(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "rate"} for line in lines]


def report(workdir, start, stop):
    with Logger(workdir, steps=40, start=start) as logger:
        if start == 0:
            logger.scores(0, "meta", {"energy": 1.0})
        for step in range(start + 10, stop + 10, 10):
            logger.write(step, "meta", {"g_loss": 1 / step})
            if step % 20 == 0:
                logger.scores(step, "meta", {"energy": step / 100})


def test_resumed_jsonl_equals_an_unbroken_one(tmp_path):
    report(tmp_path / "unbroken", 0, 40)
    report(tmp_path / "broken", 0, 30)
    with (tmp_path / "broken" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "pha')  # killed while writing
    report(tmp_path / "broken", 20, 40)
    assert read(tmp_path / "broken") == read(tmp_path / "unbroken")
    report(tmp_path / "broken", 0, 40)
    assert read(tmp_path / "broken") == read(tmp_path / "unbroken")


def test_non_finite_values_are_null(tmp_path):
    with Logger(tmp_path, steps=10) as logger:
        logger.write(5, "pretrain", {"a": float("nan"), "b": -np.inf, "c": np.float32(0.5)})
    assert read(tmp_path) == [{"step": 5, "phase": "pretrain", "a": None, "b": None, "c": 0.5}]


def read_events(workdir):
    """The events in TensorBoard's files, oldest first, without TensorFlow."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(
        (workdir / "tensorboard").iterdir(), key=lambda p: (p.stat().st_mtime_ns, p.name)
    ):
        data = path.read_bytes()
        while data:  # length, its checksum, the event, its checksum
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_tensorboard_reads_back(tmp_path, capfd):
    with Logger(tmp_path, steps=40) as logger:
        logger.write(10, "meta", {"g_loss": 0.25, "d_loss": float("nan")})
        logger.scores(10, "meta", {"energy": 0.5})
        logger.images(10, "samples", np.zeros((4, 5, 1), np.uint8))
    values = {v.tag: (e.step, v) for e in read_events(tmp_path) for v in e.summary.value}
    assert values.keys() == {"train/g_loss", "train/rate", "score/energy", "samples"}
    assert {step for step, _ in values.values()} == {10}
    assert values["train/g_loss"][1].simple_value == 0.25
    assert (values["samples"][1].image.height, values["samples"][1].image.width) == (4, 5)
    assert capfd.readouterr().err == ""


def test_resuming_purges_later_events(tmp_path):
    with Logger(tmp_path, steps=40, start=20):
        pass
    starts = [e.step for e in read_events(tmp_path) if e.HasField("session_log")]
    assert starts == [21]  # TensorBoard hides what it has of this step and later ones


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(log.time, "perf_counter", clock)
    return clock


def test_console_lines(tmp_path, capsys, clock):
    with Logger(tmp_path, steps=1000, start=100) as logger:
        clock.now = 32.0  # 30 s of compilation, 2 s for 100 steps
        logger.write(200, "meta", {"g_loss": 0.6931, "d_loss": 12345.6}, compile_seconds=30.0)
        clock.now = 40.0  # scores take 8 s: in the ETA, not in the rate
        logger.scores(200, "meta", {"energy": 0.5, "energy_floor": 0.01, "spread": 1.0})
        clock.now = 42.0
        logger.write(300, "meta", {"g_loss": 1.0, "d_loss": -1e-5})
    assert capsys.readouterr().out.splitlines() == [
        "meta  200/1000  20% | 50.0 steps/s | ETA 16s | g_loss 0.6931    d_loss 1.235e+04"
        " | compiled in 30.0 s",
        "meta 200 scores: energy 0.5000    energy_floor 0.01000   spread 1.000",
        "meta  300/1000  30% | 50.0 steps/s | ETA 42s | g_loss 1.000     d_loss -1.000e-05"
        " | energy 0.5 (floor 0.01) @200",
    ]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["rate"] == 50


def test_other_processes_are_silent(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with Logger(tmp_path, steps=10) as logger:
        logger.write(5, "pretrain", {"g_loss": 1.0})
        logger.scores(5, "pretrain", {"energy": 1.0})
        logger.images(5, "samples", np.zeros((4, 4, 3), np.uint8))
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_are_exact_on_disk(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (2, 2, 4, 4, channels), np.uint8)
    picture = grid(images, scale=1)
    with Logger(tmp_path, steps=10) as logger:
        logger.images(7, "valid", picture)
    with Image.open(tmp_path / "samples" / "valid_00000007.png") as file:
        np.testing.assert_array_equal(np.asarray(file).reshape(picture.shape), picture)


def test_grid_geometry():
    images = np.arange(2 * 3 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 3, 4, 5, 3)
    picture = grid(images, scale=2, gap=1)
    assert picture.shape == (2 * 9 + 1, 3 * 11 + 1, 3)
    np.testing.assert_array_equal(picture[10:18:2, 12:22:2], images[1, 1])
    np.testing.assert_array_equal(picture[11:18:2, 13:22:2], images[1, 1])
    assert (picture[9] == 255).all()
    with pytest.raises(ValueError, match="uint8"):
        grid(images.astype(np.float32))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_labels_lie_outside_of_the_images(channels):
    images = np.full((2, 3, 28, 28, channels), 128, np.uint8)
    labels = {"row_labels": ["support", "query"], "col_labels": ["a", "b", "c"]}
    plain, picture = grid(images), grid(images, **labels)
    top, left = np.subtract(picture.shape, plain.shape)[:2]
    np.testing.assert_array_equal(picture[top:, left:], plain)
    assert plain.shape == (2 * 58 + 2, 3 * 58 + 2, channels)
    dark = (picture[..., 0] < 100).nonzero()
    row_ink = dark[0][dark[1] < left]
    assert {(y - top) // 58 for y in row_ink} == {0, 1}  # each beside its own row
    col_ink = dark[1][dark[0] < top]
    assert {(x - left) // 58 for x in col_ink} == {0, 1, 2}
    turned = grid(images, col_labels=["a", "Old_Church_Slavonic_(Cyrillic)/1", "c"])
    assert turned.shape[0] > picture.shape[0] + 50
    np.testing.assert_array_equal(turned[-len(plain) :], plain)
    assert (turned[: -len(plain), ..., 0] < 100).any(axis=1).mean() > 0.5
    foot = turned[-len(plain) - 12 : -len(plain), :58, 0]
    assert (foot < 100).any()  # the short label stands on its column
    with pytest.raises(ValueError, match="2 col_labels for 3 cols"):
        grid(images, col_labels=["a", "b"])


def test_curves(tmp_path, monkeypatch):
    assert log.curves(tmp_path) is None
    with Logger(tmp_path, steps=100) as logger:
        for step in range(1, 101):
            logger.write(step, "pretrain", {"g_loss": 1 / step if step > 1 else np.nan, "lr": 0.0})
        logger.scores(100, "pretrain", {"energy": 1.0, "energy_floor": 0.1})
    drawn = {}

    def draw(axes, series):
        drawn.update({name: points.shape for name, points in series.items()})
        original(axes, series)

    original = log._draw
    monkeypatch.setattr(log, "_draw", draw)
    with Image.open(log.curves(tmp_path)) as picture:
        assert picture.width > 1000
        assert np.asarray(picture).std() > 1
    once, always = (1, 2), (100, 2)
    assert drawn == {
        **{"g_loss": always, "lr": always, "rate": always},
        **{"score/energy": once, "score/energy_floor": once},
    }


def test_running_mean_keeps_a_constant_and_skips_gaps():
    values = np.full(50, 3.0)
    values[20] = np.nan
    np.testing.assert_allclose(log._running_mean(values, 5), 3.0)
    np.testing.assert_array_equal(log._running_mean(values, 0), values)


def test_importing_log_is_cheap():
    heavy = "{'matplotlib', 'tensorboardX', 'clu', 'PIL', 'orbax', 'tensorflow'}"
    code = f"import sys, fsgan.log; assert not {heavy} & set(sys.modules), sys.modules.keys()"
    root = Path(log.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_parameter_overview_counts_each_network():
    text = log.parameter_overview(Pair({"a": np.zeros((30, 40))}, {"b": {"c": np.zeros(7)}}))
    assert text.splitlines()[-1] == "g: 1,200  d: 7"
    assert "d/b/c" in text
