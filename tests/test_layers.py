import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsgan.nets import layers

PAD1 = ((1, 1), (1, 1))
CASES = [  # height and width, kernel, strides, padding, input channels
    ((28, 28), (4, 4), (2, 2), PAD1, 1),
    ((7, 7), (4, 4), (2, 2), PAD1, 9),
    ((8, 12), (4, 4), (2, 2), "SAME", 3),
    ((9, 7), (4, 4), (2, 2), PAD1, 2),
    ((5, 6), (3, 3), (1, 1), "SAME", 4),
    ((7, 9), (3, 3), (2, 2), "SAME", 3),
    ((6, 5), (1, 1), (1, 1), "SAME", 8),
    ((6, 5), (1, 1), (2, 2), "SAME", 2),
    ((9, 8), (3, 5), (2, 1), "VALID", 3),
    ((9, 11), (5, 4), (3, 2), ((2, 1), (0, 3)), 2),
]
cases = pytest.mark.parametrize(("size", "window", "strides", "padding", "cin"), CASES)
operations = pytest.mark.parametrize("apply", [layers.conv, layers.conv_transpose])


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def close(a, b, tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance), a, b)


@operations
@cases
def test_both_forms_agree_up_to_second_derivatives(apply, size, window, strides, padding, cin):
    def value_gradient_and_second_order(impl, at, along):
        def loss(x, kernel):
            y = apply(x, kernel, strides, padding, impl)
            return jnp.sum(jnp.sin(y)), y

        # Forward over reverse: the Hessian's product with a direction in (x, kernel).
        return jax.jvp(jax.grad(loss, (0, 1), has_aux=True), at, along)

    with jax.enable_x64(True):
        shapes = (2, *size, cin), (*window, cin, 5)
        at, along = (tuple(normal(*s, seed=seed) for s in shapes) for seed in (0, 1))
        run = jax.jit(value_gradient_and_second_order, static_argnums=0)
        close(run("matmul", at, along), run("lax", at, along), 1e-9)


@cases
def test_conv_transpose_is_the_transpose_of_conv(size, window, strides, padding, cin):
    y, kernel = normal(2, *size, cin), normal(*window, cin, 5)
    swapped = kernel.swapaxes(2, 3)
    for impl in ("lax", "matmul"):
        x = layers.conv_transpose(y, kernel, strides, padding, impl)
        _, transpose = jax.vjp(lambda x: layers.conv(x, swapped, strides, padding, "lax"), x)
        close(x, transpose(y)[0], 1e-4)


def test_dcgan_sizes():
    def shape(apply, h):
        x, kernel = jnp.zeros((1, h, h, 1)), jnp.zeros((4, 4, 1, 1))
        return jax.eval_shape(lambda x: apply(x, kernel, (2, 2), PAD1), x).shape[1:3]

    assert shape(layers.conv, 28) == (14, 14)
    assert shape(layers.conv, 14) == (7, 7)
    assert shape(layers.conv_transpose, 7) == (14, 14)
    assert shape(layers.conv_transpose, 14) == (28, 28)


@pytest.mark.parametrize("layer", [layers.Conv, layers.ConvTranspose])
def test_parameters_do_not_depend_on_the_form(layer, key):
    x = normal(2, 6, 5, 3)
    lax, matmul = (layer(4, impl=impl).init_with_output(key, x) for impl in ("lax", "matmul"))
    assert lax[1]["params"]["kernel"].shape[2:] == (3, 4)
    assert lax[1]["params"]["bias"].shape == (4,)
    jax.tree.map(np.testing.assert_array_equal, lax[1], matmul[1])
    close(lax[0], matmul[0], 1e-5)


@pytest.mark.parametrize("layer", [layers.Conv, layers.ConvTranspose])
def test_initial_weights_keep_the_size_of_activations(layer, key):
    y, _ = layer(64, (4, 4), (2, 2), scale=1.0).init_with_output(key, normal(8, 16, 16, 32))
    assert y[:, 2:-2, 2:-2].std() == pytest.approx(1, abs=0.1)


def test_resampling():
    x = normal(2, 3, 5, 4)
    up = layers.upsample(x)
    np.testing.assert_array_equal(up, x.repeat(2, 1).repeat(2, 2))
    close(layers.downsample(up), x, 1e-6)
    y = normal(1, 4, 6, 1)
    close(layers.downsample(y)[0, 1, 2, 0], y[0, 2:4, 4:6, 0].mean(), 1e-6)


def test_norm_is_per_sample_and_smooth(key):
    x = normal(3, 4, 6, 5) * 7 + 3
    norm = layers.Norm()
    params = norm.init(key, x)
    y = norm.apply(params, x)
    close(y.mean((1, 2, 3)), jnp.zeros(3), 1e-4)
    close(y.std((1, 2, 3)), jnp.ones(3), 1e-4)
    close(norm.apply(params, x[:1]), y[:1], 1e-5)
    # A constant image has no deviation: the root must not be taken of 0.
    hessian = jax.jit(
        jax.hessian(lambda level: jnp.sum(norm.apply(params, jnp.full((1, 2, 2, 5), level)) ** 3))
    )(1.0)
    assert jnp.isfinite(hessian)


def test_check_image_shape():
    for shape in [(28, 28, 1), (36, 28, 4), (4, 4, 3), (256, 64, 3)]:
        layers.check_image_shape(shape)
    with pytest.raises(ValueError, match=r"30x28.*28x28 or 32x28"):
        layers.check_image_shape((30, 28, 1))
    with pytest.raises(ValueError, match=r"2x0.*4x4"):
        layers.check_image_shape((2, 0, 1))
    with pytest.raises(ValueError, match="1, 3 or 4 channels, not 2"):
        layers.check_image_shape((28, 28, 2))
    with pytest.raises(ValueError, match="height, width, channels"):
        layers.check_image_shape((28, 28))


@pytest.mark.parametrize(
    ("shape", "levels"),
    [((28, 28, 1), 2), ((32, 32, 3), 3), ((64, 32, 3), 3), ((36, 28, 4), 2), ((8, 8, 1), 2)],
)
def test_levels(shape, levels):
    assert layers.levels(shape) == levels


def test_unknown_names_are_told_the_right_ones():
    with pytest.raises(ValueError, match=r"leaky_relu.*softplus"):
        layers.activation("swish")
    with pytest.raises(ValueError, match="auto, lax, matmul"):
        layers.conv(jnp.zeros((1, 4, 4, 1)), jnp.zeros((3, 3, 1, 1)), impl="fast")
