"""Shared fixtures. Two CPU devices, so that the sharding tests run anywhere."""

import importlib.metadata
import os
import tempfile

# Without fusion emitters it compiles three times faster; a flag that XLA does not know is fatal.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=2",
        "--xla_cpu_use_fusion_emitters=false"
        if importlib.metadata.version("jaxlib").startswith("0.10.")
        else "",
    ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

from fsgan import loop

jax.config.update("jax_disable_most_optimizations", True)  # compiles several times faster
# What several tests compile is compiled once, in a folder of its own: every run starts cold. The
# first process makes it; its workers and the processes that tests start inherit it.
if "FSGAN_TESTS_CACHE" not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix="fsgan-tests-")
    os.environ["FSGAN_TESTS_CACHE"] = os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
jax.config.update("jax_compilation_cache_dir", os.environ["FSGAN_TESTS_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


# What takes longest begins first; a file stays with one worker, which makes its fixtures once.
SLOW = ("train", "tasks", "transfer", "transfer_methods", "learned", "nets", "evaluate")
SLOW += ("distributed", "tables", "readme", "calibration", "features_networks", "augment")


def pytest_collection_modifyitems(items):
    order = [f"test_{name}.py" for name in SLOW]
    rank = {name: i for i, name in enumerate(order)}
    items.sort(key=lambda item: rank.get(item.path.name, len(order)))


@pytest.fixture(scope="session", autouse=True)
def no_curves():
    """Runs end without their picture, which takes a second: tests that look at it draw it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "curves", lambda workdir: None)
        yield


@pytest.fixture
def key():
    return jax.random.key(0)
