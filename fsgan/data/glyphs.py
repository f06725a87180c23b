"""Characters of the fonts that matplotlib ships: nothing to download, any size.

One class per character, one image per face (DejaVu Sans, Sans Mono and Serif, STIX; upright, bold,
oblique), white on black; scripts are the alphabets. Faces with the same outline of a character
count once.
"""

from __future__ import annotations

import functools
import hashlib
import pathlib
import unicodedata
from collections.abc import Sequence

import numpy as np

from fsgan.data._pixels import convert
from fsgan.types import Images


def load(
    split: str,
    *,
    size: tuple[int, int],
    channels: int | None,
    seed: int,
    min_images: int = 8,
    valid: Sequence[str] = ("Lao",),
    test: Sequence[str] = ("Armenian", "Georgian"),
) -> Images:
    """The characters of the scripts in `valid`, in `test`, or of all others ('train')."""
    del seed  # nothing is drawn

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
        mw, mh = mask.size
        ink = np.asarray(mask, np.uint8).reshape(mh, mw)
        if (mh <= h - 2 and mw <= w - 2) or em < 2:
            break
        em *= 0.96
    cell = np.zeros(size, np.uint8)
    top, left = (h - mh) // 2, (w - mw) // 2
    cell[top : top + mh, left : left + mw] = ink
    return cell
