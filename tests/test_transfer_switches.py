"""What makes each switch that switch: regularisation and augmentation of the discriminator."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from adapting import REAL, SEEDS, play, pretrained

from fsgan.transfer import ada, consistency, diff_augment, imle, lecam, mode_seeking


@pytest.fixture
def source():
    return pretrained()


def finished(method, memory, metrics) -> dict:
    """The memory after a step on a batch of three images with these metrics."""
    state = SimpleNamespace(memory=memory, replace=lambda memory: memory)
    return method.finish(None, state, state, REAL[None], metrics)


def test_ada_follows_the_sign_of_overfitting(source, monkeypatch):
    method = ada.make(images=60)
    _, memory = method.start(None, source, REAL, SEEDS[0])
    p = [memory["p"]]
    for sign in (1.0, 1.0, 0.6, 0.2, 0.2, 0.2):
        memory = finished(method, memory, {"d_sign": sign})
        p.append(memory["p"])
    np.testing.assert_allclose(p, [0.0, 0.05, 0.1, 0.1, 0.05, 0.0, 0.0], atol=1e-6)
    _, seen = play(source, memory)
    seen = seen._replace(on_real=jnp.array([2.0, -1.0, 3.0, 0.5]))
    np.testing.assert_allclose(method.report(seen)["d_sign"], 0.5)
    monkeypatch.setattr(ada.augment, "ada", lambda key, images, p: images * p)
    np.testing.assert_array_equal(method.augment(SEEDS[0], REAL, {"p": 0.5}), REAL * 0.5)


def test_diff_augment_follows_its_policy(monkeypatch):
    monkeypatch.setattr(diff_augment.augment, "diff_augment", lambda key, x, policy: policy)
    assert diff_augment.make(policy=("cutout",)).augment(SEEDS[0], REAL, {}) == ("cutout",)


def test_lecam_pulls_logits_towards_the_other_sides_average(source):
    method = lecam.make(weight=2.0, decay=0.5)
    memory = {"real": jnp.array(0.3), "fake": jnp.array(-0.2), "one": jnp.array(0.5)}
    game, seen = play(source, memory)
    real, fake = np.asarray(seen.on_real), np.asarray(seen.on_fake)
    a_real = (0.5 * 0.3 + 0.5 * real.mean()) / 0.75
    a_fake = (0.5 * -0.2 + 0.5 * fake.mean()) / 0.75
    above, below = np.maximum(real - a_fake, 0), np.maximum(a_real - fake, 0)
    expected = (above**2).mean() + (below**2).mean()
    np.testing.assert_allclose(method.d_loss(game, seen, 1.0), 1 + 2 * expected, rtol=1e-5)
    _, memory = lecam.make().start(None, source, REAL, SEEDS[0])
    for mean in (1.0, 2.0, 3.0):
        memory = finished(lecam.make(), memory, {"d_real": mean, "d_fake": -mean})
    expected = 0.01 * (3.0 + 0.99 * 2.0 + 0.99**2 * 1.0)
    np.testing.assert_allclose(memory["real"], expected, rtol=1e-5)
    np.testing.assert_allclose(memory["fake"], -expected, rtol=1e-5)
    np.testing.assert_allclose(memory["one"], 1 - 0.99**3, rtol=1e-5)


def test_consistency_compares_an_image_with_itself_moved(source):
    """Of real images by default; bCR is the same of generated ones besides."""
    real = jnp.arange(64.0).reshape(4, 4, 4, 1) / 64
    game, seen = play(source, real=real)
    move = jax.jit(consistency.moved, static_argnums=2)
    judge = lambda x: np.asarray(toys.DENSE.d.apply({"params": source.d}, x))  # noqa: E731
    expected = 1.0
    keys, seen = jax.random.split(seen.key), seen._replace(augment=None)
    for images, key, fake_weight in zip((real, seen.fake), keys, (0.0, 10.0), strict=True):
        expected += 10 * np.square(judge(images) - judge(move(key, images, True))).mean()
        method = consistency.make(fake_weight=fake_weight)
        loss = jax.jit(lambda seen, m=method: m.d_loss(game, seen, 1.0))(seen)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
    right = jnp.zeros((64, 4, 4, 1)).at[:, :, 3].set(1.0)  # its last column; shifts are by one
    left = lambda x: (np.asarray(x)[:, :, :2] > 0).any((1, 2, 3)).sum()  # noqa: E731
    assert 10 < left(move(SEEDS[0], right, True)) < 32  # 2/3 of half of them
    assert left(move(SEEDS[0], right, False)) == 0


def test_mode_seeking_is_the_inverse_of_the_images_change_by_the_latents(source):
    game, seen = play(source, real=jnp.concatenate([REAL, REAL[:1]]))
    x, z = np.asarray(seen.fake), np.asarray(seen.z)
    ratio = np.abs(x[:2] - x[2:]).mean() / np.abs(z[:2] - z[2:]).mean()
    found = mode_seeking.make(weight=3.0).g_loss(game, seen, 1.0)
    np.testing.assert_allclose(found, 1 + 3 / (ratio + 1e-5), rtol=1e-5)
    with pytest.raises(ValueError, match="a batch of 2 or more"):
        mode_seeking.make().g_loss(*play(source, real=REAL[:1]), 0.0)


def test_imle_is_the_mean_distance_from_each_image_to_the_nearest_sample(source):
    game, seen = play(source)
    real, fake = (
        np.asarray(x).reshape(-1, 2, 2, 2, 2, 1).mean((2, 4)) for x in (seen.real, seen.fake[:2])
    )
    apart = [[4 * np.square(a - b).sum() for b in fake] for a in real]  # 4 pixels each
    expected, other_way = (np.sqrt(np.min(apart, axis)).mean() for axis in (1, 0))
    assert not np.isclose(expected, other_way, rtol=1e-2)
    seen = seen._replace(fake=seen.fake[:2])
    found = imle.make(weight=3.0).g_loss(game, seen, 1.0)
    np.testing.assert_allclose(found, 1 + 3 * expected, rtol=1e-5)


def test_imle_pulls_as_strongly_as_its_weight_from_near_and_far(source):
    game, seen = play(source, real=REAL[:1])
    pull = jax.grad(lambda x: imle.make(weight=0.5).g_loss(game, seen._replace(fake=x), 0.0))
    # Blocks of 2x2 pixels are one value, brighter than the image's: all differ by as much.
    for far in (0.1, 10.0):
        slope = np.asarray(pull(seen.real + far))
        np.testing.assert_allclose(np.sqrt(np.square(slope).sum()), 0.5, rtol=1e-5)
        assert (slope > 0).all()
    assert np.isfinite(pull(seen.real)).all()


def test_imle_pulls_from_where_a_moved_image_is_nearest(source):
    """A dot two pixels below the image's and three right of it: near after a move by two, not one,
    as all of a block of 2x2 pixels are one place.
    """
    ground = -jnp.ones((1, 8, 8, 1))
    dot, there = (ground.at[0, i, j].set(1.0) for i, j in ((2, 2), (4, 5)))
    game, seen = play(source)

    def loss(shift, fake, real=dot):
        both = seen._replace(real=real, fake=fake)
        return imle.make(weight=1.0, shift=shift).g_loss(game, both, 0.0)

    # Dots in two blocks: a mean of 4 pixels is 1/2 off, with 4 pixels to a mean, in each.
    np.testing.assert_allclose([loss(0, there), loss(1, there)], 2**0.5, rtol=1e-5)
    np.testing.assert_allclose([loss(2, there), loss(3, there)], 0.0, atol=1e-5)
    # A faint dot there is to become a bright one there, and what is like nothing is left alone.
    fake = jnp.concatenate([ground.at[0, :4].set(1.0), (there - 1) / 2])
    slope = np.asarray(jax.grad(lambda x: loss(2, x))(fake))[..., 0]
    assert (slope[1, 4:6, 4:6] < 0).all()
    assert not slope[0].any()
    assert np.count_nonzero(slope) == 4
    # An edge goes on: a half moved by two is three quarters.
    half, most = (ground.at[0, i:].set(1.0) for i in (4, 2))
    np.testing.assert_allclose(loss(2, most, real=half), 0.0, atol=1e-5)
    # Each image has moves of its own.
    fake, real = jnp.concatenate([most, there]), jnp.concatenate([dot, half])
    np.testing.assert_allclose(loss(2, fake, real), 0.0, atol=1e-5)
    with pytest.raises(ValueError, match="a shift of 0 pixels or more, got -1"):
        imle.make(shift=-1)
