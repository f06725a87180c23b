"""Every file of fsgan/transfer keeps the contract; and what makes each method that method."""

import functools
import importlib
import inspect
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import toys

import fsgan.transfer
from fsgan import Method, Pair, gan, plugins, subspaces
from fsgan.transfer import (
    _features,
    _fisher,
    ada,
    adam_kml,
    bsa,
    cdc,
    combine,
    consistency,
    dcl,
    diff_augment,
    ewc,
    freeze_d,
    l2_sp,
    lecam,
    minegan,
    mode_seeking,
    rick,
    rssa,
)
from fsgan.types import Play

NAMES = plugins.names(fsgan.transfer)
REAL = toys.images(jax.random.key(5), 4)  # the target
SEEDS = jax.random.split(jax.random.key(0), 2)


def equal(a, b) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@functools.cache
def pretrained(nets=toys.DENSE):
    return jax.jit(lambda key: gan.init(key, toys.game(nets=nets)))(jax.random.key(1))


def setup(method, nets=toys.DENSE):
    """The game that is played, and the source's parameters."""
    return method.extend(toys.game(nets=nets, method=method)), pretrained(nets)


def begin(method, game, source, key, tx=None):
    params, memory = method.start(game, source, REAL, key)
    return gan.start(params, key, tx or toys.sgd(0.1), method, memory=memory)


@functools.cache
def adapted(name, **options):
    """The default method after three steps on the target, for two seeds: see `adapt`."""
    return adapt(importlib.import_module(f"fsgan.transfer.{name}").make(**options))


def adapt(method):
    """(game, source, function, its result for two seeds): seeds -> (begun, after, metrics)."""
    game, source = setup(method)
    batches = jnp.broadcast_to(REAL, (3, *REAL.shape))
    traces = []

    def one(key):
        traces.append(key)
        begun = begin(method, game, source, key)
        return begun, *gan.adapt(gan.make_step(game, toys.sgd(0.1)), begun, batches)

    function = jax.jit(jax.vmap(one))
    made = function(SEEDS)
    return SimpleNamespace(
        method=method,
        game=game,
        source=source,
        function=function,
        traces=traces,
        made=made,
        begun=jax.tree.map(lambda x: x[0], made[0]),
        after=jax.tree.map(lambda x: x[0], made[1]),
        metrics=made[2],
    )


@pytest.mark.parametrize("name", NAMES)
class TestEveryMethod:
    def test_keeps_structure_and_frozen_leaves_and_trains_the_rest(self, name):
        run = adapted(name)
        (begun, after, metrics), shapes = run.made, lambda x: (x.shape, x.dtype)
        assert jax.tree.structure(begun) == jax.tree.structure(after)
        assert jax.tree.map(shapes, begun) == jax.tree.map(shapes, after)
        assert equal(begun.frozen, after.frozen)
        assert not equal(begun.params, after.params)
        assert set(metrics) >= {"g_loss", "d_loss", "d_real", "d_fake"}
        assert all(value.shape == (2, 3) for value in metrics.values())
        assert all(np.isfinite(value).all() for value in metrics.values())

    def test_is_deterministic_for_each_of_many_seeds_and_compiled_once(self, name):
        run = adapted(name)
        swapped = run.function(SEEDS[::-1])
        for one, other in zip(run.made[1:], swapped[1:], strict=True):
            one, other = (
                [x for x in jax.tree.leaves(t) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
                for t in (one, other)
            )
            assert equal(one, [x[::-1] for x in other])
        assert len(run.traces) == 1

    def test_begins_with_the_source_generator(self, name):
        run = adapted(name)
        params = gan.join(run.method, run.begun.params, run.begun.frozen)
        assert equal(run.source.g, {name: params.g[name] for name in run.source.g})
        latents = jax.random.normal(SEEDS[0], (2, 3))
        assert run.game.nets.g.apply({"params": run.source.g}, latents).shape == (2, *toys.SHAPE)

    def test_every_option_has_a_default(self, name):
        module = importlib.import_module(f"fsgan.transfer.{name}")
        assert set(inspect.signature(module.make).parameters) == set(plugins.defaults(module.make))
        assert module.__doc__


def play(params, memory=None, z=None, real=REAL, key=SEEDS[0], nets=toys.DENSE, fake=None):
    """What a hook sees, and the game, of toys."""
    game = toys.game(nets=nets)
    z = jax.random.normal(key, (len(real), 3)) if z is None else z
    fake = nets.g.apply({"params": params.g}, z) if fake is None else fake
    on_real, on_fake = (nets.d.apply({"params": params.d}, x) for x in (real, fake))
    return game, Play(params, z, real, fake, on_real, on_fake, lambda x: x, key, memory)


@pytest.fixture
def source():
    return pretrained()


def test_finetune_trains_everything():
    run = adapted("finetune")
    assert run.after.frozen == ({}, {})
    assert jax.tree.structure(run.after.params) == jax.tree.structure(run.source)
    alone = begin(run.method, run.game, run.source, SEEDS[0])
    batches = jnp.broadcast_to(REAL, (3, *REAL.shape))
    alone, _ = jax.jit(lambda s: gan.adapt(gan.make_step(run.game, toys.sgd(0.1)), s, batches))(
        alone
    )
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, alone.params, run.after.params)


