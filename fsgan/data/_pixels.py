"""From a Pillow image to an array of the wanted size and channels: what the sources share."""

from __future__ import annotations

import numpy as np


def pixels(image, size: tuple[int, int], channels: int) -> np.ndarray:
    """uint8 [h, w, channels] of a Pillow image of any mode and size (h, w).

    The short side is fitted (antialiased), the long one cropped at the centre.
    """
    from PIL import Image, ImageOps

    if image.mode.startswith(("I", "F")):  # 16-bit grey: Pillow's own conversion would clip
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if image.has_transparency_data:
        mode = "RGBA"
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], Image.Resampling.BICUBIC)
    return convert(np.asarray(image).reshape(*size, -1), channels)


def convert(images: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [..., h, w, channels] of grey, RGB or RGBA uint8 images; alpha goes onto white."""
    if images.shape[-1] == channels:
        return images
    if images.shape[-1] == 4:
        alpha = images[..., 3:].astype(np.float32) / 255
        images = (images[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    if channels == 1:  # luma of ITU-R 601, as Pillow computes it; grey stays as it is
        luma = images.astype(np.uint32) @ np.array([[19595], [38470], [7471]], np.uint32)
        return ((luma + 0x8000) >> 16).astype(np.uint8)
    if images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
    if channels == 4:
        images = np.concatenate([images, np.full_like(images[..., :1], 255)], axis=-1)
    return images
