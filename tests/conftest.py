"""Shared fixtures. Two CPU devices, so that the sharding tests run anywhere."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_disable_most_optimizations", True)  # compiles several times faster


@pytest.fixture
def key():
    return jax.random.key(0)
