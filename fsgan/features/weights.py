"""Weight files: where they lie, whether they are the right ones, and how they are read.

A file is NAME.npz, an array for each parameter ("fire2/expand1x1/kernel", kernels HWIO), and
"source": the SHA-256 of the published file that it was converted from. Files are looked for in
the folder FSGAN_WEIGHTS, by default ~/.cache/fsgan/weights. Nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from fsgan import plugins, trees
from fsgan.types import Params

Arrays = dict[str, np.ndarray]
# What numpy raises for files that are cut off, changed, or something else altogether.
DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, AttributeError, TypeError)


class Published(NamedTuple):
    """A file as its authors published it."""

    file: str
    sha256: str  # hexadecimal, its beginning at least


# What a name in the folder stands for. Files of PyTorch carry the beginning of their hash in their
# own name; LPIPS's are in the package lpips 0.1.4, weights/v0.1.
PUBLISHED = {
    "alexnet": Published("alexnet-owt-7be5be79.pth", "7be5be79"),
    "inception_fid": Published("pt_inception-2015-12-05-6726825d.pth", "6726825d"),
    "lpips_alexnet": Published(
        "alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
    ),
    "lpips_squeezenet": Published(
        "squeeze.pth", "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76"
    ),
    "lpips_vgg16": Published(
        "vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"
    ),
    "squeezenet1_1": Published("squeezenet1_1-b8a52dc0.pth", "b8a52dc0"),
    "squeezenet_v1.1_imagenet": Published(
        "squeezenet_v1.1_imagenet.npz",
        "05728f185d699e5f430644efed434aa83ec261fa44409a8559629b69a46843d1",
    ),
    "vgg16": Published("vgg16-397923af.pth", "397923af"),
    "vgg19": Published("vgg19-dcbb9e9d.pth", "dcbb9e9d"),
}


def folder() -> Path:
    """Where weight files are looked for."""
    return Path(os.environ.get("FSGAN_WEIGHTS") or "~/.cache/fsgan/weights").expanduser()


def load(
    name: str,
    shapes: Params,
    path: str | os.PathLike | None = None,
    *,
    adapt: Callable[[Arrays], Arrays] = lambda arrays: arrays,
) -> Params:
    """The parameters of `name`, float32 in the tree of `shapes` (leaves with a shape).

    Without `path` the file is looked for in the folder and must come from the published one;
    with `path`, it may hold weights of your own. `adapt` is applied to the arrays that were read.

    Raises FileNotFoundError if there is no such file, ValueError if it is damaged, comes from
    another one than the published, or holds other parameters: one line that says what to do.
    """
    file = Path(path) if path else find(name)
    if not file.is_file():
        raise FileNotFoundError(f"no weight file {file}")
    arrays = read(file)
    if not path:
        check_source(name, file, arrays)
    return fit(adapt(arrays), shapes, file)


def find(name: str) -> Path:
    """The file of that name in the folder; FileNotFoundError saying how to get it."""
    if name not in PUBLISHED:
        raise plugins.unknown("weights", name, PUBLISHED)
    file, published = folder() / f"{name}.npz", PUBLISHED[name]
    if not file.is_file():
        what = f"{published.file} (SHA-256 {published.sha256})"
        if published.file == file.name:
            todo = f"put {what} there"
        else:
            todo = f"get {what} and run python -m fsgan.features.convert {name} FILE"
        raise FileNotFoundError(f"no weight file {file}: {todo}, or set FSGAN_WEIGHTS")
    return file


def read(file: Path) -> Arrays:
    """All arrays of an .npz file; ValueError if it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except DAMAGED as error:
        raise ValueError(
            f"{file} is no readable .npz file: delete it, and get, convert or train it anew"
        ) from error


def sha256(file: Path) -> str:
    """Of a file's content, 64 hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_source(name: str, file: Path, arrays: Arrays) -> None:
    """ValueError if `file` is not, or was not converted from, the published file."""
    published = PUBLISHED[name]
    own = published.file == file.name
    found = sha256(file) if own else str(arrays.get("source", "unknown"))
    if not found.startswith(published.sha256):
        verb = "has" if own else "was converted from a file with"
        raise ValueError(
            f"{file} {verb} SHA-256 {found}, not {published.sha256} ({published.file}): "
            "get that one, or give the path of your own weights"
        )


def fit(arrays: Arrays, shapes: Params, file: Path) -> Params:
    """The arrays as float32 in the tree of `shapes`; others than those are left out.

    Raises ValueError, naming the first, if one is missing, no array of real numbers, of another
    shape, or not finite.
    """
    chosen = {}
    for name, wanted in trees.named(shapes).items():
        if name not in arrays:
            raise ValueError(f"{file} lacks {name}: it holds the weights of another network")
        array = arrays[name]
        if getattr(array, "dtype", np.dtype(object)).kind not in "fiu":
            raise ValueError(f"{file}: {name} is no array of real numbers: get the file anew")
        if array.shape != tuple(wanted.shape):
            raise ValueError(f"{file}: {name} is {array.shape}, but must be {wanted.shape}")
        chosen[name] = jnp.asarray(array, jnp.float32)
        if not jnp.isfinite(chosen[name]).all():
            raise ValueError(f"{file}: {name} is not finite: get or convert the file anew")
    return unflatten_dict(chosen, sep="/")


def save(file: Path, arrays: Arrays) -> None:
    """Write an .npz file, so that there is never half of one; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
        try:
            np.savez(part, **arrays)
            part.close()
            os.replace(part.name, file)
        except BaseException:
            os.unlink(part.name)
            raise
