"""Augmentation: each operation by hand, non-leaking in the sense of ADA, differentiable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, ndimage, stats
from scipy.spatial.transform import Rotation

from fsgan import augment


def images(key, *shape: int):
    return jax.random.uniform(key, shape, minval=-1, maxval=1)


def draws(key, n: int):
    """n times the three numbers of an operation."""
    return jax.random.uniform(key, (n, 3), minval=-1, maxval=1)


def u(*numbers: float):
    return jnp.array([*numbers, 0.0, 0.0][:3])


def normal(number: float) -> float:
    """The standard normal number with the rank of a uniform one in (-1, 1)."""
    return stats.norm.ppf((number + 1) / 2)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def pixels(operation, u, image):
    """The image read where an operation on grids says."""
    h, w, _ = image.shape
    axes = np.arange(h) - (h - 1) / 2, np.arange(w) - (w - 1) / 2
    grid = tuple(jnp.meshgrid(*axes, indexing="ij"))
    return augment._read(image, operation(u, grid))


def along_rows_and_columns(image, matrix, shift=(0, 0)):
    """Scipy's image whose content is moved by `matrix` around the centre, then by `shift`."""
    back, centre = np.linalg.inv(matrix), (np.array(image.shape[:2]) - 1) / 2
    offset = centre - back @ (centre + np.array(shift))
    planes = np.moveaxis(np.asarray(image), -1, 0)
    moved = [ndimage.affine_transform(x, back, offset, order=1, mode="mirror") for x in planes]
    return np.stack(moved, -1)


def test_diff_augment_colours_by_hand(key):
    x = np.asarray(images(key, 6, 5, 3))
    grey, colour = x.mean(-1, keepdims=True), augment.DIFF_AUGMENT["color"]
    close(colour(u(-0.5), x), x - 0.25)
    close(colour(u(0, -1.0), x), np.broadcast_to(grey, x.shape))
    close(colour(u(0, 0.5), x), grey + 1.5 * (x - grey))
    close(colour(u(0, 0, 1.0), x), x.mean() + 1.5 * (x - x.mean()))
    close(colour(u(0, 0, -1.0), x), x.mean() + 0.5 * (x - x.mean()))


def test_translation_shifts_by_up_to_an_eighth_and_brings_in_zeros(key):
    x = np.asarray(images(key, 12, 16, 2)) + 3
    padded = np.pad(x, [(2, 2), (2, 2), (0, 0)])
    every = {padded[i : i + 12, j : j + 16].tobytes() for i in range(5) for j in range(5)}
    some = jax.vmap(augment._translation, (0, None))(draws(key, 400), x)
    assert {np.asarray(image).tobytes() for image in some} == every


def test_cutout_is_a_rectangle_of_half_the_size_with_its_middle_anywhere(key):
    x = np.asarray(images(key, 4, 6, 2)) + 3
    every = set()
    for row in range(5):
        for column in range(6 + 1 - 3 % 2):
            top, left = row - 1, column - 1
            hole = x.copy()
            hole[max(top, 0) : top + 2, max(left, 0) : left + 3] = 0
            every.add(hole.tobytes())
    some = jax.vmap(augment._cutout, (0, None))(draws(key, 600), x)
    assert {np.asarray(image).tobytes() for image in some} == every


def test_blitting_moves_whole_pixels(key):
    x = np.asarray(images(key, 8, 8, 3))
    np.testing.assert_array_equal(pixels(augment._flip, u(-0.1), x), x[:, ::-1])
    np.testing.assert_array_equal(pixels(augment._flip, u(0.1), x), x)
    for i in range(4):
        turned = pixels(augment._quarter_turns, u(-0.9 + i / 2), x)
        assert any(np.array_equal(turned, np.rot90(x, k)) for k in (i, -i))
    mirrored = np.pad(x, [(1, 1), (1, 1), (0, 0)], mode="reflect")
    np.testing.assert_array_equal(pixels(augment._whole_pixels, u(0.9, -0.8), x), mirrored[:8, 2:])
    np.testing.assert_array_equal(pixels(augment._whole_pixels, u(0.4, -0.3), x), x)


