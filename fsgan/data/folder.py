"""Your own images: one folder, or one folder per class."""

from __future__ import annotations

import os
import pathlib
import warnings

import numpy as np

from fsgan.data._pixels import convert, pixels
from fsgan.types import Images

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


def load(
    split: str,
    *,
    size: tuple[int, int],
    channels: int | None,
    seed: int,
    path: str = "",
    skip_bad: bool = False,
) -> Images:
    """All images under `path`, sorted by name; the folder of an image is its class.

    Where `path` has folders train, valid or test, a split is the folder of that name; otherwise
    every split is all images. Files with other suffixes and hidden ones are ignored, EXIF rotation
    is applied, of an animation the first frame is taken. `channels=None` is 4 if any pixel is not
    opaque, else 1 if all are grey, else 3. Alpha that is not kept goes onto white. A file that
    cannot be read is an error, or with `skip_bad` a warning.

    Raises FileNotFoundError or ValueError.
    """
    del seed  # nothing is drawn
    root = _root(path, split)
    files = sorted(_files(root))
    if not files:
        raise FileNotFoundError(f"no images in {root} (looked for {', '.join(SUFFIXES)})")
    folders = sorted({folder for folder, _ in files})
    if "." in folders and len(folders) > 1:
        raise ValueError(
            f"images both in {root} and in its folder {folders[1]!r}: use one folder, or one "
            "folder per class"
        )

    images, labels = [], []
    for folder, file in files:
        try:
            images.append(_open(file, size))
            labels.append(folders.index(folder))
        except Exception as error:  # Pillow raises many kinds
            if not skip_bad:
                raise ValueError(
                    f"cannot read the image {file} ({error}): repair or remove it, or set "
                    "skip_bad=True"
                ) from error
            warnings.warn(f"left out {file}: {error}", stacklevel=2)
    if not images:
        raise ValueError(f"none of the {len(files)} images in {root} can be read")

    kept = np.unique(labels)  # a class may have lost all its images
    labels = np.searchsorted(kept, labels).astype(np.int32)
    names = tuple(root.resolve().name if folders[i] == "." else folders[i] for i in kept)
    return Images(_to_channels(np.stack(images), channels), labels, names)


def _root(path: str, split: str) -> pathlib.Path:
    if not path:
        raise ValueError("folder: say where the images are, by path=... or as folder:PATH")
    root = pathlib.Path(path).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"there is no folder {root}")
    if not root.is_dir():
        raise ValueError(f"{root} is a file: give the folder that the images are in")
    splits = [s for s in ("train", "valid", "test") if (root / s).is_dir()]
    if splits and split not in splits:
        raise FileNotFoundError(f"{root} has no folder {split!r} (it has: {', '.join(splits)})")
    return root / split if splits else root


def _files(root: pathlib.Path):
    """(folder relative to root, file) of every image below `root`."""
    for folder, below, names in os.walk(root, followlinks=True):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield pathlib.Path(folder).relative_to(root).as_posix(), pathlib.Path(folder, name)


def _open(file: pathlib.Path, size: tuple[int, int]) -> np.ndarray:
    """uint8 [h, w, 4]."""
    from PIL import Image, ImageOps

    with Image.open(file) as image:
        return pixels(ImageOps.exif_transpose(image), size, 4)


def _to_channels(images: np.ndarray, channels: int | None) -> np.ndarray:
    """RGBA images with the wanted number of channels, or with as many as they need."""
    colour = bool((images[..., :3] != images[..., :1]).any())
    if channels is None:
        channels = 4 if (images[..., 3] < 255).any() else 3 if colour else 1
    if colour and channels == 1:
        warnings.warn("the images are in colour: channels=1 makes them grey", stacklevel=3)
    return convert(images, channels)