def ends(run) -> Pair:
    return gan.weights(run.after, run.method, ema=False)


def test_freeze_d_keeps_the_first_blocks_of_the_discriminator():
    run = adapted("freeze_d")
    assert equal(ends(run).d["block0"], run.source.d["block0"])
    assert not equal(ends(run).d["head"], run.source.d["head"])
    assert not equal(ends(run).g["block0"], run.source.g["block0"])
    assert set(run.after.params.d) == {"head/kernel", "head/bias"}


def test_freeze_d_beyond_the_network_is_an_error():
    method = freeze_d.make(blocks=8)
    with pytest.raises(ValueError, match="no layer 'block1' to freeze"):
        begin(method, *setup(method), SEEDS[0])


def test_feature_extraction_trains_a_new_head_on_fixed_features():
    run = adapted("feature_extraction")
    for player, was in zip(ends(run), run.source, strict=True):
        assert equal(player["block0"], was["block0"])
        assert not equal(player["head"], was["head"])
    assert not equal(run.begun.params.d["head/kernel"], run.source.d["head"]["kernel"])


def test_scale_shift_keeps_the_direction_of_every_filter():
    run = adapted("scale_shift")
    for new, old in zip(ends(run), run.source, strict=True):
        ratio = new["head"]["kernel"] / old["head"]["kernel"]
        np.testing.assert_allclose(ratio, jnp.broadcast_to(ratio[:1], ratio.shape), rtol=1e-5)
        assert not np.allclose(ratio, 1)


def test_singular_values_keep_the_singular_vectors():
    run = adapted("singular_values")
    for new, old in zip(ends(run), run.source, strict=True):
        u, _, vt = np.linalg.svd(old["head"]["kernel"], full_matrices=False)
        inside = u.T @ new["head"]["kernel"] @ vt.T
        np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-6)
        assert not np.allclose(new["head"]["kernel"], old["head"]["kernel"])
        assert equal(new["head"]["bias"], old["head"]["bias"])


def test_lora_changes_kernels_by_products_of_its_rank():
    run = adapted("lora")
    change = ends(run).d["block0"]["kernel"] - run.source.d["block0"]["kernel"]  # [16, 5]
    values = np.linalg.svd(change, compute_uv=False)
    assert values[3] > 1e3 * values[4]
    assert equal(ends(run).d["block0"]["bias"], run.source.d["block0"]["bias"])


