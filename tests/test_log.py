"""What a run reports can be read back, and reads the same whether it was stopped or not."""

import json

import numpy as np
import pytest

from fsgan import log
from fsgan.log import Logger, grid


def read(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "rate"} for line in lines]


def report(workdir, start, stop):
    with Logger(workdir, steps=40, start=start) as logger:
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


def test_grid_geometry():
    images = np.arange(2 * 3 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 3, 4, 5, 3)
    picture = grid(images, scale=2, gap=1)
    assert picture.shape == (2 * 9 + 1, 3 * 11 + 1, 3)
    np.testing.assert_array_equal(picture[10:18:2, 12:22:2], images[1, 1])
    np.testing.assert_array_equal(picture[11:18:2, 13:22:2], images[1, 1])
    assert (picture[9] == 255).all()
    with pytest.raises(ValueError, match="uint8"):
        grid(images.astype(np.float32))


def test_parameter_overview_counts_each_network():
    from fsgan.types import Pair

    text = log.parameter_overview(Pair({"a": np.zeros((30, 40))}, {"b": {"c": np.zeros(7)}}))
    assert text.splitlines()[-1] == "g: 1,200  d: 7"
    assert "d/b/c" in text
