"""A generator's last layer, where its option `place` is not 0: it moves what has been drawn."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from fsgan.nets import layers
from fsgan.types import Array


class Place(nn.Module):
    """Images [n, h, w, c] and latents [n, latent] -> the images, moved and scaled as these say.

    An axis-aligned spatial transformer (Jaderberg et al. 2015). Where a hand-drawn character stands
    and how large it is are then no matter of drawing: a few steps along a critic's gradient, which
    at each pixel is the mean over images that differ in it, would else blur the one with the other.

    At most, an image is moved by the share `most` of half a side, and then scaled about the centre
    by e^+-most; its edge goes on beyond its frame. With 0 it is left as it is. The latents'
    length, and so truncation, changes what is drawn and not its place.
    """

    most: float

    @nn.compact
    def __call__(self, x: Array, z: Array) -> Array:
        if self.most == 0:
            return x
        dtype = jnp.promote_types(x.dtype, jnp.float32)  # bfloat16 is too coarse for positions
        z = z.astype(dtype)
        z = z * lax.rsqrt((z * z).mean(-1, keepdims=True) + 1e-6)
        move = nn.Dense(4, kernel_init=layers.kernel_init(0.25), dtype=dtype, name="dense")(z)
        move = self.most * jnp.tanh(move)
        down, across = (
            resampling(move[:, i] * side / 2, jnp.exp(move[:, i + 2]), side).astype(x.dtype)
            for i, side in enumerate(x.shape[1:3])
        )
        x = jnp.einsum("nij,njwc->niwc", down, x)
        return jnp.einsum("njw,niwc->nijc", across, x)


def resampling(offset: Array, scale: Array, size: int) -> Array:
    """Matrices [n, size, size] that move `size` values by `offset` [n], in their distance, and then
    scale them about their centre by `scale` [n]: linear interpolation, with the ends repeated.
    """
    place, centre = jnp.arange(size), (size - 1) / 2
    source = (place - centre) / scale[:, None] - offset[:, None] + centre
    source = jnp.clip(source, 0, size - 1)
    return nn.relu(1 - jnp.abs(source[:, :, None] - place))
