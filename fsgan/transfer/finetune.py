"""Plain fine-tuning of both networks (TransferGAN, Wang et al. 2018)."""

from fsgan.types import Method


def make() -> Method:
    return Method()
