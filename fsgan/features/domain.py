"""A small network trained on the training classes alone: the feature space of the domain itself.

A prototypical network (Snell et al. 2017): each image is to be nearest to the mean embedding of
other images of its own class. It never sees a held-out class, tells new ones apart from one image
of each, and has few enough dimensions for Frechet distances of small sets.

What training ends in depends on the machine: rounding grows over its steps, and two such networks
give KIDs some 15 % apart. So that scores can be compared, those of glyphs and Omniglot, at their
default settings, come with fsgan (`SHIPPED`).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from fsgan import trees
from fsgan.data import fingerprint
from fsgan.episodes import distinct, make_pool
from fsgan.features import _base, weights
from fsgan.images import to_float
from fsgan.nets import layers
from fsgan.types import Array, Images, Params, Pool

BATCH = 128  # images in a training episode, at most
WAY = 64  # classes in a training episode, at most
RATE = 4e-3  # Adam's, falling to 0 along a cosine
SCALE = 16.0  # of the squared distances in the softmax: an inverse temperature
SHIFT, TURN, ZOOM = 2.0, 0.2, 0.1  # of the training images, see `warp`
SHIPPED = Path(__file__).parent / "trained"  # files as in the cache: made by `train`, on one core


class Embedding(nn.Module):
    """Images [n, h, w, c] in [-1, 1] -> [n, dim] of length sqrt(dim).

    With that length x.y / dim, which KID's kernel is made of, is the cosine of x and y.
    """

    dim: int
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        block = 0
        while min(x.shape[1:3]) >= 6:
            x = layers.Conv(self.width, name=f"conv{block}")(x)
            x = nn.relu(layers.Norm(name=f"norm{block}")(x))
            odd = [(0, side % 2) for side in x.shape[1:3]]
            x = layers.downsample(jnp.pad(x, ((0, 0), *odd, (0, 0)), mode="edge"))
            block += 1
        x = nn.Dense(self.dim, name="head")(x.reshape(len(x), -1))
        # The small constant keeps derivatives finite at 0.
        return x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-12)


def warp(key: Array, images: Array, *, shift: float, turn: float, zoom: float) -> Array:
    """Each image moved, turned and zoomed at random; bilinear, the border continued outwards.

    Images [n, h, w, c]; by up to `shift` pixels along each axis, `turn` radians, and a factor of
    1 +- `zoom` along each axis.
    """
    n, h, w, _ = images.shape
    keys = jax.random.split(key, 3)
    move = jax.random.uniform(keys[0], (n, 2), minval=-shift, maxval=shift)
    angle = jax.random.uniform(keys[1], (n,), minval=-turn, maxval=turn)
    factor = 1 + jax.random.uniform(keys[2], (n, 2), minval=-zoom, maxval=zoom)
    rotation = jnp.stack([jnp.cos(angle), -jnp.sin(angle), jnp.sin(angle), jnp.cos(angle)], -1)
    matrix = rotation.reshape(n, 2, 2) * factor[:, None]
    centre = jnp.array([h - 1, w - 1]) / 2
    grid = jnp.stack(jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij"), -1) - centre
    places = jnp.einsum("nij,hwj->nihw", matrix, grid) + (centre + move)[:, :, None, None]
    read = functools.partial(jax.scipy.ndimage.map_coordinates, order=1, mode="nearest")
    each_channel = jax.vmap(read, (-1, None), -1)
    return jax.vmap(each_channel)(images, places)


def prototypical_loss(z: Array) -> Array:
    """Of embeddings [way, 2, shots, dim]: the mean cross-entropy of each half's images against the
    other half's prototypes, the logits being the negative squared distances times `SCALE`.

    The embeddings have length sqrt(dim); distances are taken between unit vectors.
    """
    z = z / jnp.sqrt(z.shape[-1])
    prototypes = z.mean(2)[:, ::-1]  # [way, 2, dim], of the other half
    square = jnp.square(z[:, :, :, None] - prototypes.swapaxes(0, 1)[None, :, None]).sum(-1)
    own = jnp.arange(len(z))[:, None, None]
    return optax.softmax_cross_entropy_with_integer_labels(
        -SCALE * square, jnp.broadcast_to(own, square.shape[:-1])
    ).mean()


def train(
    images: Images, *, seed: int = 0, steps: int = 1000, dim: int = 64, width: int = 32
) -> Params:
    """The parameters of an `Embedding(dim, width)`, after `steps` episodes on these classes.

    Each episode has up to `WAY` classes and `BATCH` images. ValueError if there are fewer than two
    classes of two images.
    """
    pool = make_pool(images, min_images=2)
    classes, least = len(pool.count), int(pool.count.min())
    if classes < 2:
        raise ValueError("domain features need 2 classes of 2 images or more to be trained on")
    way = min(WAY, classes)
    shots = max(1, min(BATCH // (2 * way), least // 2))
    init_key, key = jax.random.split(jax.random.key(seed))
    net, tx = Embedding(dim, width), optax.adam(optax.cosine_decay_schedule(RATE, steps))

    def episode(key: Array, pool: Pool) -> Array:
        class_key, image_key, warp_key = jax.random.split(key, 3)
        chosen = jax.random.choice(class_key, classes, (way,), replace=False)
        draw = functools.partial(distinct, k=2 * shots)
        index = jax.vmap(draw)(jax.random.split(image_key, way), pool.count[chosen])
        x = pool.images[(pool.start[chosen, None] + index).reshape(-1)]
        return warp(warp_key, to_float(x), shift=SHIFT, turn=TURN, zoom=ZOOM)

    @jax.jit
    def run(key: Array, pool: Pool) -> Params:
        def step(carry, key):
            params, opt = carry

            def loss(params):
                z = net.apply({"params": params}, episode(key, pool))
                return prototypical_loss(z.reshape(way, 2, shots, dim))

            updates, opt = tx.update(jax.grad(loss)(params), opt, params)
            return (optax.apply_updates(params, updates), opt), None

        params = net.init(init_key, to_float(pool.images[:1]))["params"]
        keys = jax.random.split(key, steps)
        return lax.scan(step, (params, tx.init(params)), keys)[0][0]

    return run(key, pool)


def load(
    image_shape: Sequence[int],
    *,
    images: Images,
    cache: str | Path | None = None,
    seed: int = 0,
    steps: int = 1000,
    dim: int = 64,
    width: int = 32,
) -> _base.Features:
    """The embedding that comes with fsgan for these images and settings, or has been found before,
    or that `train` finds now.

    Args:
      image_shape: (height, width, channels) of the images to come, as those of `images`.
      images: the training classes.
      cache: the folder where trained parameters are kept, under a hash of images and settings;
        None for "domain" in the folder of weights, and for what comes with fsgan.
      seed, steps, dim, width: see `train`; dim is at most 128, for the sake of small sets.

    Raises ValueError if the images do not fit, or a file of the cache is damaged.
    """
    if tuple(image_shape) != images.images.shape[1:]:
        raise ValueError(
            f"domain features trained on images of {images.images.shape[1:]} do not fit "
            f"{tuple(image_shape)}: load both in one size"
        )
    if not 1 <= dim <= 128:
        raise ValueError(f"domain features have 1 to 128 dimensions, not dim={dim}")
    settings = {"seed": seed, "steps": steps, "dim": dim, "width": width}
    fixed = (BATCH, WAY, RATE, SCALE, SHIFT, TURN, ZOOM)
    text = f"{fingerprint(images)} {sorted(settings.items())} {fixed}"
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    file, shipped = (
        Path(cache or weights.folder() / "domain") / f"{key}.npz",
        SHIPPED / f"{key}.npz",
    )
    net = Embedding(dim, width)
    if cache is None and shipped.is_file():
        file = shipped
    elif not file.is_file():
        params = train(images, **settings)
        weights.save(file, {name: np.asarray(x) for name, x in trees.named(params).items()})
    sample = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), sample)["params"]
    params = weights.load("domain", shapes, file)

    def apply(params: Params, images: Array) -> Array:
        return net.apply({"params": params}, images)

    return _base.make(f"domain/{key}", apply, params, image_shape)