def test_geometry_equals_scipys_affine_transforms(key):
    x = images(key, 9, 12, 3)
    zoom, turn = 2 ** (0.2 * normal(0.7)), np.pi * 0.3
    rotation = [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    shift = normal(0.3) / 8 * 9, normal(-0.6) / 8 * 12
    both = along_rows_and_columns
    close(pixels(augment._zoom, u(0.7), x), both(x, np.diag([zoom, zoom])))
    close(pixels(augment._aspect, u(0.7), x), both(x, np.diag([1 / zoom, zoom])))
    close(pixels(augment._rotation, u(0.3), x), both(x, rotation))
    close(pixels(augment._subpixels, u(0.3, -0.6), x), both(x, np.eye(2), shift))


def test_the_image_undergoes_the_operations_in_their_order(key):
    """Zoom, then aspect, then a shift that neither of them scales."""
    x = images(key, 8, 8, 1)
    u = jnp.full((8, 3), 0.99).at[jnp.array([0, 2, 4])].set(jnp.array([0.7, -0.4, -0.99]))
    moved = pixels(augment._chain(augment._geometry(0.5)), u, x)
    zoom, aspect = (2 ** (0.2 * normal(number)) for number in (0.7, 0.7))
    shift = normal(0.7), normal(-0.4)
    close(moved, along_rows_and_columns(x, np.diag([zoom / aspect, zoom * aspect]), shift))


def test_ada_colours_by_hand(key):
    x = np.asarray(images(key, 4, 5, 3))
    grey = x.mean(-1, keepdims=True)
    close(augment._brightness(u(0.5), x), x + 0.2 * normal(0.5))
    close(augment._contrast(u(0.5), x), x * 2 ** (0.5 * normal(0.5)))
    close(augment._saturation(u(-0.4), x), grey + 2 ** normal(-0.4) * (x - grey))
    axis = np.ones(3) / 3**0.5
    close(augment._luma_flip(u(-0.5), x), x @ (np.eye(3) - 2 * np.outer(axis, axis)))
    np.testing.assert_array_equal(augment._luma_flip(u(0.5), x), x)
    turn = Rotation.from_rotvec(axis * np.pi * 0.3)
    close(augment._hue(u(0.3), x), turn.apply(x.reshape(-1, 3)).reshape(x.shape))


COLOURS = [augment.DIFF_AUGMENT["color"], *map(augment._on_colours, augment._colour(0.7))]


def test_one_channel_is_a_colour_on_the_grey_axis(key):
    x, numbers = images(key, 4, 4, 1), draws(key, len(COLOURS))
    colour = augment._chain(COLOURS)
    grey, three = colour(numbers, x), colour(numbers, jnp.tile(x, 3))
    close(jnp.tile(grey, 3), three)
    assert not np.allclose(grey, x)


def test_alpha_keeps_its_values_and_moves_with_the_rest(key):
    x, numbers = images(key, 4, 4, 4), draws(key, len(COLOURS))
    coloured = augment._chain(COLOURS)(numbers, x)
    np.testing.assert_array_equal(coloured[..., 3], x[..., 3])
    close(coloured[..., :3], augment._chain(COLOURS)(numbers, x[..., :3]))
    moved = pixels(augment._rotation, u(0.2), x)
    np.testing.assert_array_equal(moved[..., 3:], pixels(augment._rotation, u(0.2), x[..., 3:]))


def test_unknown_policies_are_answered_with_the_right_ones(key):
    message = r"unknown augmentation 'colour'; did you mean 'color'\? .*cutout, translation\)"
    with pytest.raises(ValueError, match=message):
        augment.diff_augment(key, jnp.zeros((1, 4, 4, 1)), policy=("colour",))


def both(key, x, p=0.8):
    return augment.ada(key, augment.diff_augment(key, x), p)


@pytest.mark.parametrize("channels", [1, 4])
def test_every_image_is_augmented_otherwise_and_the_shape_stays(key, channels):
    x = jnp.tile(images(key, 1, 8, 12, channels), (3, 1, 1, 1))
    new = jax.jit(both)(key, x)
    assert new.shape == x.shape
    assert new.dtype == x.dtype
    assert len({np.asarray(image).tobytes() for image in [x[0], *new]}) == 4


def test_identity_at_p_0_bit_for_bit_and_with_an_empty_policy(key):
    x = images(key, 3, 8, 12, 4)
    np.testing.assert_array_equal(jax.jit(augment.ada)(key, x, 0.0), x)
    np.testing.assert_array_equal(augment.diff_augment(key, x, policy=()), x)


def test_p_is_the_probability_of_each_operation_and_of_any_rotation(key):
    """Operations that leave a mark show how often they act: all at p, both rotations together."""
    numbers, p = draws(key, 4000).reshape(500, 8, 3), 0.4
    place = jnp.array([[1.0]]), jnp.array([[2.0]])

    def acts(i):
        operation = augment._geometry(p)[i]
        row, column = jax.vmap(lambda u: operation(u[i], place))(numbers)
        return ((row != 1) | (column != 2)).ravel()

    chances = [acts(i).mean() for i in range(8)]
    # Half of the flips, a quarter of the turns are the identity; a shift of 1/8 of 1 pixel is 0.
    expected = p * np.array([1, 0, 1, 0, 1, 0, 3 / 4, 1 / 2])
    expected[[1, 3]] = 1 - (1 - p) ** 0.5
    np.testing.assert_allclose(chances, expected, atol=0.08)
    np.testing.assert_allclose((acts(1) | acts(3)).mean(), p, atol=0.08)


def test_vmap_over_seeds_equals_one_at_a_time(key):
    x, keys = images(key, 2, 8, 8, 3), jax.random.split(key)
    many = jax.jit(jax.vmap(both, (0, None)))(keys, x)
    close(many[1], jax.jit(both)(keys[1], x))
    assert not np.allclose(many[0], many[1])


def test_first_and_second_derivatives_against_finite_differences(key):
    """Those of a critic, and of the square of its gradient as gradient penalties have it."""

    def critic(x):
        return jnp.sin(both(key, x)).sum()

    def penalty(x):
        return jnp.square(jax.grad(critic)(x)).sum()

    with jax.enable_x64(True):
        x, direction = images(key, 2, 2, 8, 8, 3).astype(float)
        for f in map(jax.jit, map(jax.value_and_grad, (critic, penalty))):
            ahead, behind = f(x + 1e-5 * direction)[0], f(x - 1e-5 * direction)[0]
            slope = (f(x)[1] * direction).sum()
            np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-6)