class TestBSA:
    def test_reconstructs_each_image_from_its_code(self):
        """With the L1 term alone, of one image, by hand; and the discriminator stays."""
        method = bsa.make(perceptual=0.0, emd=0.0, change=0.0, noise=0.0)
        game, source = setup(method)
        params, memory = method.start(game, source, REAL[:1], SEEDS[0])
        made = toys.DENSE.g.apply({"params": params.g}, params.g["codes"])

        @jax.jit
        def found(params):
            return method.g_loss(game, play(params, memory, real=REAL[:1])[1], 9.0)

        np.testing.assert_allclose(found(params), np.abs(made - REAL[:1]).mean(), rtol=1e-6)
        assert equal(ends(adapted("bsa")).d, adapted("bsa").source.d)

    def test_samples_are_drawn_at_a_lower_temperature(self):
        run, z = adapted("bsa"), jax.random.normal(SEEDS[0], (2, 3))
        params = run.begun.params.g, run.begun.frozen.g
        cold = run.game.nets.g.apply({"params": run.method.subspace.g.join(*params)}, z)
        np.testing.assert_allclose(
            cold, toys.DENSE.g.apply({"params": run.source.g}, 0.3 * z), rtol=1e-5
        )

    def test_distance_to_normal_is_to_the_nearest_both_ways(self):
        codes, key = jax.random.normal(SEEDS[1], (3, 2)), SEEDS[0]
        normal = np.asarray(jax.random.normal(key, (30, 2)))
        square = np.array([[((c - t) ** 2).sum() for t in normal] for c in np.asarray(codes)])
        expected = square.min(0).mean() + square.min(1).mean()
        np.testing.assert_allclose(bsa.distance_to_normal(key, codes), expected, rtol=1e-5)

    def test_change_is_that_of_scales_and_shifts(self, source):
        space = subspaces.scale_shift()
        trainable, frozen = space.split(source.g)
        trainable["head/kernel"] = {"scale": trainable["head/kernel"]["scale"].at[0].set(1.5)}
        trainable["block0/bias"] = trainable["block0/bias"].at[1].add(2.0)
        found = bsa.squared_change(space.join(trainable, frozen), source.g)
        np.testing.assert_allclose(found, 0.5**2 / 16 + 2.0**2 / 6, rtol=1e-5)


class TestMineGAN:
    def test_the_miner_moves_first_and_alone(self):
        run = adapted("minegan")
        g = dict(run.after.params.g)
        assert not equal(g.pop("miner"), run.begun.params.g["miner"])
        assert equal(g, run.source.g)
        assert not equal(run.after.params.d, run.begun.params.d)

        method = minegan.make(mine_steps=3)
        ones = run.after.replace(params=jax.tree.map(jnp.ones_like, run.after.params))
        for step, expected in ((2, run.source.g["head"]), (3, ones.params.g["head"])):
            made = method.finish(None, run.begun.replace(step=step), ones, None, {})
            assert equal(made.params.g["head"], expected)
            assert equal(made.params.g["miner"], ones.params.g["miner"])

    def test_images_come_from_mined_latents(self):
        run, u = adapted("minegan"), jax.random.normal(SEEDS[0], (2, 3))
        params = run.begun.params.g
        mined = minegan.Miner(128, 2).apply({"params": params["miner"]}, u)
        found, expected = (
            run.game.nets.g.apply({"params": params}, u),
            toys.DENSE.g.apply({"params": run.source.g}, mined),
        )
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
        game, params = toys.game(), source
        z_key, _ = jax.random.split(SEEDS[0])

        @jax.jit
        def logit(key):
            fake = toys.DENSE.g.apply({"params": params.g}, gan.latents(key, 1, 3))
            return toys.DENSE.d.apply({"params": params.d}, fake)[0]

        probability = 1 / (1 + np.exp(-logit(SEEDS[0])))
        found = _fisher.g_score(game, params, SEEDS[0])
        np.testing.assert_allclose(found, -np.log(probability), rtol=1e-5)
        real = toys.DENSE.d.apply({"params": params.d}, REAL[:1])[0]
        wrong = 1 / (1 + np.exp(-logit(z_key)))
        expected = -np.log(1 / (1 + np.exp(-real))) - np.log(1 - wrong)
        found = _fisher.d_score(game, params, REAL[:1], SEEDS[0])
        np.testing.assert_allclose(found, expected, rtol=1e-5)


