import jax.numpy as jnp
import numpy as np

from fsgan import trees
from fsgan.types import Pair


def test_names_do_not_depend_on_the_containers():
    tree = Pair({"block0": {"kernel": np.zeros(2), "bias": np.zeros(1)}}, [np.zeros(3), None])
    assert trees.names(tree) == ["g/block0/bias", "g/block0/kernel", "d/0"]
    assert sorted(trees.names(tree._asdict())) == sorted(trees.names(tree))


def test_mismatches_names_every_leaf_that_differs():
    here = Pair({"k": np.zeros((4, 4, 1, 64)), "b": jnp.zeros(3), "new": np.zeros(())}, {})
    there = {"g": {"k": np.zeros((4, 4, 1, 32)), "b": jnp.zeros(3, jnp.bfloat16)}}
    there["d"] = {"old": np.zeros((1, 2), np.int32)}
    assert trees.mismatches(there, here) == [
        "d/old: checkpoint int32[1,2], not here",
        "g/b: checkpoint bfloat16[3], here float32[3]",
        "g/k: checkpoint [4,4,1,32], here [4,4,1,64]",
        "g/new: not in the checkpoint, here float64[]",
    ]
    assert trees.mismatches(here, here) == []
