"""Every file of fsgan/transfer keeps the contract; and what training by each method changes."""

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from adapting import SEEDS, adapt, adapted, equal, weights

import fsgan.transfer
from configs import transfer
from fsgan import Method, Pair, gan, plugins, subspaces
from fsgan.transfer import combine, freeze_d, l2_sp, lecam, mode_seeking
from fsgan.types import Play

NAMES = plugins.names(fsgan.transfer)


def numbers(tree) -> list:
    """All leaves but keys."""
    leaves = jax.tree.leaves(tree)
    return [x for x in leaves if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]


@pytest.mark.parametrize("name", NAMES)
class TestEveryMethod:
    def test_keeps_structure_and_frozen_leaves_and_trains_the_rest(self, name):
        run, shapes = adapted(name), lambda x: (x.shape, x.dtype)
        begun, after = run.begun, run.after
        assert jax.tree.structure(begun) == jax.tree.structure(after)
        assert jax.tree.map(shapes, begun) == jax.tree.map(shapes, after)
        assert equal(begun.frozen, after.frozen)
        assert not equal(begun.params, after.params)
        assert set(run.metrics) >= {"g_loss", "d_loss", "d_real", "d_fake"}
        assert all(value.shape == (2, 3) for value in run.metrics.values())

    def test_stays_finite_even_on_a_single_target_image(self, name):
        run = adapted(name)
        assert all(np.isfinite(leaf).all() for leaf in numbers((run.after, run.metrics)))

    def test_is_deterministic_for_each_of_many_seeds_and_compiled_once(self, name):
        run = adapted(name)
        made, swapped = (run.begun, run.after, run.metrics), run.train(SEEDS[::-1])
        assert equal(numbers(made), [np.asarray(x)[::-1] for x in numbers(swapped)])
        assert not equal(*run.metrics["d_fake"])
        assert len(run.traces) == 1

    def test_begins_with_the_source_generator(self, name):
        run = adapted(name)
        g = weights(run, run.begun).g
        assert equal(run.source.g, {name: g[name] for name in run.source.g})
        images = jax.eval_shape(run.game.nets.g.apply, {"params": run.source.g}, jnp.zeros((2, 3)))
        assert images.shape == (2, *toys.SHAPE)

    def test_every_option_has_a_default(self, name):
        module = importlib.import_module(f"fsgan.transfer.{name}")
        assert set(inspect.signature(module.make).parameters) == set(plugins.defaults(module.make))
        assert module.__doc__


@pytest.mark.parametrize(("name", "lr"), [("finetune", 1e-3), ("bsa", 0.03), ("bsa,smoke", 0.03)])
def test_a_method_may_begin_with_a_learning_rate_of_its_own(name, lr):
    assert transfer.get_config(name).optimizer.lr == lr
    assert transfer.get_config(f"{name},optimizer.lr=0.5").optimizer.lr == 0.5


def test_many_seeds_at_once_are_what_each_is_alone():
    run = adapted("finetune")
    step, begun = gan.make_step(run.game, toys.sgd()), jax.tree.map(lambda x: x[0], run.begun)
    alone, _ = jax.jit(lambda state: gan.adapt(step, state, run.batches))(begun)
    close = lambda a, b: np.testing.assert_allclose(a, b[0], rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, alone.params, run.after.params)


