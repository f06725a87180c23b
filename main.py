"""Run a config: python main.py --config=configs/maml_gan.py [--workdir=DIR] [--config.x=value]."""

import os
import sys
import warnings
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from fsgan import calibration, drawing, loop, scoring, sharding, tables, train

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, FILE:words for variants."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives; runs/<name> by default.")
OTHERS = {  # phases that are no training run
    "calibrate": calibration.run,
    "evaluate": scoring.run,
    "sample": drawing.run,
    "table": tables.run,
}
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes of a run: see the README."
)
CACHE = Path.home() / ".cache" / "fsgan" / "xla"


def fail(error: Exception, code: int) -> None:
    """Leave with one line on stderr."""
    text = str(error)
    if error.args and isinstance(error.args[0], KeyError):  # of ml_collections: the nearest field
        text = f"unknown config field {error.args[0].args[0]}"
    elif "Traceback" in text:  # of a config file, wrapped by absl: its last line says what is wrong
        text = text.strip().splitlines()[-1].partition(": ")[2]
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(code)


def parse(argv: list[str]) -> list[str]:
    flags.mark_flag_as_required("config")
    try:
        rest = flags.FLAGS(argv)
        str(CONFIG.value)  # a file that could not be loaded says so when it is looked at
        if rest[1:]:
            raise flags.Error(
                f"unexpected argument {rest[1]!r}: fields are given as --config.x=..."
            )
        return rest
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        fail(error, 2)


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # of the libraries below; our own reports are printed
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    if jax.config.jax_compilation_cache_dir is None:  # unless the environment names another one
        jax.config.update("jax_compilation_cache_dir", str(CACHE))
    if DISTRIBUTED.value:
        # On SLURM and on TPU pods jax finds the others by itself, elsewhere by these.
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        where, *numbers = map(os.environ.get, names)
        jax.distributed.initialize(where, *(n and int(n) for n in numbers))
    else:
        sharding.cores_as_devices()
    config = CONFIG.value
    try:
        place = config.get("run") or "runs"  # what is made of a run lies in it
        workdir = Path(WORKDIR.value or Path(place) / config.name)
        if config.phase in OTHERS:
            OTHERS[config.phase](config, workdir)
            return
        job = train.prepare(config, workdir)
    except tables.Failed as error:
        fail(error, 1)
    except (ValueError, OSError) as error:
        fail(error, 2)
    try:
        loop.run(job, workdir, **train.intervals(config))
    except loop.NonFiniteError as error:
        fail(error, 1)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
