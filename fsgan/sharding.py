"""Devices: one mesh, the state replicated over it, batches split along their first axis."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def cores_as_devices() -> None:
    """Let each core of a CPU be a device. It must come before the first array.

    Nothing changes where XLA_FLAGS or JAX_NUM_CPU_DEVICES give a number, and on other platforms.
    """
    asked = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not asked and "JAX_NUM_CPU_DEVICES" not in os.environ:
        affinity = getattr(os, "sched_getaffinity", None)  # which macOS and Windows lack
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        jax.config.update("jax_num_cpu_devices", cores)


def compiler_options() -> dict[str, int]:
    """What `jax.stages.Lowered.compile` is told of a training step; asks for the default backend.

    On a CPU LLVM's cheap optimizations do: steps are as fast, and compiled in 0.8 times the time.
    Where JAX is told to optimize little, that stays so.
    """
    if jax.default_backend() != "cpu" or jax.config.read("jax_disable_most_optimizations"):
        return {}
    return {"xla_backend_optimization_level": 1}


def share(
    n: int, what: str, *, cores: bool, devices: Sequence[jax.Device] | None = None
) -> Sequence[jax.Device]:
    """Those of the devices, by default all there are, that a batch of `n` is to be split over.

    With `cores`, as many of a CPU's as divide it, without a single one. Tasks that are adapted side
    by side, one core each, take 0.6 times as long on two cores as one after the other with their
    small operations split over both; the larger ones of plain training gain nothing. Other devices
    take part all; ValueError, naming `what`, where their number does not divide it.
    """
    devices = jax.devices() if devices is None else devices
    if devices[0].platform == "cpu" and jax.process_count() == 1:
        return devices[: divisor(n, len(devices)) if cores else 1]
    if n % len(devices):
        raise ValueError(
            f"{what}={n} cannot be split over {len(devices)} devices: choose a multiple"
        )
    return devices


def divisor(n: int, limit: int) -> int:
    """The largest number up to `limit` that divides n."""
    return max((k for k in range(1, limit + 1) if n % k == 0), default=1)


def map_shared(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """`(shared, xs) -> [function(shared, x) for x in xs]`, compiled, on as many devices as divide
    the leading axis of the pytree xs: each takes its part of them, one after the other.

    It moves its arguments to the devices and its results to the host, so that it cannot be called
    under jit.
    """

    @partial(jax.jit, static_argnums=0)
    def run(mesh: Mesh | None, shared, xs):
        def each(shared, xs):
            return jax.lax.map(partial(function, shared), xs)

        if mesh is None:
            return each(shared, xs)
        data = PartitionSpec("data")
        specs = {"in_specs": (PartitionSpec(), data), "out_specs": data}
        return jax.shard_map(each, mesh=mesh, **specs, check_vma=False)(shared, xs)

    def call(shared, xs):
        mesh = None
        if jax.process_count() == 1:
            n = len(jax.tree.leaves(xs)[0])
            mesh = make_mesh(jax.devices()[: divisor(n, jax.device_count())])
            shared = jax.device_put(shared, replicated(mesh))
            xs = jax.device_put(xs, NamedSharding(mesh, PartitionSpec("data")))
        # Joined by the host: on a CPU a program that gathers several results can wait for ever,
        # each device's thread in another of them.
        return jax.device_get(run(mesh, shared, xs))

    return call


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices, by default all of all processes, along one axis, "data"."""
    devices = jax.devices() if devices is None else devices
    # Explicit axes, the default, would refuse to concatenate sharded reals and unsharded fakes.
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split(batch, mesh: Mesh, axis: int = 0):
    """Inside jit: share a batch out over all devices, along `axis` (images or tasks)."""
    sharding = NamedSharding(mesh, PartitionSpec(*(None,) * axis, "data"))
    return jax.tree.map(
        lambda x: jax.lax.with_sharding_constraint(x, sharding) if x.ndim > axis else x, batch
    )
