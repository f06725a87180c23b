"""The phase `sample`: images of a pretrained and of a meta-trained run, and bad input."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from test_evaluate import SMALL, config_of, save_run

from fsgan import drawing


def sample(run, workdir, **fields):
    drawing.run(config_of("sample", "", run=str(run), **fields), workdir)
    files = sorted((workdir / "images").iterdir())
    return np.stack([np.asarray(Image.open(file)) for file in files])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("source"), "pretrain", "smoke", **SMALL)


def test_images_a_grid_and_a_film_strip(source, tmp_path):
    images = sample(source, tmp_path, n=5)
    assert images.shape == (5, 8, 8)
    assert images.std(0).max() > 0  # not five times the same
    np.testing.assert_array_equal(sample(source, tmp_path / "again", n=5), images)
    assert (sample(source, tmp_path / "other", n=5, seed=1) != images).any()
    assert Image.open(tmp_path / "grid.png").height < Image.open(tmp_path / "film.png").height


def test_a_meta_run_adapts_to_the_target(tmp_path):
    plain = {"loss": "hinge", "penalty.gradient_penalty": 0.0}  # compiles faster
    run = save_run(tmp_path / "meta", "maml_gan", "smoke,reptile", shots=3, **plain, **SMALL)
    target = tmp_path / "mine"
    for colour, name in ((255, "white"), (0, "black")):
        (target / name).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (20, 30), colour).save(target / name / f"{i}.png")
    white, black = (
        sample(run, tmp_path / name, n=4, target=f"folder:{target / name}").astype(float)
        for name in ("white", "black")
    )
    assert white.mean() > black.mean()
    with pytest.raises(ValueError, match="says to which images"):
        sample(run, tmp_path / "none", n=4)


def test_what_cannot_be_drawn_is_one_line(source, tmp_path):
    for fields, message in (
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"target": "folder:x"}, "leave out target"),
        ({"step": 7}, "no checkpoint of step 7"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            sample(source, tmp_path, **fields)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        sample(tmp_path, tmp_path)
    assert not (tmp_path / "images").exists()


def test_the_way_between_latents_is_closed_and_stays_as_long(key):
    way = drawing.path(key, 500, stops=3, frames=4)
    ends = np.linalg.norm(way[::4], axis=1)
    lengths = np.linalg.norm(way, axis=1)
    assert way.shape == (12, 500)
    assert lengths.min() > 0.95 * ends.min()
    steps = np.linalg.norm(np.roll(way, -1, 0) - way, axis=1)
    assert steps.max() < 1.2 * steps.min()  # even steps, also back to the start
    np.testing.assert_allclose(way[0], jax.random.normal(key, (3, 500))[0], rtol=1e-5)


def test_a_run_of_another_version_is_one_line(source, tmp_path):
    run = shutil.copytree(source, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    del config["nets"]
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="made by another version of fsgan"):
        sample(run, tmp_path)
