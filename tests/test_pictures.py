"""Grids are exact to the pixel, and curves show all that was reported."""

import numpy as np
import pytest
from PIL import Image

from fsgan import pictures
from fsgan.log import Logger
from fsgan.pictures import grid


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
    assert pictures.curves(tmp_path) is None
    with Logger(tmp_path, steps=100) as logger:
        for step in range(1, 101):
            logger.write(step, "pretrain", {"g_loss": 1 / step if step > 1 else np.nan, "lr": 0.0})
        logger.scores(50, "pretrain", {"energy": 1.0, "energy_floor": 0.1})
        logger.scores(100, "pretrain", {"energy": 1.0, "test_energy_before": 0.1, "kid": 0.3})
    drawn = []

    def draw(axes, series):
        drawn.append({name: points.shape for name, points in series.items()})
        original(axes, series)

    original = pictures._draw
    monkeypatch.setattr(pictures, "_draw", draw)
    with Image.open(pictures.curves(tmp_path)) as picture:
        assert picture.width > 1000
        assert np.asarray(picture).std() > 1
    once, twice, always = (1, 2), (2, 2), (100, 2)
    assert drawn == [  # a panel for each score
        {"g_loss": always},
        {"score/energy": twice, "score/energy_floor": once, "score/test_energy_before": once},
        {"score/kid": once},
        {"lr": always},
        {"rate": always},
    ]


def test_many_curves_have_their_names_beside_all_panels(tmp_path):
    def drawn(*counts):
        line = np.stack([np.arange(6.0), np.arange(6.0)], 1)
        panels = {str(i): {f"c{j}": line for j in range(n)} for i, n in enumerate(counts)}
        pictures.plot(panels, tmp_path / "picture.png")
        with Image.open(tmp_path / "picture.png") as picture:
            return np.asarray(picture.convert("L"))

    few, many, other = drawn(3, 3), drawn(18, 18), drawn(18, 17)
    assert many.shape[1] > few.shape[1] == other.shape[1]
    right = many[:, few.shape[1] :]
    assert (right < 128).any(axis=1).sum() > 18 * 5  # a line of text for each


def test_running_mean_keeps_a_constant_and_skips_gaps():
    values = np.full(50, 3.0)
    values[20] = np.nan
    np.testing.assert_allclose(pictures._running_mean(values, 5), 3.0)
    np.testing.assert_array_equal(pictures._running_mean(values, 0), values)
