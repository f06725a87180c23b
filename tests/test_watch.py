"""Each warning comes when it should, once, and not otherwise."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist, squareform

from fsgan import Game, GANState, Method, Pair, augment, data, evaluate, features, watch
from fsgan.images import to_float


def looks(**series):
    """{name: values over time} as looks."""
    return [dict(zip(series, values, strict=True)) for values in zip(*series.values(), strict=True)]


class TestCollapse:
    @pytest.mark.parametrize(
        "series",
        [
            {"recall": [0.5, 0.6, 0.01], "recall_floor": [0.9] * 3},
            {"recall": [0.1, 0.6, 0.05]},  # of its best alone, which was not the last
            {"spread": [0.01], "spread_floor": [0.5]},  # from the beginning
            {"diversity": [0.6, 0.05]},
        ],
    )
    def test_samples_that_are_all_alike(self, series):
        found = watch.warnings(looks(**series))
        assert found.keys() == {"collapse"}
        assert "\n" not in found["collapse"]
        assert all(not watch.warnings(looks(**series)[:i]) for i in range(len(looks(**series))))

    @pytest.mark.parametrize(
        "series",
        [
            {"recall": [0.0, 0.01, 0.02], "recall_floor": [0.9] * 3},  # it has not risen yet
            {"recall": [0.6, 0.07], "recall_floor": [0.6] * 2},
            {"spread": [3.0, 0.4], "spread_floor": [0.5] * 2},
        ],
    )
    def test_what_is_none(self, series):
        assert not watch.warnings(looks(**series))

    def test_it_says_what_is_to_be_known(self):
        found = watch.warnings(looks(recall=[0.5, 0.01], recall_floor=[0.9, 0.9]))
        for text in ("recall is 0.01", "0.5 at its best", "0.9 of real images", "checkpoint"):
            assert text in found["collapse"]


class TestMemorised:
    @pytest.mark.parametrize("name", ["copying_ratio", "nearest_target"])
    def test_outputs_apart_while_samples_become_copies(self, name):
        series = {"d_real": [0.5, 1, 3], "d_fake": [-0.5, -1, -3], name: [0.9, 0.8, 0.3]}
        found = watch.warnings(looks(step=[5, 10, 15], **series))
        assert found.keys() == {"memorised"}
        for text in ("6 apart, at step 5 1,", f"{name} has fallen from 0.9 to 0.3"):
            assert text in found["memorised"]

    @pytest.mark.parametrize(
        "series",
        [
            {"d_real": [1, 3], "copying_ratio": [0.9, 0.6]},  # the samples are new
            {"d_real": [3, 1], "copying_ratio": [0.9, 0.3]},  # it is deceived by copies
            {"d_real": [1, 1.4], "copying_ratio": [0.9, 0.3]},  # as far apart as ever
            {"d_real": [-3, -1], "copying_ratio": [0.9, 0.3]},  # it takes the samples for real
            {"d_real": [1, 3], "recall": [0.9, 0.5]},  # of copying nothing is known
            {"copying_ratio": [0.9, 0.3]},  # and here nothing of the discriminator
        ],
    )
    def test_what_is_none(self, series):
        if "d_real" in series:
            series = {**series, "d_fake": [0, 0]}
        assert not watch.warnings(looks(step=[1, 2], **series))


def test_nothing_is_nothing(tmp_path):
    assert watch.warnings([]) == {}
    assert watch.look(tmp_path) == []


def report(workdir, step: int, **values):
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "phase": "meta", **values}) + "\n")


def test_what_was_reported_is_read_back(tmp_path):
    report(tmp_path, 1, d_real=1.0, rate=3.0)  # no scores
    report(tmp_path, 2, d_real=2.0, d_fake=None)
    report(tmp_path, 2, **{"score/recall": 0.5, "score/kid": None})
    (found,) = watch.history(tmp_path)
    assert found == {"step": 2, "phase": "meta", "d_real": 2.0, "recall": 0.5}


def test_a_warning_comes_once_until_it_is_over(tmp_path):
    found = []
    for step, recall in enumerate((0.5, 0.01, 0.02, 0.5, 0.0)):
        report(tmp_path, step, **{"score/recall": recall})
        found.append(watch.look(tmp_path))  # knows nothing of the looks before but the file
    assert list(map(len, found)) == [0, 1, 0, 0, 1]


# What the observer of transfer sees of generators of target images, augmented ones, and others.


@pytest.fixture(scope="module")
def target():
    """Ten characters, uint8 [10, 8, 8, 1]."""
    return data.load("glyphs", "valid", size=(8, 8), channels=None).images[::20][:10]


def observer(method: Method, target):
    """A function of the generated images [64, h, w, c] and of the method's memory."""
    nets = types.SimpleNamespace(apply=lambda variables, z: variables["params"])
    game = Game(Pair(nets, nets), loss=None, latent=2, method=method)
    source, nothing = Pair(to_float(np.resize(target, (64, 8, 8, 1))), {}), Pair({}, {})
    space = features.load("random_conv", target.shape[1:])
    observe = evaluate.observe_transfer(game, space, source, target, jax.random.key(1))
    log = types.SimpleNamespace(images=lambda *args: None)

    def scores_of(images, p: float = 0.6) -> dict[str, float]:
        state = GANState(
            step=jnp.int32(3),
            key=jax.random.key(0),
            params=Pair(images, {}),
            frozen=nothing,
            opt=nothing,
            ema=nothing,
            memory={"p": jnp.float32(p)},
        )
        return observe(state, log, False)

    return scores_of


