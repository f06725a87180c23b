"""Devices: one mesh, the state replicated over it, batches split along their first axis."""

from __future__ import annotations

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh() -> Mesh:
    """All devices of all processes along one axis, "data"."""
    # Explicit axes, the default, would refuse to concatenate sharded reals and unsharded fakes.
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split(batch, mesh: Mesh, axis: int = 0):
    """Inside jit: compute on this pytree's `axis` (images or tasks) with all devices in parallel."""
    sharding = NamedSharding(mesh, PartitionSpec(*(None,) * axis, "data"))
    return jax.tree.map(
        lambda x: jax.lax.with_sharding_constraint(x, sharding) if x.ndim > axis else x, batch
    )