class TestEWC:
    def test_a_larger_fisher_moves_less(self):
        """On the way from the source at 0 to 1: the minimum is at 1 / (1 + fisher)."""
        zero, fisher = {"w": jnp.zeros(3)}, {"w": jnp.array([0.0, 1.0, 9.0])}
        loss = lambda p: jnp.square(p["w"] - 1).sum() + ewc.penalty(p, zero, fisher)  # noqa: E731
        slope = jax.jit(jax.grad(loss))
        np.testing.assert_allclose(slope({"w": jnp.array([1.0, 0.5, 0.1])})["w"], 0, atol=1e-6)
        np.testing.assert_allclose(slope({"w": jnp.ones(3)})["w"], [0.0, 2.0, 18.0], rtol=1e-6)

    def test_information_is_normalised_and_nothing_is_lost_at_the_source(self):
        run = adapted("ewc")
        leaves = [np.ravel(x) for x in jax.tree.leaves(run.begun.memory["fisher"])]
        np.testing.assert_allclose(np.concatenate(leaves).mean(), 1, rtol=1e-4)
        assert all((leaf >= 0).all() for leaf in leaves)
        _, seen = play(run.source, run.begun.memory)
        assert run.method.g_loss(run.game, seen, 3.0) == 3.0


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
        softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)  # noqa: E731
        each = [
            scipy.stats.entropy(*map(softmax, x), axis=-1).mean() for x in zip(a, b, strict=True)
        ]
        np.testing.assert_allclose(rssa.divergence(a, b), np.mean(each), rtol=1e-5)

    def test_correlations_are_cosines_of_places_and_of_samples(self):
        x = np.random.default_rng(0).normal(size=(3, 5, 4))  # samples, places, channels
        unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
        found = rssa.self_correlation(jnp.asarray(x))
        np.testing.assert_allclose(found, np.einsum("npc,nqc->npq", unit, unit), atol=1e-6)
        found = rssa.disturbance_correlation(jnp.asarray(x))
        expected = [
            [[unit[i, p] @ unit[j, p] for j in range(3) if j != i] for i in range(3)]
            for p in range(5)
        ]
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_each_consistency_is_lost_only_away_from_the_source(self):
        for weights in ({"self_weight": 0.0}, {"disturbance_weight": 0.0}):
            method = rssa.make(**weights)
            game, source = setup(method, toys.CONV)
            params, memory = method.start(game, source, REAL, SEEDS[0])

            @jax.jit
            def loss(p, method=method, game=game, memory=memory):
                return method.g_loss(game, play(p, memory, nets=toys.CONV)[1], 3.0)

            np.testing.assert_allclose(loss(params), 3.0, atol=1e-5)
            away = {**jax.tree.map(lambda x: x**2, source.g), "span": params.g["span"]}
            assert loss(params._replace(g=away)) > 3.01

    def test_latents_are_compressed_towards_those_of_the_target(self, source):
        """By 1 onto their span, here a line; by 0 not at all; the length stays."""
        z = jax.random.normal(SEEDS[0], (5, 3))
        for compression in (0.0, 1.0):
            method = rssa.make(compression=compression)
            game = method.extend(toys.game())
            params, _ = method.start(game, source, REAL[:1], SEEDS[0])
            (line,) = params.g["span"]["basis"].T
            onto = jnp.sign(z @ line)[:, None] * jnp.linalg.norm(z, axis=1)[:, None] * line
            expected = z if compression == 0 else onto
            images = toys.DENSE.g.apply({"params": source.g}, expected)
            found = game.nets.g.apply({"params": params.g}, z)
            np.testing.assert_allclose(found, images, atol=1e-5)

    def test_inversion_finds_latents_of_images(self, source):
        game, z = toys.game(), jax.random.normal(SEEDS[1], (2, 3))
        images = toys.DENSE.g.apply({"params": source.g}, z)
        found = rssa.invert(game, source.g, images, SEEDS[0], 200)
        again = toys.DENSE.g.apply({"params": source.g}, found)
        assert jnp.square(again - images).mean() < 0.05 * jnp.square(images).mean()

    def test_wrong_options(self):
        for options in ({"samples": 1}, {"compression": 1.5}):
            with pytest.raises(ValueError, match=r"2 samples or more|from 0 to 1"):
                rssa.make(**options)


