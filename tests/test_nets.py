"""The contract that every file of `fsgan/nets` keeps; a new one is tested by existing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.test_util import check_grads

from fsgan import nets
from fsgan.nets._place import Place, resampling

SHAPES = [(28, 28, 1), (32, 32, 3), (36, 28, 4), (16, 16, 1)]
LATENT = 6
every_net = pytest.mark.parametrize("name", nets.names())


def build(name, shape=(12, 8, 3), **options):
    """A small pair, its parameters, latents and images."""
    pair = nets.make(name, shape, **{"width": 2, "activation": "silu", **options})
    z = jax.random.normal(jax.random.key(1), (3, LATENT))
    x = jax.random.uniform(jax.random.key(2), (3, *shape), minval=-1)

    def init(key):
        return nets.Pair(pair.g.init(key, z[:1])["params"], pair.d.init(key, x[:1])["params"])

    return pair, jax.jit(init)(jax.random.key(0)), z, x


@every_net
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(name, shape):
    pair = nets.make(name, shape)

    def run(key):
        images, _ = pair.g.init_with_output(key, jnp.zeros((5, LATENT)))
        variables = pair.d.init(key, images)
        return images, pair.d.apply(variables, images), pair.d.apply(variables, images, True)

    images, logits, (same, features) = jax.eval_shape(run, jax.random.key(0))
    assert images.shape == (5, *shape)
    assert logits.shape == same.shape == (5,)
    assert images.dtype == logits.dtype == jnp.float32
    assert len(features) >= 2
    assert all(f.shape[0] == 5 for f in features)


@every_net
def test_values(name):
    """Images in (-1, 1), not saturated at the start; no sample depends on its neighbours."""
    pair, params, z, x = build(name, width=16)

    @jax.jit
    def run(z, x):
        logits, features = pair.d.apply({"params": params.d}, x, features=True)
        return pair.g.apply({"params": params.g}, z), logits, features

    images, logits, features = run(z, x)
    alone = run(z[1:2], x[1:2])
    assert jnp.abs(images).max() < 1
    assert 0.1 < images.std() < 0.9
    assert 0.01 < jnp.abs(logits).max() < 10
    for both, one in zip((images, logits), alone[:2], strict=True):
        np.testing.assert_allclose(both[1:2], one, rtol=1e-4, atol=1e-5)
    assert not np.allclose(images[0], images[1], atol=1e-2)
    assert not np.allclose(features[-1][0], features[-1][1], atol=1e-3)


@every_net
def test_forms_share_parameters_and_second_derivatives(name):
    """A gradient penalty's gradient: second derivatives through both players."""

    def run(impl):
        pair, params, z, _ = build(name, impl=impl)

        def penalty(params):
            images = pair.g.apply({"params": params.g}, z)
            slope = jax.grad(lambda x: pair.d.apply({"params": params.d}, x).sum())(images)
            return jnp.sum(slope**2)

        return params, jax.jit(jax.grad(penalty))(params)

    lax, matmul = run("lax"), run("matmul")
    jax.tree.map(np.testing.assert_array_equal, lax[0], matmul[0])
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(lax[1]))
    assert scale > 1e-3
    for a, b in zip(*map(jax.tree.leaves, (matmul[1], lax[1])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * scale)


@every_net
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_layer_names(name, shape):
    """Subspaces choose by these names: freeze block0 of D, train the head alone, ..."""
    pair = nets.make(name, shape)
    g = jax.eval_shape(pair.g.init, jax.random.key(0), jnp.zeros((1, LATENT)))["params"]
    d = jax.eval_shape(pair.d.init, jax.random.key(0), jnp.zeros((1, *shape)))["params"]
    for params, required in (g, {"stem", "block0", "head"}), (d, {"block0", "block1", "head"}):
        assert required <= set(params)
        blocks = sorted(name for name in params if name.startswith("block"))
        assert blocks == [f"block{i}" for i in range(len(blocks))]
        leaves = {path[-1] for path in flatten_dict(params)}
        assert leaves <= {"kernel", "bias", "scale", "slope"}


@every_net
@pytest.mark.parametrize("activation", ["leaky_relu", "relu", "gelu", "silu", "softplus", "tanh"])
def test_activations(name, activation):
    pair = nets.make(name, (8, 8, 1), width=2, activation=activation)
    jax.eval_shape(pair.g.init, jax.random.key(0), jnp.zeros((1, LATENT)))


@every_net
def test_lower_precision(name):
    """bfloat16 inside: float32 parameters, images, logits and derivatives, nearly the same."""
    exact, params, z, x = build(name, width=8)
    pair = nets.make(name, x.shape[1:], width=8, activation="silu", dtype="bfloat16")

    @jax.jit
    def run(params):
        def judged(pair, params):
            return pair.d.apply({"params": params.d}, pair.g.apply({"params": params.g}, z)).mean()

        images = [p.g.apply({"params": params.g}, z) for p in (exact, pair)]
        return images, jax.grad(judged, argnums=1)(pair, params)

    (wanted, images), gradient = run(params)
    assert {leaf.dtype for leaf in jax.tree.leaves((images, gradient))} == {jnp.dtype("float32")}
    assert 1e-4 < jnp.abs(images - wanted).max() < 0.1
    jaxpr = str(jax.make_jaxpr(lambda z: pair.g.apply({"params": params.g}, z))(z))
    assert "bf16" in jaxpr.split("tanh")[0].rpartition("dot_general")[0]


@every_net
def test_mapper(name):
    """Hidden layers between latents and generator, under a name of their own."""
    pair, params, z, _ = build(name, mapper=2)
    plain, _, _, _ = build(name)
    mapper, rest = params.g["mapper"], {k: v for k, v in params.g.items() if k != "mapper"}
    assert [layer["kernel"].shape for layer in mapper.values()] == [(LATENT, LATENT)] * 3
    w = z
    for i in range(2):
        w = jax.nn.silu(w @ mapper[f"dense{i}"]["kernel"])
    w = w @ mapper["out"]["kernel"]
    images = plain.g.apply({"params": rest}, w)
    np.testing.assert_allclose(pair.g.apply({"params": params.g}, z), images, atol=1e-5)
    assert not np.allclose(images, plain.g.apply({"params": rest}, z), atol=1e-2)


@every_net
def test_place(name):
    """At the end the generator moves what it has drawn, each image as its latents say."""
    pair, params, z, _ = build(name, place=0.5)
    plain, _, _, _ = build(name)
    place, rest = params.g["place"], {k: v for k, v in params.g.items() if k != "place"}
    assert {name: leaf.shape for name, leaf in place["dense"].items()} == {
        "kernel": (LATENT, 4),
        "bias": (4,),
    }
    still = {**rest, "place": jax.tree.map(jnp.zeros_like, place)}
    drawn = plain.g.apply({"params": rest}, z)
    np.testing.assert_allclose(pair.g.apply({"params": still}, z), drawn, atol=1e-6)
    moved = pair.g.apply({"params": params.g}, z)
    assert moved.shape == drawn.shape
    assert (jnp.abs(moved - drawn).max((1, 2, 3)) > 1e-3).all()


def test_place_moves_and_scales():
    """By half of half a side, down and to the left; then to twice the width."""
    image = jnp.zeros((1, 8, 12, 1)).at[0, 3, 6].set(1.0)
    dense = {"kernel": jnp.zeros((LATENT, 4)), "bias": jnp.array([1.0, -1.0, 0.0, 0.0])}
    apply = jax.jit(lambda most, *xs: Place(most).apply(*xs), static_argnums=0)
    most = float(0.5 / np.tanh(1.0))
    moved = apply(most, {"params": {"dense": dense}}, image, jnp.ones((1, LATENT)))
    np.testing.assert_allclose(moved, jnp.zeros_like(image).at[0, 5, 3].set(1.0), atol=1e-5)
    # Of twice the width a pixel's neighbours get three quarters and a quarter of it.
    dense["bias"] = jnp.array([0.0, 0.0, 0.0, 1.0])
    most = float(np.log(2) / np.tanh(1.0))
    wide = apply(most, {"params": {"dense": dense}}, image, jnp.ones((1, LATENT)))
    wanted = jnp.zeros_like(image).at[0, 3, 5:9, 0].set(jnp.array([0.25, 0.75, 0.75, 0.25]))
    np.testing.assert_allclose(wide, wanted, atol=1e-5)


def test_place_is_not_truncated():
    image = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    z = jax.random.normal(jax.random.key(1), (3, LATENT))
    place = Place(0.5)
    params = place.init(jax.random.key(2), image, z)
    near = place.apply(params, image, 0.3 * z)
    np.testing.assert_allclose(near, place.apply(params, image, z), atol=1e-3)
    assert not np.allclose(near, image, atol=0.1)


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1.3, 1.0), (-2.0, 0.7), (0.6, 1.4)])
def test_resampling(offset, scale):
    """Against jax.image, where it does not fall off the edge; beyond, the ends go on."""
    size = 9
    matrix = resampling(jnp.array([offset]), jnp.array([scale]), size)[0]
    x = jax.random.normal(jax.random.key(0), (size,))
    centre = size / 2
    wanted = jax.image.scale_and_translate(
        x,
        (size,),
        (0,),
        jnp.array([scale]),
        jnp.array([(offset - centre) * scale + centre]),
        "linear",
        antialias=False,
    )
    source = (np.arange(size) - (size - 1) / 2) / scale - offset + (size - 1) / 2
    inside = (source >= 0) & (source <= size - 1)
    assert inside.sum() >= 5
    np.testing.assert_allclose((matrix @ x)[inside], wanted[inside], atol=1e-5)
    np.testing.assert_allclose((matrix @ x)[source < 0], x[0], atol=1e-6)
    np.testing.assert_allclose((matrix @ x)[source > size - 1], x[-1], atol=1e-6)


