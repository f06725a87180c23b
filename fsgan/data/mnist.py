"""MNIST: 70,000 handwritten digits, 28x28, white on black (LeCun et al. 1998)."""

from __future__ import annotations

from fsgan.data import tfds
from fsgan.types import Images


def load(split: str, *, size: tuple[int, int], channels: int | None, seed: int) -> Images:
    """The official test split; 'valid' is the last 5,000 of the official training images."""
    return tfds.load(split, size=size, channels=channels, seed=seed, dataset="mnist", valid=5000)
