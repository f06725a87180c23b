"""Fashion-MNIST: 70,000 articles of clothing, 28x28, light on black (Xiao et al. 2017)."""

from __future__ import annotations

from fsgan.data import tfds
from fsgan.types import Images


def load(split: str, *, size: tuple[int, int], channels: int | None, seed: int) -> Images:
    """The official test split; 'valid' is the last 5,000 of the official training images."""
    return tfds.load(
        split, size=size, channels=channels, seed=seed, dataset="fashion_mnist", valid=5000
    )
