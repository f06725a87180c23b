"""DiffAugment (Zhao et al. 2020): all that the discriminator sees is augmented, differentiably."""

from fsgan import augment
from fsgan.types import Method


def make(*, policy: tuple[str, ...] = ("color", "translation", "cutout")) -> Method:
    """See `augment.diff_augment`."""
    return Method(
        augment=lambda key, images, memory: augment.diff_augment(key, images, policy=policy)
    )
