"""What makes each transfer method that method, against SciPy or by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import toys
from adapting import REAL, SEEDS, equal, play, pretrained

from fsgan import gan, subspaces
from fsgan.transfer import (
    _features,
    _fisher,
    adam_kml,
    bsa,
    cdc,
    dcl,
    ewc,
    l2_sp,
    minegan,
    rick,
    rssa,
    scale_shift,
)


@pytest.fixture
def source():
    return pretrained()


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def test_the_released_scale_shift_trains_singular_values_besides():
    """A kernel by hand: its singular values are 2 and 1, its singular vectors the axes."""
    params = {"head": {"kernel": jnp.array([[2.0, 0.0], [0.0, 1.0]]), "bias": jnp.zeros(2)}}
    space = scale_shift.make(as_released=True).subspace.d
    assert scale_shift.make().subspace.d.split(params)[0].keys() == {"head/kernel", "head/bias"}
    trainable, frozen = space.split(params)
    jax.tree.map(np.testing.assert_array_equal, space.join(trainable, frozen), params)
    trainable["values"]["head/kernel"]["scale"] = jnp.array([3.0, 5.0])
    trainable["scales"]["head/kernel"]["scale"] = jnp.array([1.0, 10.0])
    trainable["scales"]["head/bias"] = jnp.array([7.0, 8.0])
    made = space.join(trainable, frozen)["head"]
    np.testing.assert_allclose(made["kernel"], [[6.0, 0.0], [0.0, 50.0]], atol=1e-6)
    np.testing.assert_array_equal(made["bias"], [7.0, 8.0])


class TestBSA:
    def test_reconstructs_each_image_from_its_code(self, source):
        """With the L1 term alone, by hand, of the images that the key chooses."""
        method = bsa.make(perceptual=0.0, emd=0.0, change=0.0, noise=0.0)
        game = method.extend(toys.game())
        params, memory = method.start(game, source, REAL, SEEDS[0])
        chosen = jax.random.randint(jax.random.split(SEEDS[0], 3)[0], (3,), 0, 3)
        made = toys.DENSE.g.apply({"params": params.g}, params.g["codes"][chosen])

        @jax.jit
        def found(params):
            return method.g_loss(game, play(params, memory)[1], 9.0)

        np.testing.assert_allclose(found(params), np.abs(made - REAL[chosen]).mean(), rtol=1e-6)

    def test_samples_are_drawn_at_a_lower_temperature(self, source):
        z = jax.random.normal(SEEDS[0], (2, 3))
        cold = bsa.make().extend(toys.game()).nets.g.apply({"params": {**source.g, "codes": 0}}, z)
        expected = toys.DENSE.g.apply({"params": source.g}, 0.3 * z)
        np.testing.assert_allclose(cold, expected, rtol=1e-5)

    def test_distance_to_normal_is_to_the_nearest_both_ways(self):
        codes, key = jax.random.normal(SEEDS[1], (3, 2)), SEEDS[0]
        normal = np.asarray(jax.random.normal(key, (30, 2)))
        square = np.array([[((c - t) ** 2).sum() for t in normal] for c in np.asarray(codes)])
        expected = square.min(0).mean() + square.min(1).mean()
        np.testing.assert_allclose(jax.jit(bsa.distance_to_normal)(key, codes), expected, rtol=1e-5)

    def test_change_is_that_of_scales_and_shifts(self, source):
        space = subspaces.scale_shift()
        trainable, frozen = space.split(source.g)
        trainable["head/kernel"] = {"scale": trainable["head/kernel"]["scale"].at[0].set(1.5)}
        trainable["block0/bias"] = trainable["block0/bias"].at[1].add(2.0)
        found = jax.jit(bsa.squared_change)(space.join(trainable, frozen), source.g)
        np.testing.assert_allclose(found, 0.5**2 / 16 + 2.0**2 / 6, rtol=1e-5)


class TestMineGAN:
    def test_the_generator_moves_after_so_many_steps(self, source):
        method = minegan.make(mine_steps=3)
        params, _ = jax.jit(lambda: method.start(toys.game(), source, REAL, SEEDS[0]))()
        before = gan.start(params, SEEDS[0], toys.sgd())
        after = before.replace(params=jax.tree.map(jnp.ones_like, params))
        for step, expected in ((2, params), (3, after.params)):
            made = method.finish(None, before.replace(step=step), after, None, {}).params
            assert equal(made.g["head"], expected.g["head"])
            assert equal((made.g["miner"], made.d), (after.params.g["miner"], after.params.d))

    def test_images_come_from_mined_latents(self, source):
        method, u = minegan.make(), jax.random.normal(SEEDS[0], (2, 3))
        params, _ = jax.jit(lambda: method.start(toys.game(), source, REAL, SEEDS[0]))()
        mined = minegan.Miner(128, 2).apply({"params": params.g["miner"]}, u)
        found = method.extend(toys.game()).nets.g.apply({"params": params.g}, u)
        expected = toys.DENSE.g.apply({"params": source.g}, mined)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert not np.allclose(mined, u)


class TestFisher:
    def test_information_is_the_mean_square_of_single_gradients(self, source):
        keys, game = jax.random.split(SEEDS[0], 3), toys.game()
        score = lambda g, key: _fisher.g_score(game, source._replace(g=g), key)  # noqa: E731
        found = jax.jit(lambda g: _fisher.information(score, g, keys))(source.g)["head"]["bias"]
        single = jax.jit(jax.grad(score))
        each = [single(source.g, key)["head"]["bias"] for key in keys]
        np.testing.assert_allclose(found, np.mean(np.square(each), 0), rtol=1e-5)

    def test_scores_are_minus_log_probabilities(self, source):
        game, one = toys.game(), REAL[:1]
        z_key, _ = jax.random.split(SEEDS[0])

        @jax.jit
        def found():
            return _fisher.g_score(game, source, z_key), _fisher.d_score(
                game, source, one, SEEDS[0]
            )

        @jax.jit
        def logits():
            fake = toys.DENSE.g.apply({"params": source.g}, gan.latents(z_key, 1, 3))
            return toys.DENSE.d.apply({"params": source.d}, jnp.concatenate([fake, one]))

        fake, real = 1 / (1 + np.exp(-logits()))
        expected = -np.log(fake), -np.log(real) - np.log(1 - fake)
        np.testing.assert_allclose(found(), expected, rtol=1e-5)


class TestEWC:
    def test_a_larger_fisher_moves_less(self):
        """On the way from the source at 0 to 1: the minimum is at 1 / (1 + fisher)."""
        zero, fisher = {"w": jnp.zeros(3)}, {"w": jnp.array([0.0, 1.0, 9.0])}
        loss = lambda p: jnp.square(p["w"] - 1).sum() + ewc.penalty(p, zero, fisher)  # noqa: E731
        slope = jax.jit(jax.grad(loss))
        np.testing.assert_allclose(slope({"w": jnp.array([1.0, 0.5, 0.1])})["w"], 0, atol=1e-6)
        np.testing.assert_allclose(slope({"w": jnp.ones(3)})["w"], [0.0, 2.0, 18.0], rtol=1e-6)

    def test_information_is_normalised_and_nothing_is_lost_at_the_source(self, source):
        found = ewc.normalised({"a": jnp.array([1.0, 3.0]), "b": {"c": jnp.array([[8.0]])}})
        np.testing.assert_allclose(found["a"], [0.25, 0.75])
        np.testing.assert_allclose(found["b"]["c"], [[2.0]])
        memory = {"source": source.g, "fisher": jax.tree.map(jnp.ones_like, source.g)}
        assert jax.jit(lambda: ewc.make().g_loss(*play(source, memory), 3.0))() == 3.0


def test_l2_sp_pulls_back_to_the_source(source):
    method = l2_sp.make(g_weight=3.0, d_weight=0.0)
    away = jax.tree.map(lambda x: x + 2.0, source)

    def loss(params):
        return method.g_loss(*play(params, source), 0.0)

    pull = jax.jit(jax.grad(lambda g: loss(away._replace(g=g))))(away.g)
    jax.tree.map(lambda x: np.testing.assert_allclose(x, 6.0, rtol=1e-5), pull)
    assert method.d_loss(*play(away, source), 1.0) == 1.0


class TestRSSA:
    def test_divergence_is_the_mean_relative_entropy(self):
        rng = np.random.default_rng(0)
        a, b = ([rng.normal(size=(2, 4, 3)), rng.normal(size=(3, 1, 5))] for _ in range(2))
        each = [
            scipy.stats.entropy(*map(softmax, x), axis=-1).mean() for x in zip(a, b, strict=True)
        ]
        found = jax.jit(rssa.divergence)(a, b)
        np.testing.assert_allclose(found, np.mean(each), rtol=1e-5)

    def test_correlations_are_cosines_of_places_and_of_samples(self):
        x = np.random.default_rng(0).normal(size=(3, 5, 4))  # samples, places, channels
        unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
        found = jax.jit(rssa.self_correlation)(x)
        np.testing.assert_allclose(found, np.einsum("npc,nqc->npq", unit, unit), atol=1e-6)
        found = jax.jit(rssa.disturbance_correlation)(x)
        expected = [
            [[unit[i, p] @ unit[j, p] for j in range(3) if j != i] for i in range(3)]
            for p in range(5)
        ]
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_each_consistency_is_lost_only_away_from_the_source(self):
        """The span is that of all latents: nothing is compressed."""
        source = pretrained(toys.CONV)
        span = {"span": {"basis": jnp.eye(3)}}

        @jax.jit
        def loss(g, self_weight, disturbance_weight):
            method = rssa.make(self_weight=self_weight, disturbance_weight=disturbance_weight)
            game, seen = play(source, source.g, nets=toys.CONV)
            seen = seen._replace(params=source._replace(g={**g, **span}))
            return method.g_loss(method.extend(game), seen, 3.0)

        away = jax.tree.map(jnp.square, source.g)
        for weights in ((5.0, 0.0), (0.0, 5.0)):
            np.testing.assert_allclose(loss(source.g, *weights), 3.0, atol=1e-5)
            assert loss(away, *weights) > 3.01

    def test_latents_are_compressed_towards_those_of_the_target(self, source):
        """By 1 onto their span, here a line; by 0 not at all; the length stays."""
        z, line = jax.random.normal(SEEDS[0], (5, 3)), jnp.array([0.6, 0.0, 0.8])
        g = {**source.g, "span": {"basis": line[:, None]}}
        onto = jnp.sign(z @ line)[:, None] * jnp.linalg.norm(z, axis=1)[:, None] * line
        for compression, expected in ((0.0, z), (1.0, onto)):
            game = rssa.make(compression=compression).extend(toys.game())
            images = toys.DENSE.g.apply({"params": source.g}, expected)
            np.testing.assert_allclose(game.nets.g.apply({"params": g}, z), images, atol=1e-5)

    def test_the_span_is_that_of_latents_that_make_the_target(self, source):
        game, z = toys.game(), jax.random.normal(SEEDS[1], (2, 3))
        images = toys.DENSE.g.apply({"params": source.g}, z)
        found = rssa.invert(game, source.g, images, SEEDS[0], 200)
        again = toys.DENSE.g.apply({"params": source.g}, found)
        assert jnp.square(again - images).mean() < 0.05 * jnp.square(images).mean()
        params, _ = rssa.make().start(game, source, images, SEEDS[0])
        basis = params.g["span"]["basis"]
        np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-6)
        np.testing.assert_allclose(found @ basis @ basis.T, found, atol=1e-5)

    def test_wrong_options(self):
        for options in ({"samples": 1}, {"compression": 1.5}):
            with pytest.raises(ValueError, match=r"2 samples or more|from 0 to 1"):
                rssa.make(**options)


class TestCDC:
    def test_divergence_is_the_relative_entropy_of_a_block_for_each_sample(self):
        rng = np.random.default_rng(0)
        a, b = rng.normal(size=(2, 1, 4, 3)).astype(np.float32)
        found = jax.jit(cdc.divergence)
        assert found(SEEDS[0], a, a) == 0
        expected = scipy.stats.entropy(softmax(a[0]), softmax(b[0]), axis=-1).mean()
        np.testing.assert_allclose(found(SEEDS[0], a, b), expected, rtol=1e-5)

    def test_nothing_is_lost_at_the_source_and_as_released_less_elsewhere(self, source):
        """Cosines of samples with the others; as released the mean over all terms p log(p / q)."""
        methods = [cdc.make(weight=1000.0, as_released=released) for released in (False, True)]
        params, memory = methods[0].start(toys.game(), source, REAL, SEEDS[0])
        away = params._replace(g=jax.tree.map(lambda x: 1.5 * x + 0.1, source.g))

        @jax.jit
        def losses(params):
            """Of the first step, in which whole images are judged."""
            return jnp.array([m.g_loss(*play(params, memory), 3.0) for m in methods])

        np.testing.assert_array_equal(losses(params), 3.0)
        z = jax.random.normal(jax.random.split(SEEDS[0])[0], (4, 3))

        def similarities(params):
            x = np.asarray(_features.blocks(toys.DENSE.g, params.g, z)[0])
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
            return np.array([[x[i] @ x[j] for j in range(4) if j != i] for i in range(4)])

        p, q = (softmax(similarities(params)) for params in (source, away))
        terms = p * np.log(p / q)
        expected = 3 + 1000 * np.array([terms.sum(1).mean(), terms.mean()])
        np.testing.assert_allclose(losses(away), expected, rtol=1e-3)

    def test_whole_images_are_judged_near_anchors_and_patches_elsewhere(self):
        method, game, source = cdc.make(), toys.game(nets=toys.CONV), pretrained(toys.CONV)
        params, memory = method.start(game, source, REAL, SEEDS[0])
        z = jax.random.normal(SEEDS[0], (5, 3))

        @jax.jit
        def look(step):
            """The losses of whole images and of patches, and the latents, at that step."""
            at = {**memory, "step": step}
            seen = play(params, at, nets=toys.CONV)[1]
            both = jnp.concatenate([REAL, seen.fake])
            features = _features.blocks(toys.CONV.d, params.d, both)[0]
            logits = features @ params.d["patch"]["kernel"]  # [6, 2, 2]
            patches = game.loss.d(*jnp.split(logits.ravel(), 2))
            return method.d_loss(game, seen, 3.0), patches, method.latents(SEEDS[1], z, at)

        for step, whole in enumerate([True, False, False, False, True]):
            loss, patches, near = look(step)
            np.testing.assert_allclose(loss, 3.0 if whole else patches, rtol=1e-5)
            distance = np.abs(near[:, None] - memory["anchors"]).max(-1).min(1)
            assert (distance < 0.5).all() == whole
            assert equal(near, z) != whole


class TestDCL:
    def test_contrast_by_hand(self):
        own, others = jnp.array([1.0, 0.0]), jnp.array([[0.0, 0.5], [1.0, 0.5]])
        e = np.exp
        terms = [
            -np.log(e(2.0) / (e(2.0) + e(0.0) + e(1.0))),
            -np.log(e(0.0) / (e(0.0) + e(2.0) + e(1.0))),
        ]
        np.testing.assert_allclose(dcl.contrast(own, others, 0.5), np.mean(terms), rtol=1e-6)

    def test_each_half_asks_for_the_sources_image_of_the_same_latent(self, source):
        """Swapping the adapted generator's latents costs more than leaving them; and so do target
        images that the discriminator cannot tell from the generated ones.
        """
        for weights, worse in (((1.0, 0.0), "latents"), ((0.0, 1.0), "target")):
            method = dcl.make(g_weight=weights[0], d_weight=weights[1])
            game, seen = play(source, source.g)
            best = jax.jit(lambda: method.g_loss(game, seen, 0.0))()  # noqa: B023
            if worse == "latents":  # a source that maps other latents to these features
                order = source.g["block0"]["kernel"][::-1]
                other = {**source.g, "block0": {**source.g["block0"], "kernel": order}}
                seen = seen._replace(memory=other)
            else:
                seen = seen._replace(real=seen.fake)
            assert jax.jit(lambda: method.g_loss(game, seen, 0.0))() > best + 0.1  # noqa: B023


class TestAdAM:
    def test_modulation_is_of_rank_one_and_as_released_mixed_up(self):
        """A kernel of ones [1, 2, 1, 3]: two places, three filters."""
        u, v = jnp.array([1.0, 10.0]), jnp.array([1.0, 2.0, 3.0])
        expected = {  # 1 + u v^T; and its numbers 1, 2, 3, 10, 20, 30 in pairs, one for each filter
            False: [[2.0, 3.0, 4.0], [11.0, 21.0, 31.0]],
            True: [[2.0, 4.0, 21.0], [3.0, 11.0, 31.0]],
        }
        for as_released, made in expected.items():
            space = adam_kml.make(as_released=as_released).subspace.g
            trainable, frozen = space.split({"conv": {"kernel": jnp.ones((1, 2, 1, 3))}})
            trainable["conv/kernel"] |= {"u": u, "v": v}
            found = space.join(trainable, frozen)["conv"]["kernel"]
            np.testing.assert_array_equal(found, np.reshape(made, (1, 2, 1, 3)))

    def test_importance_and_its_quantile(self):
        fisher = {
            "a/kernel": {"u": jnp.array([1.0, 3.0]), "v": jnp.array([0.0, 1.0, 2.0])},
            "b/kernel": {"u": jnp.array([0.0]), "v": jnp.array([9.0])},
            "b/bias": jnp.ones(1),
        }
        values = adam_kml.importance(fisher)
        assert set(values) == {"a/kernel", "b/kernel"}
        np.testing.assert_allclose(values["a/kernel"], [2.0, 3.0, 4.0])
        masks = adam_kml.above(0.5, values)  # of 2, 3, 4, 9: above 3.5
        np.testing.assert_array_equal(masks["a/kernel"], [False, False, True])
        np.testing.assert_array_equal(masks["b/kernel"], [True])


class TestRICK:
    def test_freezes_prunes_and_fine_tunes_after_the_warm_up(self, source):
        """Every step adds 0.1 to all parameters, before the method has its way."""
        method = rick.make(warm_up=2, every=2, samples=2, quantile=0.5, prune=0.1)
        game, tx = toys.game(), toys.sgd()

        @jax.jit
        def step(before):
            after = before.replace(params=jax.tree.map(lambda x: x + 0.1, before.params))
            after = method.finish(game, before, after, REAL[None], {})
            return after.replace(step=after.step + 1)

        params, memory = method.start(game, source, REAL, SEEDS[0])
        states = [gan.start(params, SEEDS[0], tx, method, memory=memory)]
        for _ in range(4):
            states.append(step(states[-1]))
        assert equal(states[1].params.g, source.g)
        assert equal(states[1].params.d["block0"], source.d["block0"])
        assert not equal(states[1].params.d["head"], source.d["head"])
        for player in ("g", "d"):
            before, after = (getattr(s.params, player)["block0"] for s in states[2:4])
            frozen, pruned = (
                np.asarray(getattr(states[2].memory[what], player)["block0/kernel"])
                for what in ("frozen", "pruned")
            )
            assert frozen.any()
            assert pruned.any()
            for leaf in ("kernel", "bias"):
                old, new = np.asarray(before[leaf]), np.asarray(after[leaf])
                assert equal(old[..., frozen], new[..., frozen])
                assert not new[..., pruned].any()
                free = ~frozen & ~pruned
                assert (old != new)[..., free].all()
            later = getattr(states[4].memory["pruned"], player)["block0/kernel"]
            assert (pruned <= np.asarray(later)).all()

    def test_a_filter_is_worth_the_mean_of_its_kernel_and_its_bias(self):
        fisher = {
            "block0": {
                "kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]]),
                "bias": jnp.array([4.0, 1.0]),
            },
            "block1": {"kernel": jnp.ones((3, 3, 2, 1))},
            "head": {"kernel": jnp.ones((2, 1))},
        }
        found = rick.filters(fisher)
        assert set(found) == {"block0/kernel", "block1/kernel"}
        np.testing.assert_allclose(found["block0/kernel"], [3.0, 2.0])