class TestCDC:
    def test_divergence_is_that_of_the_similarities(self):
        """Zero for equal ones, else SciPy's relative entropy, of a block for each sample."""
        rng = np.random.default_rng(0)
        a, b = (jnp.asarray(rng.normal(size=(1, 4, 3)), jnp.float32) for _ in range(2))
        assert cdc.divergence(SEEDS[0], a, a) == 0
        softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)  # noqa: E731
        expected = scipy.stats.entropy(softmax(a[0]), softmax(b[0]), axis=-1).mean()
        np.testing.assert_allclose(cdc.divergence(SEEDS[0], a, b), expected, rtol=1e-5)

    def test_similarities_are_cosines_with_the_others(self, source):
        z = jax.random.normal(SEEDS[0], (3, 3))
        x = np.asarray(_features.blocks(toys.DENSE.g, source.g, z)[0])
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        expected = [[x[i] @ x[j] for j in range(3) if j != i] for i in range(3)]
        found = cdc.similarities(toys.DENSE.g, source.g, z)
        np.testing.assert_allclose(found, [expected], rtol=1e-5)

    def test_nothing_is_lost_at_the_source_and_released_weighs_less(self, source):
        game = toys.game()
        losses = []
        for released in (False, True):
            method = cdc.make(as_released=released)
            params, memory = method.start(game, source, REAL, SEEDS[0])
            loss = jax.jit(lambda p, at, m=method: m.g_loss(*play(p, at), 3.0))
            assert loss(params, memory) == 3.0  # in step 0 whole images
            away = params._replace(g=jax.tree.map(lambda x: 1.5 * x + 0.1, params.g))
            losses.append(loss(away, memory) - 3.0)
        assert losses[0] > 0
        np.testing.assert_allclose(losses[0], 3 * losses[1], rtol=1e-5)

    def test_whole_images_are_judged_near_anchors_and_patches_elsewhere(self, source):
        method, game = cdc.make(weight=0.0), toys.game(nets=toys.CONV)
        source = setup(Method(), toys.CONV)[1]
        params, memory = method.start(game, source, REAL, SEEDS[0])
        z = jax.random.normal(SEEDS[0], (5, 3))

        @jax.jit
        def look(step):
            """The losses of whole images and of patches, and the latents, at that step."""
            at = {**memory, "step": step}
            seen = play(params, at, nets=toys.CONV)[1]
            both = jnp.concatenate([REAL, seen.fake])
            features = _features.blocks(toys.CONV.d, params.d, both)[0]
            logits = features @ params.d["patch"]["kernel"]  # [8, 2, 2]
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
    def test_important_filters_are_modulated_and_the_others_fine_tuned(self):
        run = adapted("adam_kml")
        for masks, begun, after in zip(
            run.begun.memory, run.begun.params, run.after.params, strict=True
        ):
            important = np.concatenate([np.asarray(m) for m in masks.values()])
            assert abs(important.mean() - 0.5) < 0.2
            for name, mask in masks.items():
                old, new = begun[name], after[name]
                same = (old["kernel"] == new["kernel"]).all(0)
                np.testing.assert_array_equal(same, mask)
                np.testing.assert_array_equal(new["v"] != 0, mask)

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
    def test_freezes_prunes_and_fine_tunes_after_the_warm_up(self):
        method = rick.make(warm_up=2, every=2, samples=2, quantile=0.5, prune=0.1)
        game, source = setup(method)
        tx = toys.sgd(0.1)
        step = jax.jit(gan.make_step(game, tx))
        states = [begin(method, game, source, SEEDS[0], tx)]
        for _ in range(4):
            states.append(step(states[-1], REAL)[0])
        assert equal(states[2].params.g, source.g)
        assert equal(states[2].params.d["block0"], source.d["block0"])
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


def test_ada_follows_the_sign_of_overfitting(monkeypatch):
    run, method = adapted("ada"), ada.make(images=100)
    np.testing.assert_allclose(run.begun.memory["p"], 0)
    state, p = run.begun, []
    for sign in (1.0, 1.0, 0.6, 0.2, 0.2, 0.2):
        state = method.finish(None, state, state, REAL[None], {"d_sign": sign})
        p.append(float(state.memory["p"]))
    np.testing.assert_allclose(p, [0.04, 0.08, 0.08, 0.04, 0.0, 0.0], atol=1e-6)
    first = adapted("finetune").metrics["d_real"][:, 0]  # p is 0: nothing is augmented
    np.testing.assert_allclose(run.metrics["d_real"][:, 0], first, rtol=1e-5)
    monkeypatch.setattr(ada.augment, "ada", lambda key, images, p: images * p)
    np.testing.assert_array_equal(method.augment(SEEDS[0], REAL, {"p": 0.5}), REAL * 0.5)