def test_resampling_derivatives():
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (7,))

        def moved(offset, scale):
            return resampling(offset, scale, 7)[0] @ x

        at = (jnp.array([0.3]), jnp.array([1.2]))  # no pixel comes from just another one's place
        check_grads(moved, at, order=2, modes=["rev"], eps=1e-5)


def test_parameter_count_of_the_reference():
    pair = nets.make("dcgan", (28, 28, 1), width=64)
    g = jax.eval_shape(pair.g.init, jax.random.key(0), jnp.zeros((1, 64)))["params"]
    d = jax.eval_shape(pair.d.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    assert g["stem"]["dense"]["kernel"].shape == (64, 7 * 7 * 128)
    assert g["block0"]["conv"]["kernel"].shape == (4, 4, 128, 64)
    assert g["head"]["kernel"].shape == (4, 4, 64, 1)
    assert d["block0"]["conv"]["kernel"].shape == (4, 4, 1, 64)
    assert d["block1"]["conv"]["kernel"].shape == (4, 4, 64, 128)
    assert d["head"]["kernel"].shape == (7 * 7 * 128, 1)


def test_options():
    pair = nets.make("dcgan", (28, 28, 1), width=8, g={"width": 16}, d={"activation": "gelu"})
    assert (pair.g.width, pair.d.width) == (16, 8)
    assert (pair.g.activation, pair.d.activation) == ("leaky_relu", "gelu")
    assert nets.make("dcgan", [28, 28, 1]) == nets.make("dcgan", (28, 28, 1))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("dcgn",), {}, "'dcgan'.*resnet"),
        (("dcgan",), {"widht": 8}, "'width'.*activation, affine, dtype, impl"),
        (("dcgan",), {"g": {"impl": "fast"}}, "auto, lax, matmul"),
        (("dcgan",), {"dtype": "float16"}, "bfloat16, float32"),
        (("dcgan",), {"activation": "swish"}, "gelu, leaky_relu"),
        (("dcgan",), {"place": 1.5}, "between 0 and 1"),
        (("dcgan", (30, 28, 1)), {}, "30x28"),
        (("dcgan", (28, 28, 2)), {}, "not 2"),
    ],
)
def test_wrong_options(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        nets.make(*arguments, **options)
