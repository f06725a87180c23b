"""Two processes of one run: they compute what one process does, and stop together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from configs import pretrain
from fsgan import loop, train
from fsgan.checkpoint import Checkpoints

ROOT = Path(__file__).parent.parent
FIELDS = "smoke,data.size=(8,8),steps=100000,observe_every=100000,save_every=100000"


def losses_of(workdir: Path) -> list[list[float]]:
    """The two losses of every report so far."""
    file = workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [[line["g_loss"], line["d_loss"]] for line in lines if "g_loss" in line]


def test_two_processes_are_one_run(tmp_path):
    """A signal to the second process stops both, at one step that both have saved."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = os.environ["XLA_FLAGS"].replace("device_count=2", "device_count=1")
    shared = {"XLA_FLAGS": flags, "JAX_COORDINATOR_ADDRESS": f"localhost:{port}"}
    shared["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # as in this process
    command = [sys.executable, "main.py", f"--config=configs/pretrain.py:{FIELDS}"]
    command += [f"--workdir={tmp_path / 'two'}", "--distributed"]
    processes = []
    try:
        for number in range(2):
            own = {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(number)}
            processes.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env={**os.environ, **shared, **own},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        patience = time.monotonic() + 100
        while len(losses_of(tmp_path / "two")) < 2 and time.monotonic() < patience:
            if any(process.poll() is not None for process in processes):
                break
            time.sleep(0.2)
        processes[1].send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    step = Checkpoints(tmp_path / "two" / "checkpoints").latest()
    assert f"saved step {step}; the same command goes on from there" in said[0]

    config = pretrain.get_config(FIELDS)
    config.steps = 4
    loop.run(
        train.prepare(config, tmp_path / "one"),
        tmp_path / "one",
        **train.intervals(config) | {"observe_every": 4, "save_every": 4},
    )
    one, two = losses_of(tmp_path / "one"), losses_of(tmp_path / "two")
    assert len(one) == 2 <= len(two)
    np.testing.assert_allclose(two[:2], one, rtol=1e-4)
