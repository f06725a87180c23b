"""uint8 outside, [-1, 1] inside."""

import jax
import jax.numpy as jnp
import numpy as np

from fsgan.images import take_classes, to_float, to_uint8
from fsgan.types import Images


def test_round_trip_keeps_all_256_values():
    values = np.arange(256, dtype=np.uint8)
    floats = jax.jit(to_float)(values)
    assert floats.dtype == jnp.float32
    assert (floats[0], floats[-1]) == (-1, 1)
    back = jax.jit(to_uint8)(floats)
    assert back.dtype == jnp.uint8
    np.testing.assert_array_equal(back, values)


def test_values_beyond_the_range_are_clipped():
    np.testing.assert_array_equal(to_uint8(jnp.array([-3.0, 0.0, 1.01, 9.0])), [0, 128, 255, 255])


def test_take_classes_labels_anew():
    images = Images(
        np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1), np.array([0, 1, 2] * 2), "abc"
    )
    taken = take_classes(images, [2, 0])
    assert taken.classes == ("c", "a")
    np.testing.assert_array_equal(taken.images.ravel(), [0, 2, 3, 5])
    np.testing.assert_array_equal(taken.labels, [1, 0, 1, 0])
