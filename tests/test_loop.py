"""The loop knows nothing of GANs: here it runs a step that counts."""

import json
import types

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsgan import loop, sharding


@flax.struct.dataclass
class Counter:
    step: jax.Array
    params: jax.Array


def job(**changes) -> loop.Job:
    def step(state, batch):
        after = state.replace(step=state.step + 1, params=state.params + batch.sum())
        return after, {"batch": batch.sum(), "total": after.params}

    fields = {
        "phase": "count",
        "init": lambda: Counter(jnp.int32(0), jnp.float32(0)),
        "step": step,
        "sample": lambda key, data: data + jax.random.uniform(key, (4,)),
        "data": jnp.arange(4.0),
        "data_key": jax.random.key(3),
        "observe": lambda state, log, last: {},
        "record": {},
    }
    return loop.Job(**{**fields, **changes})


def numbers(workdir, name):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


EVERY = {"report_every": 1, "observe_every": 2, "save_every": 2}


def test_every_step_has_a_batch_of_its_own_decided_by_its_number(tmp_path):
    assert loop.run(job(), tmp_path, steps=6, **EVERY)
    sums = numbers(tmp_path, "batch")
    assert len(set(sums)) == 6
    expected = [
        6 + jax.random.uniform(jax.random.fold_in(jax.random.key(3), i), (4,)).sum()
        for i in range(6)
    ]
    np.testing.assert_allclose(sums, expected, rtol=1e-5)
    np.testing.assert_allclose(numbers(tmp_path, "total"), np.cumsum(expected), rtol=1e-5)


@pytest.mark.parametrize("report_every", [2, 4])
def test_reports_are_means_and_the_end_need_not_divide(tmp_path, report_every):
    every = {"report_every": report_every, "observe_every": 4, "save_every": 4}
    assert loop.run(job(), tmp_path, steps=5, **every)
    (tmp_path / "one").mkdir()
    assert loop.run(job(), tmp_path / "one", steps=5, **EVERY)
    each, means = numbers(tmp_path / "one", "batch"), numbers(tmp_path, "batch")
    ends = [*range(report_every, 5, report_every), 5]
    begins = [0, *ends[:-1]]
    expected = [np.mean(each[a:b]) for a, b in zip(begins, ends, strict=True)]
    np.testing.assert_allclose(means, expected, rtol=1e-5)


def test_observed_at_its_times_and_the_best_is_kept(tmp_path):
    seen = []

    def observe(state, log, last):
        seen.append((int(state.step), last))
        return {"score": abs(int(state.step) - 4.0)}

    watched = job(observe=observe, score="score")
    assert loop.run(watched, tmp_path, steps=10, **EVERY, keep=1)
    assert seen == [(2, False), (4, False), (6, False), (8, False), (10, True)]
    checkpoints = loop.Checkpoints(tmp_path / "checkpoints", keep=1)
    assert (checkpoints.best(), checkpoints.latest(), checkpoints.steps()) == (4, 10, [4, 10])


def test_the_watch_is_asked_after_each_scoring(tmp_path, capsys):
    def watch(workdir):
        return [f"{len(numbers(workdir, 'score/score'))} so far"]

    def observe(state, log, last):
        return {"score": 1.0} if int(state.step) in (2, 6) else {}

    assert loop.run(job(observe=observe, watch=watch), tmp_path, steps=6, **EVERY)
    lines = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert lines == ["warning: 1 so far", "warning: 2 so far"]


def test_a_finished_run_is_not_run_again(tmp_path, capsys):
    assert loop.run(job(), tmp_path, steps=2, **EVERY)
    before = (tmp_path / "metrics.jsonl").read_text()
    assert loop.run(job(), tmp_path, steps=2, **EVERY)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_compilation_is_reported_once_for_each_length(tmp_path, capsys):
    assert loop.run(job(), tmp_path, steps=6, **EVERY)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("count ")]
    assert "compiled in" in lines[1]
    assert sum("compiled in" in line for line in lines) == 1


def test_the_compiler_knows_its_options(monkeypatch):
    """They are the loop's where optimizations are not switched off, as they are in these tests."""
    assert sharding.compiler_options() == {}
    monkeypatch.setattr(jax.config, "read", lambda name: False)
    options = sharding.compiler_options()
    assert len(options) == 1
    lowered = jax.jit(lambda x: 2 * x).lower(jnp.arange(3))
    assert list(lowered.compile(options)(jnp.arange(3))) == [0, 2, 4]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert sharding.compiler_options() == {}


@pytest.mark.parametrize("axis", [0, 1])
def test_batches_are_really_split_over_the_devices(tmp_path, axis):
    """The step sees a batch with a different half on each of the two devices."""
    shape, seen = (4, 6), []

    def step(state, batch):
        jax.debug.inspect_array_sharding(batch, callback=seen.append)
        return job().step(state, batch)

    split = job(step=step, sample=lambda key, data: jnp.ones(shape), batch_axis=axis)
    assert loop.run(split, tmp_path, steps=2, **EVERY)
    assert seen[0].shard_shape(shape) == ((2, 6), (4, 3))[axis]


def test_which_devices_share_a_batch():
    """A CPU's cores as many as divide it, or one; accelerators all, or there is an error."""
    cores = [types.SimpleNamespace(platform="cpu") for _ in range(6)]
    chosen = [len(sharding.share(n, "tasks", cores=True, devices=cores)) for n in (4, 5, 7, 12)]
    assert chosen == [4, 5, 1, 6]
    assert len(sharding.share(4, "batch", cores=False, devices=cores)) == 1
    gpus = [types.SimpleNamespace(platform="gpu") for _ in range(6)]
    assert sharding.share(12, "batch", cores=False, devices=gpus) == gpus
    with pytest.raises(ValueError, match="tasks=4 cannot be split over 6 devices"):
        sharding.share(4, "tasks", cores=True, devices=gpus)


@pytest.mark.parametrize("n", [3, 4])
def test_shared_work_is_joined_by_the_host(n):
    """Each device has its part, in order; nothing that follows depends on how they were split."""

    @sharding.map_shared
    def scaled(factor, x):
        return {"image": factor * x, "mean": x.mean()}

    xs = np.arange(n * 2.0, dtype=np.float32).reshape(n, 2)
    found = scaled(jnp.float32(3), xs)
    assert all(isinstance(y, np.ndarray) for y in found.values())
    np.testing.assert_array_equal(found["image"], 3 * xs)
    np.testing.assert_array_equal(found["mean"], xs.mean(1))


def poisoned(what: str, at: int):
    """The counting step, but the metric or the parameter is not finite from that step on."""

    def step(state, batch):
        after, metrics = job().step(state, batch)
        poison = jnp.where(after.step >= at, jnp.nan, 0.0)
        if what == "params":
            return after.replace(params=after.params + poison), {"batch": metrics["batch"]}
        return after, {**metrics, "batch": metrics["batch"] + poison}

    return job(step=step)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("batch", "batch is not finite at step 7.* step 4 is kept"),
        ("params", "a parameter is not finite at step 8.* step 4 is kept"),
    ],
)
def test_what_is_not_finite_stops_the_run_and_is_never_saved(tmp_path, what, message):
    every = {"report_every": 2, "observe_every": 4, "save_every": 4}
    with pytest.raises(loop.NonFiniteError, match=message):
        loop.run(poisoned(what, at=7), tmp_path, steps=12, **every)
    assert loop.Checkpoints(tmp_path / "checkpoints").latest() == 4
