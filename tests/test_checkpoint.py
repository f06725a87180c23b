"""Checkpoints come back bit for bit, the right ones are kept, and a kill at any moment is safe."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import fsgan
from fsgan.checkpoint import Checkpoints, restore_params
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


def save(directory, step: int, state, **options) -> None:
    checkpoints = Checkpoints(directory)
    checkpoints.save(step, state, **options)
    checkpoints.wait()


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert x.shape == y.shape
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("make_example", [make_state, lambda: jax.eval_shape(make_state)])
def test_round_trip_is_exact_and_quiet(tmp_path, make_example, capfd, caplog):
    caplog.set_level("INFO", logger="absl")  # as under absl's app.run
    state = make_state(7)
    save(tmp_path, 7, state)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() == 7
    assert_same(checkpoints.restore(make_example()), state)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.name == "absl"]


def test_restored_with_the_shardings_of_the_example(tmp_path):
    save(tmp_path, 1, make_state(1))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))

    def place(x):
        spec = PartitionSpec("data") if x.shape[:1] == (4,) else PartitionSpec()
        return jax.device_put(x, NamedSharding(mesh, spec))

    example = jax.tree.map(place, make_state())
    state = Checkpoints(tmp_path).restore(example)
    assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, example)
    assert_same(state, make_state(1))
    save(tmp_path, 2, state)
    assert_same(Checkpoints(tmp_path).restore(make_state()), state)


def test_the_state_may_be_donated_while_it_is_saved(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=9)
    step = jax.jit(lambda x: x * 3 + 1, donate_argnums=0)
    x = jax.jit(lambda: jnp.arange(1_000_000, dtype=jnp.uint32))()
    expected = []
    for i in range(1, 4):
        x = step(x)
        expected.append(np.array(x))
        checkpoints.save(i, {"x": x})
        for _ in range(3):
            x = step(x)
    for i, value in enumerate(expected, 1):
        np.testing.assert_array_equal(checkpoints.restore({"x": x}, i)["x"], value)


def test_last_and_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    scores = {1: None, 2: 0.5, 3: 0.7, 4: None, 5: float("nan"), 6: 0.9, 7: None}
    for step, score in scores.items():
        checkpoints.save(step, {"x": jnp.full(2, step)}, score=score, shown=step)
    assert checkpoints.best() == 2
    assert checkpoints.latest() == 7
    checkpoints.wait()
    assert {p.name for p in tmp_path.iterdir()} == {"2", "6", "7"}

    again = Checkpoints(tmp_path, keep=2)
    assert (again.latest(), again.best(), again.steps()) == (7, 2, [2, 6, 7])
    assert again.extra(2) == {"score": 0.5, "shown": 2}
    assert again.restore({"x": jnp.zeros(2, int)}, again.best())["x"][0] == 2
    again.save(8, {"x": jnp.zeros(2)}, score=0.1)
    again.wait()
    assert {p.name for p in tmp_path.iterdir()} == {"7", "8"}
    with pytest.raises(ValueError, match="step 8 is not after the latest checkpoint, 8"):
        again.save(8, {"x": jnp.zeros(2)})


MOMENTS = {  # audit event, end of one of its arguments, how many times: the latest step afterwards
    "temporary directory begun": ("os.mkdir", "tmp", 2, 1),
    "arrays being written": ("os.mkdir", "tmp", 3, 1),
    "parts complete": ("os.rename", "state", 1, 1),
    "about to commit": ("os.rename", os.sep + "2", 1, 1),
    "old one half deleted": ("os.rmdir", "metrics", 1, 2),
}
# Run in a process of its own, which forks before JAX has threads: one for each moment, killed by a
# hook on Python's own audit events while step 2 is saved.
KILLED = """
import os, signal, sys
import jax.numpy as jnp
from fsgan.checkpoint import Checkpoints

def save(directory, event, part, count):
    counts = []
    def hook(name, args):
        if armed and name == event and any(str(arg).endswith(part) for arg in args):
            counts.append(name)
            if len(counts) == count:
                os.kill(os.getpid(), signal.SIGKILL)

    armed = False
    sys.addaudithook(hook)
    checkpoints = Checkpoints(directory, keep=1)
    checkpoints.save(1, {"x": jnp.full(9, 1)}, score=0.5)
    checkpoints.wait()
    armed = True
    checkpoints.save(2, {"x": jnp.full(9, 2)}, score=0.4)
    checkpoints.wait()

