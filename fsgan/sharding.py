"""Devices: one mesh, the state replicated over it, batches split along their first axis."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


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