class TestWhatIsTrained:
    def test_by_finetune_everything(self):
        run = adapted("finetune")
        assert run.after.frozen == ({}, {})
        assert jax.tree.structure(run.after.params) == jax.tree.structure(run.source)
        for old, new in zip(*map(jax.tree.leaves, (run.source, run.after.params)), strict=True):
            assert not equal(old, new[0])

    def test_by_freeze_d_all_but_the_first_blocks_of_the_discriminator(self):
        run = adapted("freeze_d")
        assert equal(weights(run, run.after).d["block0"], run.source.d["block0"])
        assert not equal(weights(run, run.after).d["head"], run.source.d["head"])
        assert not equal(weights(run, run.after).g["block0"], run.source.g["block0"])
        assert set(run.after.params.d) == {"head/kernel", "head/bias"}

    def test_freeze_d_beyond_the_network_is_an_error(self):
        with pytest.raises(ValueError, match="no layer 'block1' to freeze"):
            adapt(freeze_d.make(blocks=8))

    def test_by_feature_extraction_a_new_head_on_fixed_features(self):
        run = adapted("feature_extraction")
        for player, was in zip(weights(run, run.after), run.source, strict=True):
            assert equal(player["block0"], was["block0"])
            assert not equal(player["head"], was["head"])
        assert not equal(run.begun.params.d["head/kernel"][0], run.source.d["head"]["kernel"])

    def test_by_scale_shift_no_direction_of_a_filter(self):
        run = adapted("scale_shift")
        for new, old in zip(weights(run, run.after), run.source, strict=True):
            ratio = new["head"]["kernel"] / old["head"]["kernel"]
            np.testing.assert_allclose(ratio, jnp.broadcast_to(ratio[:1], ratio.shape), rtol=1e-5)
            assert not np.allclose(ratio, 1)

    def test_by_singular_values_no_singular_vector(self):
        run = adapted("singular_values")
        for new, old in zip(weights(run, run.after), run.source, strict=True):
            u, _, vt = np.linalg.svd(old["head"]["kernel"], full_matrices=False)
            inside = u.T @ new["head"]["kernel"] @ vt.T
            np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-6)
            assert not np.allclose(new["head"]["kernel"], old["head"]["kernel"])
            assert equal(new["head"]["bias"], old["head"]["bias"])

    def test_by_lora_kernels_within_its_rank(self):
        run = adapted("lora")
        old, new = run.source.d["block0"], weights(run, run.after).d["block0"]
        values = np.linalg.svd(new["kernel"] - old["kernel"], compute_uv=False)  # of [16, 5]
        assert values[3] > 1e3 * values[4]
        assert equal(new["bias"], old["bias"])

    def test_by_bsa_not_the_discriminator(self):
        run = adapted("bsa")
        assert equal(weights(run, run.after).d, run.source.d)
        assert not equal(run.begun.params.g["codes"], run.after.params.g["codes"])

    def test_by_minegan_the_miner_first(self):
        run = adapted("minegan")
        g = weights(run, run.after).g
        assert not equal(g.pop("miner"), jax.tree.map(lambda x: x[0], run.begun.params.g["miner"]))
        assert equal(g, run.source.g)
        assert not equal(run.after.params.d, run.begun.params.d)

    def test_by_adam_kml_important_filters_by_modulation_and_others_themselves(self):
        run = adapted("adam_kml")
        for masks, begun, after in zip(
            run.begun.memory, run.begun.params, run.after.params, strict=True
        ):
            important = np.concatenate([np.asarray(mask)[0] for mask in masks.values()])
            assert abs(important.mean() - 0.5) < 0.2
            for name, mask in masks.items():
                old, new = begun[name], after[name]
                same = (old["kernel"] == new["kernel"]).all(1)
                np.testing.assert_array_equal(same, mask)
                np.testing.assert_array_equal(new["v"] != 0, mask)


def test_ewc_remembers_the_source_and_information_of_mean_one():
    run = adapted("ewc")
    leaves = [np.ravel(x) for x in jax.tree.leaves(run.begun.memory["fisher"])]
    np.testing.assert_allclose(np.concatenate(leaves).mean(), 1, rtol=1e-4)
    assert all((leaf >= 0).all() for leaf in leaves)
    assert equal(run.after.memory, run.begun.memory)
    assert equal(jax.tree.map(lambda x: x[0], run.after.memory["source"]), run.source.g)


def test_augmentations_are_of_all_that_the_discriminator_sees():
    """Of the first step's images: all of them by diff_augment, none yet by ada, whose p is 0."""
    for metric in ("d_real", "d_fake"):
        plain, every, none = (
            adapted(name).metrics[metric][:, 0] for name in ("finetune", "diff_augment", "ada")
        )
        assert not np.isclose(every, plain).any()
        np.testing.assert_allclose(none, plain, rtol=1e-5)


class TestCombine:
    def test_all_do_what_they_do_alone(self):
        """Fine-tuning a subspace with two switches: losses add up, memories are kept apart."""
        parts = freeze_d.make(), lecam.make(), mode_seeking.make(), l2_sp.make()
        run = adapt(combine(*parts))
        assert run.method.subspace.g is subspaces.everything
        assert equal(weights(run, run.after).d["block0"], run.source.d["block0"])
        assert run.after.memory[0] == {}
        np.testing.assert_allclose(run.after.memory[1]["one"], 1 - 0.99**3, rtol=1e-5)
        assert equal(run.after.memory[3], run.begun.memory[3])

    def test_hooks_are_chained_in_order_with_draws_of_their_own(self):
        double = Method(
            augment=lambda key, x, memory: 2 * x,
            latents=lambda key, z, memory: z + 1,
            g_loss=lambda game, play, loss: 2 * loss,
        )
        noise = Method(
            augment=lambda key, x, memory: x + jax.random.normal(key, x.shape),
            g_loss=lambda game, play, loss: loss + play.memory,
        )
        both = combine(double, noise, noise)
        x = both.augment(SEEDS[0], jnp.ones(1000), ({}, {}, {}))
        np.testing.assert_allclose([x.mean(), x.std()], [2.0, 2**0.5], rtol=0.1)
        assert both.latents(SEEDS[0], jnp.zeros(()), ({}, {}, {})) == 1
        seen = Play(*[None] * 7, SEEDS[0], ({}, 10.0, 100.0))
        assert both.g_loss(None, seen, 1.0) == 112

    def test_two_subspaces_for_a_player_are_an_error(self):
        head = Method(subspace=Pair(subspaces.everything, subspaces.head))
        with pytest.raises(ValueError, match="two methods choose what of player d is trained"):
            combine(freeze_d.make(), head)