children = []
for name, (*when, _) in eval(sys.argv[1]).items():
    children.append(os.fork())
    if not children[-1]:
        try:
            save(os.path.join(sys.argv[2], name), *when)
        finally:
            os._exit(0)
print([os.WTERMSIG(os.waitpid(child, 0)[1]) for child in children])
"""


def test_killed_at_any_moment(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", KILLED, repr(MOMENTS), tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path(fsgan.__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert run.stdout.strip() == str([int(signal.SIGKILL)] * len(MOMENTS)), "not all were killed"
    for name, (*_, latest) in MOMENTS.items():
        left = sorted(path.name for path in (tmp_path / name).iterdir())
        assert left == (["1", "2.orbax-checkpoint-tmp"] if latest == 1 else ["1", "2"]), name
        checkpoints = Checkpoints(tmp_path / name, keep=1)
        assert checkpoints.latest() == checkpoints.best() == latest, name
        restored = checkpoints.restore({"x": jnp.zeros(9, int)})
        np.testing.assert_array_equal(restored["x"], np.full(9, latest))
        checkpoints.save(3, restored, score=0.1)
        checkpoints.wait()
        assert [path.name for path in (tmp_path / name).iterdir()] == ["3"], name


def test_another_tree_is_refused_leaf_by_leaf(tmp_path):
    save(tmp_path, 1, make_state(1))
    other = make_state(width=4)
    other = other.replace(memory={}, frozen=Pair({}, {"new": jnp.zeros(2)}))
    with pytest.raises(ValueError, match="does not fit") as error:
        Checkpoints(tmp_path).restore(other)
    lines = str(error.value).splitlines()[1:]
    assert "params/g/block/kernel: checkpoint [4,3], here [4,4]" in lines
    assert "memory/flags: checkpoint bool[2], not here" in lines
    assert "frozen/d/new: not in the checkpoint, here float32[2]" in lines
    assert len(lines) == 2 * 4 + 3  # kernels and biases in params, ema, mu and nu; the rest


def test_parameters_of_another_run(tmp_path):
    for step, score in ((1, 0.1), (2, 0.2)):
        save(tmp_path, step, make_state(step), score=score)
    example = jax.eval_shape(make_state).params
    latest, best = restore_params(tmp_path, example), restore_params(tmp_path, example, best=True)
    assert_same(latest, Pair(make_state(2).ema.g, make_state(2).params.d))
    assert_same(best, Pair(make_state(1).ema.g, make_state(1).params.d))

    wider = jax.eval_shape(lambda: make_state(width=5)).params
    with pytest.raises(ValueError, match="2 leaves differ") as error:
        restore_params(tmp_path, wider)
    assert "g/block/kernel: checkpoint [4,3], here [4,5]" in str(error.value)
    assert "g/block/bias: checkpoint [3], here [5]" in str(error.value)


def test_learned_settings_are_left_out_where_they_have_no_place(tmp_path):
    state = make_state(1)
    g = {**state.params.g, "inner": {"per_leaf": jnp.ones(2)}}
    save(tmp_path, 1, state.replace(params=state.params._replace(g=g)))
    example = jax.eval_shape(make_state).params
    assert_same(restore_params(tmp_path, example), Pair(state.ema.g, state.params.d))
    with_them = example._replace(g={**example.g, "inner": {"per_leaf": jnp.zeros(2)}})
    found = restore_params(tmp_path, with_them).g["inner"]["per_leaf"]
    np.testing.assert_array_equal(found, 1)


def test_reading_another_run_changes_nothing(tmp_path):
    save(tmp_path, 1, make_state(1))
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()  # it is still training, and saving
    before = sorted(tmp_path.rglob("*"))
    restore_params(tmp_path, jax.eval_shape(make_state).params)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", [".", "missing"])
def test_without_a_checkpoint_one_line_says_what_to_do(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*: let the run save one first"):
        restore_params(tmp_path / name, {})
    assert not (tmp_path / "missing").exists()
