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
from fsgan.log import Logger
from fsgan.pictures import grid
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


def test_importing_log_is_cheap():
    heavy = "{'matplotlib', 'tensorboardX', 'clu', 'PIL', 'orbax', 'tensorflow'}"
    code = f"import sys, fsgan.log; assert not {heavy} & set(sys.modules), sys.modules.keys()"
    root = Path(log.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_parameter_overview_counts_each_network():
    text = log.parameter_overview(Pair({"a": np.zeros((30, 40))}, {"b": {"c": np.zeros(7)}}))
    assert text.splitlines()[-1] == "g: 1,200  d: 7"
    assert "d/b/c" in text
