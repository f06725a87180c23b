"""Checkpoints come back bit for bit, the right ones are kept, and a kill at any moment is safe."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fsgan.checkpoint import Checkpoints
from fsgan.types import GANState, Pair


def make_state(seed: int = 0, width: int = 3) -> GANState:
    key = jax.random.key(seed)
    g = {"block": {"kernel": jax.random.normal(key, (4, width)), "bias": jnp.full(width, jnp.nan)}}
    d = {"low": jax.random.normal(key, (5,), jnp.bfloat16), "count": jnp.arange(3)}
    tx = optax.adam(1e-3)
    return GANState(
        step=jnp.int32(seed),
        key=key,
        params=Pair(g, d),
        frozen=Pair({}, {"nothing": None}),
        opt=Pair(tx.init(g), tx.init({})),
        ema=Pair(jax.tree.map(lambda x: x + 1, g), {}),
        memory={"tasks": jax.random.split(key, 2), "flags": jnp.array([True, False])},
    )


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert x.shape == y.shape
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("abstract", [False, True])
def test_round_trip_is_exact(tmp_path, abstract):
    state = make_state(7)
    before = Checkpoints(tmp_path)
    before.save(7, state)
    before.wait()
    example = make_state(0)
    if abstract:
        example = jax.eval_shape(make_state)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() == 7
    assert_same(checkpoints.restore(example), state)


def test_last_and_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    scores = {1: None, 2: 0.5, 3: 0.7, 4: None, 5: float("nan"), 6: 0.9, 7: None}
    for step, score in scores.items():
        checkpoints.save(step, make_state(step), score=score, shown=step)
    assert checkpoints.best() == 2
    assert checkpoints.latest() == 7
    checkpoints.wait()
    assert {p.name for p in tmp_path.iterdir()} == {"2", "6", "7"}

    again = Checkpoints(tmp_path, keep=2)
    assert (again.latest(), again.best(), again.steps()) == (7, 2, [2, 6, 7])
    assert again.extra(2) == {"score": 0.5, "shown": 2}
    assert_same(again.restore(make_state(), again.best()), make_state(2))
    again.save(8, make_state(8), score=0.1)
    again.wait()
    assert {p.name for p in tmp_path.iterdir()} == {"7", "8"}
    with pytest.raises(ValueError, match="step 8 is not after the latest checkpoint, 8"):
        again.save(8, make_state(8))
