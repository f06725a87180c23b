"""Image sets by name: one file per source, found by its file name.

A source is a module with `load(split, *, size, channels, seed, ...) -> Images`; `channels=None`
means the source's own number. Importing one imports nothing beyond numpy: Pillow, matplotlib and
tensorflow-datasets are imported where they are used.
"""

from __future__ import annotations

import difflib
import hashlib
import sys
from collections.abc import Iterable

import numpy as np

from fsgan import plugins
from fsgan.images import take_classes
from fsgan.types import Images

SPLITS = ("train", "valid", "test")


def load(
    name: str,
    split: str,
    *,
    size: int | tuple[int, int] = (28, 28),
    channels: int | None = None,
    seed: int = 0,
    classes: Iterable[str | int] | str | int | None = None,
    exclude: Iterable[str | int] | str | int | None = None,
    **options,
) -> Images:
    """The images of one split: uint8 [n, *size, channels].

    `name` is a source's file name, `folder:PATH`, or any image set of tensorflow-datasets.
    `split` is 'train', 'valid' or 'test'; `size` is (height, width) or the side of a square.
    `channels` is 1 (grey), 3 (RGB), 4 (RGBA), or None for the source's own. `seed` is used by
    sources that draw their splits. `classes` are the only ones kept, `exclude` those left out:
    names, whole alphabets ("Greek" of "Greek/small letter alpha"), or indices; leaving one class
    out and keeping it alone make a transfer task. `options` are the source's own.

    Raises ValueError or FileNotFoundError, in one line that says what to do.
    """
    package = sys.modules[__name__]
    size = (size, size) if isinstance(size, int | np.integer) else tuple(size)
    if len(size) != 2 or not all(isinstance(s, int | np.integer) and s > 0 for s in size):
        raise ValueError(f"size must be a positive side or (height, width), got {size}")
    if channels not in (None, 1, 3, 4):
        raise ValueError(f"channels must be 1 (grey), 3 (RGB) or 4 (RGBA), got {channels!r}")
    if split not in SPLITS:
        raise plugins.unknown("split", split, SPLITS)

    if name.startswith("folder:"):
        name, options = "folder", {"path": name.removeprefix("folder:")} | options
    elif name not in plugins.names(package):
        name, options = "tfds", {"dataset": name} | options
    source = plugins.find(package, name)
    shared = {"size": size, "channels": channels, "seed": seed}
    plugins.check_options(source.load, options, name)
    return select(source.load(split, **shared, **options), classes, exclude)


def select(images: Images, classes=None, exclude=None) -> Images:
    """The images of `classes` (None: all) without those of `exclude` (None: none), labelled anew.

    Both are a class or several: names, alphabets or indices; the order of `images.classes` stays.
    Raises ValueError for a class that is not there, or if none is left.
    """

    def indices(wanted) -> set[int]:
        wanted = [wanted] if isinstance(wanted, str | int | np.integer) else wanted
        found = set()
        for one in wanted:
            if isinstance(one, str):
                hits = [
                    i for i, c in enumerate(images.classes) if c == one or c.startswith(one + "/")
                ]
            else:
                hits = [int(one)] if 0 <= one < len(images.classes) else []
            if not hits:
                raise ValueError(f"no class {one!r}: {_near(str(one), images.classes)}")
            found.update(hits)
        return found

    keep = set(range(len(images.classes))) if classes is None else indices(classes)
    keep -= set() if exclude is None else indices(exclude)
    if not keep:
        raise ValueError("no class is left: `exclude` names all of them, or `classes` none")
    return images if len(keep) == len(images.classes) else take_classes(images, sorted(keep))


def fingerprint(images: Images) -> str:
    """12 hexadecimal digits that tell one image set from another: images, labels, class names."""
    digest = hashlib.sha256(repr((images.images.shape, tuple(images.classes))).encode())
    digest.update(np.ascontiguousarray(images.images, np.uint8))
    digest.update(np.ascontiguousarray(images.labels, np.int32))
    return digest.hexdigest()[:12]


def _near(name: str, classes: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, classes, n=3, cutoff=0.4) or list(classes[:3])
    return f"there are {len(classes)}, such as {', '.join(map(repr, near))}"
