"""Decoded images on disk: reading a set a second time takes no time."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fsgan.types import Images

LARGEST = 2**30  # bytes; larger sets are not kept


def cached(made_from: object, make: Callable[[], Images]) -> Images:
    """What `make` returns, kept in ~/.cache/fsgan/data under a hash of `made_from`, anything whose
    repr tells one result from another, and of the code of this package.

    A file that cannot be read is made anew; where none can be written there is none.
    """
    digest = hashlib.sha256(repr(made_from).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    file = Path.home() / ".cache" / "fsgan" / "data" / f"{digest.hexdigest()[:24]}.npz"
    try:
        with file.open("rb") as opened, np.load(opened) as found:
            return Images(found["images"], found["labels"], tuple(map(str, found["classes"])))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        images = make()
    if images.images.nbytes > LARGEST:
        return images
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            partial = Path(folder) / file.name
            np.savez(partial, **images._asdict())
            partial.replace(file)  # as a whole or not at all
    except OSError:
        pass
    return images
