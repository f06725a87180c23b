"""Characters of the fonts that matplotlib ships: nothing to download, any size.

One class per character, one image per face (DejaVu Sans, Sans Mono and Serif, STIX; upright, bold,
oblique), white on black; scripts are the alphabets, and whole scripts are held out. With
matplotlib 3.11 and the default options:

    train  1,433 classes  18,539 images  Latin 893 classes, Greek 305, Cyrillic 225, digits 10
    valid     30 classes     240 images  Lao
    test     188 classes   1,952 images  Armenian 69, Georgian 119

No other script has 8 faces: Lao is small, but has as many as the rarer half of Georgian, so that
what can be tested can be validated. Faces with the same outline of a character count once, and
classes of valid and test of which any outline occurs in train (or in valid) are left out: 7
Armenian letters that look like Latin, Greek or Cyrillic ones. Within train such twins stay, in 256
classes (Latin, Greek and Cyrillic A).
"""

from __future__ import annotations

import functools
import hashlib
import pathlib
import unicodedata
from collections.abc import Sequence

import numpy as np

from fsgan import plugins
from fsgan.data._pixels import convert
from fsgan.types import Images


def load(
    split: str,
    *,
    size: tuple[int, int],
    channels: int | None,
    seed: int,
    min_images: int = 8,
    valid: str | Sequence[str] = ("Lao",),
    test: str | Sequence[str] = ("Armenian", "Georgian"),
) -> Images:
    """The characters of the scripts `valid`, of the scripts `test`, or of all others ('train').

    Characters with fewer than `min_images` faces are left out. The classes are named
    "Greek/small letter alpha". Raises ValueError for a script that is not there, sides below 8
    pixels, or if no character is left.
    """
    del seed  # nothing is drawn
    if min(size) < 8:
        raise ValueError(f"glyphs: {size[0]}x{size[1]} pixels are too few, 8 is the least")
    valid, test = ((s,) if isinstance(s, str) else tuple(s) for s in (valid, test))
    scripts = {_name(c).split("/")[0] for c in _glyphs()}
    for script in valid + test:
        if script not in scripts:
            raise plugins.unknown("script", script, scripts)

    def part_of(c: str) -> str:
        script = _name(c).split("/")[0]
        return "valid" if script in valid else "test" if script in test else "train"

    parts = {"train": {}, "valid": {}, "test": {}}
    for c, faces in _glyphs().items():
        if len(faces) >= min_images:
            parts[part_of(c)][c] = faces
    before = {"train": (), "valid": ("train",), "test": ("train", "valid")}[split]
    seen = {outline for part in before for faces in parts[part].values() for outline in faces}
    chosen = {c: faces for c, faces in parts[split].items() if seen.isdisjoint(faces)}

    chars = sorted(chosen, key=lambda c: (_name(c).split("/")[0], c))
    if not chars:
        most = max((len(faces) for c, faces in _glyphs().items() if part_of(c) == split), default=0)
        raise ValueError(
            f"glyphs: no character of the {split} scripts has {min_images} faces (the most is "
            f"{most}): lower min_images, or choose other scripts by `valid` and `test`"
        )
    images = [_render(face, c, size) for c in chars for face in chosen[c].values()]
    labels = np.repeat(np.arange(len(chars), dtype=np.int32), [len(chosen[c]) for c in chars])
    return Images(
        convert(np.stack(images)[..., None], channels or 1), labels, tuple(map(_name, chars))
    )


def _name(c: str) -> str:
    """'Greek/small letter alpha': the script, then the rest of the Unicode name."""
    script, _, rest = unicodedata.name(c).partition(" ")
    return f"{script.capitalize()}/{rest.lower()}"


def _is_character(code: int) -> bool:
    """Letters and digits in their plain form: no styled variants, ligatures or symbols."""
    c = chr(code)
    return (
        unicodedata.category(c) in ("Lu", "Ll", "Lt", "Lo", "Nd")
        and unicodedata.is_normalized("NFKC", c)
        and not 0x2100 <= code < 0x2190  # letterlike symbols and number forms
    )


@functools.cache
def _glyphs() -> dict[str, dict[bytes, str]]:
    """For every character the faces that have it: {hash of the outline: font file}."""
    import matplotlib
    from matplotlib import ft2font

    folder = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [f for p in ("DejaVuSans*", "DejaVuSerif*", "STIXGeneral*") for f in folder.glob(p)]
    glyphs: dict[str, dict[bytes, str]] = {}
    for font in sorted(f for f in fonts if "Display" not in f.name):
        face = ft2font.FT2Font(str(font))
        for code, index in face.get_charmap().items():
            if not (index and _is_character(code)):
                continue
            face.load_glyph(index, flags=ft2font.LoadFlags.NO_SCALE)
            points, codes = face.get_path()
            if len(points):  # wherever it stands in its cell, a shape is a shape
                outline = (points - points.min(0)).tobytes() + codes.tobytes()
                key = hashlib.blake2b(outline, digest_size=16).digest()
                glyphs.setdefault(chr(code), {}).setdefault(key, str(font))
    return glyphs


@functools.cache
def _font(path: str, pixels: float):
    from PIL import ImageFont

    # The basic layout: the other one exists only where libraqm is installed.
    return ImageFont.truetype(path, pixels, layout_engine=ImageFont.Layout.BASIC)


def _render(path: str, c: str, size: tuple[int, int]) -> np.ndarray:
    """uint8 [h, w], the ink centred; glyphs too big for the cell are shrunk to fit it."""
    h, w = size
    em = 0.92 * min(h, w)
    while True:
        mask = _font(path, em).getmask(c, mode="L")
        left, top, right, bottom = mask.getbbox()  # the mask is as wide as the advance
        mh, mw = bottom - top, right - left
        if (mh <= h - 2 and mw <= w - 2) or em < 2:
            break
        em *= 0.96
    ink = np.asarray(mask, np.uint8).reshape(mask.size[::-1])[top:bottom, left:right]
    cell = np.zeros(size, np.uint8)
    y, x = (h - mh) // 2, (w - mw) // 2
    cell[y : y + mh, x : x + mw] = ink
    return cell
