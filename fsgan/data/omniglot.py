"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 images each (Lake et al. 2015).

White on black like MNIST; the classes are named "Alphabet/character01".
"""

from __future__ import annotations

import hashlib

from fsgan.data import tfds
from fsgan.types import Images

# The official evaluation set; the other 30 alphabets are the background set.
EVALUATION = (
    "Angelic",
    "Atemayar_Qelisayer",
    "Atlantean",
    "Aurek-Besh",
    "Avesta",
    "Ge_ez",
    "Glagolitic",
    "Gurmukhi",
    "Kannada",
    "Keble",
    "Malayalam",
    "Manipuri",
    "Mongolian",
    "Old_Church_Slavonic_(Cyrillic)",
    "Oriya",
    "Sylheti",
    "Syriac_(Serto)",
    "Tengwar",
    "Tibetan",
    "ULOG",
)


def load(
    split: str, *, size: tuple[int, int], channels: int | None, seed: int, valid: int = 5
) -> Images:
    """'test' is the official evaluation set of 20 alphabets, the 30 of the background set are
    'train' but for `valid` whole alphabets, which `seed` alone chooses: 'valid'.
    """
    builder = tfds.prepared("omniglot")

    def order(name: str) -> str:  # a permutation by the seed, the same on every machine
        return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()

    names = builder.info.features["alphabet"].names
    background = sorted((name for name in names if name not in EVALUATION), key=order)
    if not 0 < valid < len(background):
        raise ValueError(f"valid must be 1 to {len(background) - 1} alphabets, got {valid}")
    parts = {"train": background[valid:], "valid": background[:valid], "test": EVALUATION}
    images = tfds.read(
        builder,
        "test" if split == "test" else "train",
        size=size,
        channels=channels or 1,
        wanted=lambda name: name.rpartition("_")[0] in parts[split],
        convert=inverted,
    )
    names = (name.rpartition("_") for name in images.classes)  # of 'Greek_0'
    return images._replace(classes=tuple(f"{a}/character{int(c) + 1:02d}" for a, _, c in names))


def inverted(image):
    """White on black of a Pillow image with 1 bit; 'L' is {0, 255} whatever else is installed."""
    from PIL import ImageOps

    return ImageOps.invert(image.convert("L"))