def test_diff_augment_is_all_that_the_discriminator_sees(monkeypatch):
    was = adapted("finetune").metrics
    for metric in ("d_real", "d_fake"):
        assert not np.allclose(adapted("diff_augment").metrics[metric], was[metric])
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
    run = adapted("lecam")
    np.testing.assert_allclose(run.after.memory["one"], 1 - 0.99**3, rtol=1e-5)
    weights = 0.01 * 0.99 ** np.arange(3)[::-1]
    np.testing.assert_allclose(
        run.after.memory["real"], weights @ run.metrics["d_real"][0], rtol=1e-5
    )


def test_consistency_compares_an_image_with_itself_moved(source):
    real = jnp.arange(64.0).reshape(4, 4, 4, 1) / 64
    game, seen = play(source, real=real)
    key, move = jax.random.split(seen.key)[0], jax.jit(consistency.moved, static_argnums=2)
    judge = lambda x: np.asarray(toys.DENSE.d.apply({"params": source.d}, x))  # noqa: E731
    expected = 1.0 + 10.0 * np.square(judge(real) - judge(move(key, real, True))).mean()
    losses = [
        jax.jit(lambda m=method: m.d_loss(game, seen, 1.0))()
        for method in (consistency.make(), consistency.make(fake_weight=10.0))
    ]
    np.testing.assert_allclose(losses[0], expected, rtol=1e-5)
    assert losses[1] > expected
    right = jnp.zeros((64, 4, 4, 1)).at[:, :, 3].set(1.0)  # its last column; shifts are by one
    left = lambda x: (np.asarray(x)[:, :, :2] > 0).any((1, 2, 3)).sum()  # noqa: E731
    assert 10 < left(move(key, right, True)) < 32  # 2/3 of half of them
    assert left(move(key, right, False)) == 0


def test_mode_seeking_is_the_inverse_of_the_images_change_by_the_latents(source):
    game, seen = play(source)
    x, z = np.asarray(seen.fake), np.asarray(seen.z)
    ratio = np.abs(x[:2] - x[2:]).mean() / np.abs(z[:2] - z[2:]).mean()
    found = mode_seeking.make(weight=3.0).g_loss(game, seen, 1.0)
    np.testing.assert_allclose(found, 1 + 3 / (ratio + 1e-5), rtol=1e-5)
    with pytest.raises(ValueError, match="a batch of 2 or more"):
        mode_seeking.make().g_loss(*play(source, real=REAL[:1]), 0.0)


class TestCombine:
    def test_all_do_what_they_do_alone(self):
        """Fine-tuning a subspace with two switches: losses add up, memories are kept apart."""
        parts = freeze_d.make(), lecam.make(), mode_seeking.make(), l2_sp.make()
        method = combine(*parts)
        run = adapt(method)
        assert method.subspace.g is subspaces.everything
        assert equal(ends(run).d["block0"], run.source.d["block0"])
        assert run.after.memory[0] == {}
        np.testing.assert_allclose(run.after.memory[1]["one"], 1 - 0.99**3, rtol=1e-5)
        game, seen = play(run.source, run.begun.memory)
        away = seen._replace(params=jax.tree.map(lambda x: x + 1.0, seen.params))
        expected = 1.0
        for part, memory in zip(parts, seen.memory, strict=True):
            expected = part.g_loss(game, away._replace(memory=memory), expected)
        np.testing.assert_allclose(method.g_loss(game, away, 1.0), expected, rtol=1e-6)

    def test_hooks_are_chained_in_order_with_draws_of_their_own(self):
        double = Method(augment=lambda key, x, memory: 2 * x, latents=lambda key, z, memory: z + 1)
        noise = Method(augment=lambda key, x, memory: x + jax.random.normal(key, x.shape))
        both = combine(double, noise, noise)
        x = both.augment(SEEDS[0], jnp.ones(1000), ({}, {}, {}))
        np.testing.assert_allclose([x.mean(), x.std()], [2.0, 2**0.5], rtol=0.1)
        assert both.latents(SEEDS[0], jnp.zeros(()), ({}, {}, {})) == 1

    def test_two_subspaces_for_a_player_are_an_error(self):
        head = Method(subspace=Pair(subspaces.everything, subspaces.head))
        with pytest.raises(ValueError, match="two methods choose what of player d is trained"):
            combine(freeze_d.make(), head)