METHODS = {
    "fixed": Method(augment=lambda key, x, memory: augment.diff_augment(key, x)),
    "adaptive": Method(augment=lambda key, x, memory: augment.ada(key, x, memory["p"])),
}


@pytest.mark.parametrize("name", METHODS)
def test_augmentation_that_leaks(name, target, key):
    method = METHODS[name]
    scores_of = observer(method, target)
    plain = to_float(np.resize(target, (64, 8, 8, 1)))
    good = scores_of(plain)
    bad = scores_of(jax.jit(method.augment)(key, plain, {"p": jnp.float32(0.6)}))
    assert watch.warnings([good]) == {}
    assert watch.warnings([bad]).keys() == {"leak"}
    size = good["kid_of_augmentation"]
    for scores, near, far in ((good, "targets", "augmented"), (bad, "augmented", "targets")):
        assert abs(scores[f"kid_to_{near}"]) < 0.2 * size
        assert scores[f"kid_to_{far}"] > 0.4 * size
    noise = jnp.tanh(jax.random.normal(key, plain.shape))
    for other in (noise, noise.mean((1, 2), keepdims=True) + 0 * noise):  # far from both
        assert "leak" not in watch.warnings([scores_of(other)])
    if name == "adaptive":  # where nothing is augmented, nothing leaks
        still = scores_of(noise, p=0.0)
        assert still["kid_to_augmented"] == pytest.approx(still["kid_to_targets"], rel=1e-3)
        assert "leak" not in watch.warnings([scores_of(plain, p=0.0)])


def test_variety_around_the_target_images(target, key):
    """Copies are seen by their distance, one image for all by spread; one shot has no floors."""
    scores_of = observer(Method(), target)
    copies = scores_of(to_float(np.resize(target, (64, 8, 8, 1))))
    assert copies.keys() == {"spread", "spread_floor", "diversity", "nearest_target"}
    assert copies["nearest_target"] < 0.01
    assert copies["diversity"] < 0.01 * copies["spread"]  # of each image there are copies alone
    noise = jnp.tanh(jax.random.normal(key, (64, 8, 8, 1)))
    far = scores_of(noise)
    x = features.load("random_conv", (8, 8, 1))
    to_target, to_other = cdist(x(noise), x(to_float(target))), pdist(x(to_float(target)))
    nearest = np.where(np.eye(10), np.inf, squareform(to_other)).min(1)
    assert far["nearest_target"] == pytest.approx(
        np.median(to_target.min(1)) / np.median(nearest), rel=1e-4
    )
    assert far["spread"] == pytest.approx(pdist(x(noise)).mean(), rel=1e-4)
    assert far["spread_floor"] == pytest.approx(to_other.mean(), rel=1e-4)
    same = scores_of(to_float(np.repeat(target[:1], 64, 0)))
    assert watch.warnings([same]).keys() == {"collapse"}
    assert observer(Method(), target[:1])(noise).keys() == {"spread", "diversity"}
