"""Every subspace: it begins at the parameters, trains what it says, and has exact gradients."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from fsgan import gan, subspaces
from fsgan.subspaces import kernels


def kernel_count(of, also="(?!)"):
    """flat -> trainable numbers: of(rows, cin, cout) for each kernel, and the leaves `also`."""

    def count(flat):
        total = 0
        for name, leaf in flat.items():
            if name.endswith("kernel"):
                *places, cin, cout = leaf.shape
                total += of(math.prod(places) * cin, cin, cout)
            elif re.search(also, name):
                total += leaf.size
        return total

    return count


NORMS = "bias$|scale$"
CASES = {  # name: (subspace, trainable numbers of {name: leaf} counted without it)
    "everything": (subspaces.everything, lambda flat: sum(x.size for x in flat.values())),
    "nothing": (subspaces.nothing, lambda flat: 0),
    "select": (
        subspaces.select(lambda name: "bias" in name, "biases"),
        lambda flat: sum(x.size for name, x in flat.items() if "bias" in name),
    ),
    "named": (
        subspaces.named("block1"),
        lambda flat: sum(x.size for name, x in flat.items() if name.startswith("block1/")),
    ),
    "head": (
        subspaces.head,
        lambda flat: sum(x.size for name, x in flat.items() if name.startswith("head/")),
    ),
    "freeze": (
        subspaces.freeze("block0", "head"),
        lambda flat: sum(x.size for name, x in flat.items() if not re.match("block0|head", name)),
    ),
    "freeze_blocks": (
        subspaces.freeze_blocks(last=1),
        lambda flat: sum(x.size for name, x in flat.items() if not name.startswith("block1/")),
    ),
    "scale_shift": (
        subspaces.scale_shift(),
        kernel_count(lambda rows, cin, cout: cout, NORMS),
    ),
    "singular_values": (
        subspaces.singular_values(),
        kernel_count(lambda rows, cin, cout: min(rows, cout)),
    ),
    "lora": (subspaces.lora(2), kernel_count(lambda rows, cin, cout: 2 * (rows + cout))),
    "kernel_modulation": (
        subspaces.kernel_modulation(),
        kernel_count(lambda rows, cin, cout: rows + cout, NORMS),
    ),
    "adafm": (subspaces.adafm(), kernel_count(lambda rows, cin, cout: 2 * cin * cout)),
    "reparametrize": (
        subspaces.reparametrize(
            lambda w, i: ({"change": jnp.zeros_like(w)}, {"kernel": w}),
            lambda trainable, fixed: fixed["kernel"] + trainable["change"],
        ),
        kernel_count(lambda rows, cin, cout: rows * cout),
    ),
}


@pytest.fixture(scope="module")
def networks():
    """Parameters of a convolutional game, away from zeros and ones."""
    made = jax.jit(lambda key: gan.init(key, toys.game(nets=toys.CONV)))(jax.random.key(1))
    wave = lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)  # noqa: E731
    return jax.jit(lambda tree: jax.tree.map(lambda x: x + 0.1 * wave(x), tree))(made)


def flat(params) -> dict:
    return {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def test_every_subspace_has_a_case():
    assert set(CASES) == set(subspaces.__all__)


@pytest.mark.parametrize("name", CASES)
class TestEverySubspace:
    def test_begins_at_the_parameters_and_trains_that_many_numbers(self, networks, name):
        space, count = CASES[name]
        for params in networks:
            trainable, frozen = space.split(params)
            joined = space.join(trainable, frozen)
            assert jax.tree.structure(joined) == jax.tree.structure(params)
            jax.tree.map(np.testing.assert_array_equal, joined, params)
            assert sum(x.size for x in jax.tree.leaves(trainable)) == count(flat(params))

    def test_gradients_are_those_of_finite_differences(self, networks, name):
        """In float64, of a function of all joined parameters, away from the start."""
        space, _ = CASES[name]
        if name == "nothing":
            return
        with jax.enable_x64(True):
            params = jax.tree.map(lambda x: np.asarray(x, np.float64), networks.d)
            params = jax.tree.map(jnp.asarray, params)
            trainable, frozen = space.split(params)
            rng = np.random.default_rng(0)
            random = lambda tree: jax.tree.map(lambda x: rng.normal(size=x.shape), tree)  # noqa: E731
            trainable = jax.tree.map(lambda x, r: x + 0.3 * r, trainable, random(trainable))
            weights, along = random(params), random(trainable)

            @jax.jit
            @jax.value_and_grad
            def function(trainable):
                terms = jax.tree.map(
                    lambda x, w: (w * jnp.sin(x)).sum(), space.join(trainable, frozen), weights
                )
                return sum(jax.tree.leaves(terms))

            _, gradient = function(trainable)
            found = sum(
                (g * a).sum()
                for g, a in zip(jax.tree.leaves(gradient), jax.tree.leaves(along), strict=True)
            )
            up, down = (
                jax.tree.map(lambda x, a, h=h: x + h * a, trainable, along) for h in (1e-5, -1e-5)
            )
            difference = (function(up)[0] - function(down)[0]) / 2e-5
            np.testing.assert_allclose(found, difference, rtol=1e-6)


def changed(space, params, names, **values):
    """A kernel after its trainable parts have been set."""
    trainable, frozen = space.split(params)
    trainable[names] = {**trainable[names], **values}
    return np.asarray(flat(space.join(trainable, frozen))[names])


class TestKernels:
    """What a change of the trainable numbers does to a kernel, written out in NumPy."""

    NAME = "block0/kernel"  # [3, 3, 1, 3] of the convolutional discriminator

    @pytest.fixture
    def w(self, networks):
        return np.asarray(networks.d["block0"]["kernel"])

    def test_singular_values_are_scaled_between_the_same_vectors(self, networks, w):
        scale = np.array([2.0, 0.5, -1.0], np.float32)
        new = changed(subspaces.singular_values(), networks.d, self.NAME, scale=scale)
        u, s, vt = np.linalg.svd(w.reshape(-1, 3), full_matrices=False)
        expected = u @ np.diag(scale * s) @ vt
        np.testing.assert_allclose(new.reshape(-1, 3), expected, rtol=1e-5, atol=1e-6)

    def test_scale_multiplies_output_channels(self, networks, w):
        scale = np.array([2.0, 0.5, -1.0])
        new = changed(subspaces.scale_shift(), networks.d, self.NAME, scale=scale)
        np.testing.assert_allclose(new[..., 1], 0.5 * w[..., 1], rtol=1e-6)

    def test_lora_adds_a_product_of_that_rank(self, networks, w):
        b = np.ones((1, 3), np.float32)
        params = networks.d
        a = subspaces.lora(1).split(params)[0][self.NAME]["a"]
        new = changed(subspaces.lora(1, alpha=3.0), params, self.NAME, b=b)
        np.testing.assert_allclose((new - w).reshape(-1, 3), 3.0 * np.outer(a, b), atol=1e-6)
        with pytest.raises(ValueError, match="rank of 1 or more, got 0"):
            subspaces.lora(0)

    def test_modulation_is_of_rank_one_in_rows_and_filters(self, networks, w):
        u, v = np.arange(9.0), np.array([0.1, -0.2, 0.3])
        new = changed(subspaces.kernel_modulation(), networks.d, self.NAME, u=u, v=v)
        expected = w.copy()
        for i in range(3):
            for j in range(3):
                for o in range(3):
                    expected[i, j, 0, o] *= 1 + u[3 * i + j] * v[o]
        np.testing.assert_allclose(new, expected, rtol=1e-5)

    def test_adafm_scales_and_shifts_pairs_of_channels(self, networks, w):
        scale, shift = np.array([[2.0, 1.0, 0.5]]), np.array([[0.0, 0.1, -0.1]])
        new = changed(subspaces.adafm(), networks.d, self.NAME, scale=scale, shift=shift)
        np.testing.assert_allclose(new, w * scale[None, None] + shift[None, None], rtol=1e-5)


def test_blocks_are_counted_from_both_ends(networks):
    params = networks.g  # block0 and block1
    names = lambda **which: set(subspaces.freeze_blocks(**which).split(params)[1])  # noqa: E731
    assert names(first=1) == {"block0/kernel"}
    assert names(last=1) == {"block1/kernel", "block1/bias"}
    assert names(first=1, last=1) == names(first=1) | names(last=1)
    assert names() == set()
    with pytest.raises(ValueError, match="3 blocks to freeze, but there are 2"):
        names(first=2, last=1)


def test_other_parameters_are_trained_by_name(networks):
    trainable, frozen = subspaces.lora(1, also="head/bias").split(networks.d)
    assert {name for name in trainable if not kernels.is_kernel(name)} == {"head/bias"}
    assert "block0/bias" in frozen