def even(n: int) -> np.ndarray:
    """n numbers that stand for all of (-1, 1): an average over them is an exact expectation."""
    return (np.arange(n) + 0.5) / n * 2 - 1


def orientations(image) -> list:
    return [np.rot90(side, k) for side in (image, image[:, ::-1]) for k in range(4)]


def transitions(p: float) -> np.ndarray:
    """The probabilities with which flips and quarter turns of ADA lead from each of the eight
    orientations of an image (columns) to each other (rows)."""
    sides = np.stack(orientations(np.arange(9.0).reshape(3, 3, 1)))
    operation = augment._chain(augment._geometry(p)[-2:])
    numbers = np.stack(np.meshgrid(even(4), [0.0], even(10), even(2), [0.0], even(10)), -1)
    numbers = numbers.reshape(-1, 2, 3)
    many = jax.vmap(jax.vmap(pixels, (None, 0, None)), (None, None, 0))(operation, numbers, sides)
    same = (many[:, :, None] == sides).all((-1, -2, -3))  # [from, number, to]
    assert same.any(-1).all()
    return np.asarray(same.mean(1)).T


@pytest.mark.parametrize("p", [0.0, 0.5, 0.8, 1.0])
def test_ada_leaks_at_p_1_only(p):
    """The map on distributions over orientations has the smallest singular value (1 - p)^2: with
    p < 1 augmented distributions are equal only if the distributions are."""
    matrix = transitions(p)
    np.testing.assert_allclose(matrix.sum(0), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.svd(matrix)[1][-1], (1 - p) ** 2, atol=1e-5)
    upright, turned = matrix[:, 0], matrix[:, 1]
    assert np.allclose(upright, turned, atol=1e-5) == (p == 1)


def test_diff_augment_does_not_leak_where_a_pixel_of_28_rows_is():
    """Shifted by -4 to 4, or covered by a hole of 14 rows that begins in row -7 to 21: no two
    distributions over the places of one bright pixel look alike afterwards."""
    at = np.arange(28)
    holes = np.array([(at < begin) | (begin + 14 <= at) for begin in range(-7, 22)])
    expected = {"translation": linalg.toeplitz(at < 5) / 9, "cutout": np.diag(holes.mean(0))}
    numbers = np.stack([even(9 * 29), *np.zeros((2, 9 * 29))], -1)
    places = np.eye(28)[:, :, None, None]  # [place, h, w, c]
    for name, matrix in expected.items():
        one = augment.DIFF_AUGMENT[name]
        new = jax.vmap(jax.vmap(one, (0, None)), (None, 0))(numbers, places)
        close(new[..., 0, 0].mean(1), matrix)
        assert np.linalg.svd(matrix)[1][-1] > 0.01


def test_p_follows_the_overfitting():
    sure, unsure = jnp.full(10_000, 3.0), jnp.tile(jnp.array([9.0, 2, 3, -4]), 2500)
    update = jax.jit(augment.adapt_p)
    close(update(0.5, sure), 0.52)  # n / 500k
    close(update(0.5, unsure), 0.48)  # r_t = 0.5
    assert update(0.01, unsure) == 0
    assert update(0.99, sure) == 1
    assert augment.adapt_p(0.5, unsure, target=0.5) == 0.5
    close(augment.adapt_p(0.0, unsure[:4], target=0.4, images=40), 0.1)
