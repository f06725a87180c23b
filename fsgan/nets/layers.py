"""What the networks are made of: convolutions in two forms, norms, resampling, activations.

Images are [n, h, w, c], kernels [kh, kw, cin, cout]. Everything is per sample (no batch statistics)
and differentiable to any order, forwards and backwards.

XLA's CPU backend runs strided and transposed convolutions, their gradients, and all of them inside
`lax.scan` many times slower than matrix products of the same size. So a convolution has two forms
that are equal in value and derivatives: `impl="lax"` calls `lax.conv_general_dilated`, "matmul"
multiplies patches with the kernel matrix, and "auto" takes "matmul" on CPU and "lax" elsewhere.
`tests/benchmarks/layers.py` measures them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from fsgan.nets._product import product
from fsgan.plugins import unknown
from fsgan.types import Array

IMPLS = ("auto", "lax", "matmul")
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "leaky_relu": lambda x: nn.leaky_relu(x, 0.2),
    "relu": nn.relu,
    # Smooth ones: the piecewise linear have no curvature, so second derivatives see little of them.
    "gelu": nn.gelu,
    "silu": nn.silu,
    "softplus": nn.softplus,
    "tanh": jnp.tanh,
}
# The first axis of [n, h, w, c] that a norm's scale and bias have: one for each channel, or one for
# each value, as in FIGR. The latter say where in the image something is to be, so that a few inner
# steps can move it: on Omniglot's validation alphabets 81 % of the adapted samples were nearest to
# their own character's mean image, 54 % with a scale for each channel (one seed, equal rates).
AFFINES = {"channel": -1, "value": 1}
DTYPES = ("float32", "bfloat16")
Padding = str | Sequence[tuple[int, int]]


def activation(name: str) -> Callable[[Array], Array]:
    """The activation function of that name; ValueError listing the right names if unknown."""
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def _matmul(impl: str) -> bool:
    """Whether to take the matrix product; ValueError if `impl` is unknown."""
    if impl not in IMPLS:
        raise unknown("impl", impl, IMPLS)
    return impl == "matmul" or (impl == "auto" and jax.default_backend() == "cpu")


def _patches(x: Array, kernel: Sequence[int], strides: Sequence[int]) -> Array:
    """All windows of a padded image, [n, h, w, c] -> [n, oh, ow, kh * kw * c]."""
    (kh, kw), (sh, sw), (_, h, w, _) = kernel, strides, x.shape
    windows = [
        x[:, i : h - kh + i + 1 : sh, j : w - kw + j + 1 : sw] for i in range(kh) for j in range(kw)
    ]
    return jnp.concatenate(windows, -1)


def _times(x: Array, matrix: Array) -> Array:
    """Each pixel times a matrix, [n, h, w, k] x [k, m] -> [n, h, w, m]."""
    return product(x.reshape(-1, x.shape[-1]), matrix).reshape(*x.shape[:-1], -1)


def _space_to_depth(x: Array, block: Sequence[int]) -> Array:
    """[n, h * bh, w * bw, c] -> [n, h, w, bh * bw * c]."""
    (n, h, w, c), (bh, bw) = x.shape, block
    x = x.reshape(n, h // bh, bh, w // bw, bw, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // bh, w // bw, bh * bw * c)


def _depth_to_space(x: Array, block: Sequence[int]) -> Array:
    """[n, h, w, bh * bw * c] -> [n, h * bh, w * bw, c], the inverse of `_space_to_depth`."""
    (n, h, w, c), (bh, bw) = x.shape, block
    x = x.reshape(n, h, w, bh, bw, c // (bh * bw)).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h * bh, w * bw, c // (bh * bw))


def _pad(x: Array, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
    """Zeros around an image; a negative number crops."""
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))


def _pads(padding: Padding, size: Sequence[int], kernel: Array, strides: Sequence[int]):
    """((top, bottom), (left, right)) for a convolution of an image of that size."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(size, kernel.shape[:2], strides, padding)
    return padding


def conv(
    x: Array,
    kernel: Array,
    strides: Sequence[int] = (1, 1),
    padding: Padding = "SAME",
    impl: str = "auto",
) -> Array:
    """Convolution (cross-correlation), x [n, h, w, cin], kernel [kh, kw, cin, cout].

    Returns [n, oh, ow, cout]. `padding` is "SAME" (oh = ceil(h / stride)), "VALID", or the zeros
    to add, ((top, bottom), (left, right)).
    """
    pads = _pads(padding, x.shape[1:3], kernel, strides)
    if not _matmul(impl):
        return lax.conv_general_dilated(
            x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    x, (kh, kw, cin, cout), (sh, sw) = _pad(x, *pads), kernel.shape, strides
    if cin < 8 and sh * sw > 1 and kh % sh == kw % sw == 0:
        # Windows of a few channels are copied in scraps: make pixels of whole blocks first.
        _, h, w, _ = x.shape
        x = _space_to_depth(_pad(x, (0, -(h % sh)), (0, -(w % sw))), strides)
        kernel = kernel.reshape(kh // sh, sh, kw // sw, sw, cin, cout).transpose(0, 2, 1, 3, 4, 5)
        (kh, kw), strides = kernel.shape[:2], (1, 1)
    return _times(_patches(x, (kh, kw), strides), kernel.reshape(-1, cout))


def conv_transpose(
    x: Array,
    kernel: Array,
    strides: Sequence[int] = (2, 2),
    padding: Padding = "SAME",
    impl: str = "auto",
) -> Array:
    """Transposed convolution, x [n, h, w, cin], kernel [kh, kw, cin, cout].

    Returns [n, oh, ow, cout]: the transpose of `conv` from there to [n, h, w, cin] with the same
    padding and the kernel's channels swapped. Every pixel adds a stamp of the kernel's size at
    stride * position - padding, so oh = (h - 1) * stride + kh - top - bottom; "SAME" makes that
    h * stride (for kernels not smaller than the stride), "VALID" crops nothing.
    """
    (kh, kw, cin, cout), (sh, sw) = kernel.shape, strides
    pads = _pads(padding, (x.shape[1] * sh, x.shape[2] * sw), kernel, strides)
    (top, bottom), (left, right) = pads
    if not _matmul(impl):
        return lax.conv_general_dilated(
            x,
            jnp.flip(kernel, (0, 1)),
            (1, 1),
            [(kh - 1 - top, kh - 1 - bottom), (kw - 1 - left, kw - 1 - right)],
            lhs_dilation=strides,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    # The stamps in blocks of one stride by one stride, rows x columns of them (zeros fill the last
    # ones). Whole blocks are shifted and added, then unfolded into pixels.
    rows, columns = -(-kh // sh), -(-kw // sw)
    fill = rows * sh - kh, columns * sw - kw
    blocks = jnp.pad(kernel, ((0, fill[0]), (0, fill[1]), (0, 0), (0, 0)))
    blocks = blocks.reshape(rows, sh, columns, sw, cin, cout).transpose(4, 0, 2, 1, 3, 5)
    y = jnp.split(_times(x, blocks.reshape(cin, -1)), rows, -1)
    y = sum(_pad(part, (i, rows - 1 - i), (0, 0)) for i, part in enumerate(y))
    y = jnp.split(y, columns, -1)
    y = sum(_pad(part, (0, 0), (j, columns - 1 - j)) for j, part in enumerate(y))
    y = _depth_to_space(y, strides)
    return _pad(y, (-top, -bottom - fill[0]), (-left, -right - fill[1]))


def upsample(x: Array) -> Array:
    """Nearest neighbour, [n, h, w, c] -> [n, 2h, 2w, c]."""
    n, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c))
    return x.reshape(n, 2 * h, 2 * w, c)


def downsample(x: Array) -> Array:
    """Average pooling, [n, 2h, 2w, c] -> [n, h, w, c]."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def kernel_init(scale: float, strides: Sequence[int] = (1, 1)) -> Callable:
    """Normal numbers with variance scale / fan-in.

    Nothing here rescales activations over the batch, so the weights must keep their size: scale 2
    (He et al. 2015) does behind a rectifier, whereas DCGAN's fixed 0.02 counts on BatchNorm. Behind
    a transposed convolution only 1 / (stride * stride) of the kernel reaches any one pixel.
    """
    return nn.initializers.variance_scaling(scale * math.prod(strides), "fan_in", "normal")


class Conv(nn.Module):
    """A convolution with parameters kernel [kh, kw, cin, cout] and bias [cout]. See `conv`."""

    features: int
    kernel: Sequence[int] = (3, 3)
    strides: Sequence[int] = (1, 1)
    padding: Padding = "SAME"
    use_bias: bool = True
    impl: str = "auto"
    scale: float = 2.0  # of the initial variance, see `kernel_init`

    transposed = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        apply = conv_transpose if self.transposed else conv
        init = kernel_init(self.scale, self.strides if self.transposed else (1, 1))
        kernel = self.param("kernel", init, (*self.kernel, x.shape[-1], self.features))
        x = apply(x, kernel, self.strides, self.padding, self.impl)
        if self.use_bias:
            x = x + self.param("bias", nn.initializers.zeros, (self.features,))
        return x


class ConvTranspose(Conv):
    """A transposed convolution with the same parameters as `Conv`. See `conv_transpose`."""

    kernel: Sequence[int] = (4, 4)
    strides: Sequence[int] = (2, 2)

    transposed = True


class Norm(nn.Module):
    """Layer norm over height, width and channels, then a scale and a bias, see `AFFINES`.

    Each sample by itself: nothing runs along, and no sample sees another one's statistics.
    """

    affine: str = "channel"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = x.shape[AFFINES[self.affine] :]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        axes, dtype = tuple(range(1, x.ndim)), x.dtype
        x = x.astype(jnp.promote_types(dtype, jnp.float32))  # bfloat16 is too coarse for moments
        x = x - x.mean(axes, keepdims=True)
        # eps inside the root: a constant sample has finite derivatives, too.
        x = x * lax.rsqrt((x * x).mean(axes, keepdims=True) + 1e-5)
        return x.astype(dtype) * scale + bias


def check_image_shape(shape: Sequence[int]) -> None:
    """ValueError, naming the nearest sizes that work, if no network here makes such images.

    `shape` is (height, width, channels): sides divisible by 4, and 1, 3 or 4 channels.
    """
    if len(shape) != 3:
        raise ValueError(f"an image shape is (height, width, channels), not {tuple(shape)}")
    h, w, c = shape
    if h < 4 or w < 4 or h % 4 or w % 4:
        near = {tuple(max(s // 4 + up * (s % 4 > 0), 1) * 4 for s in (h, w)) for up in (0, 1)}
        sizes = " or ".join(f"{a}x{b}" for a, b in sorted(near))
        raise ValueError(f"image size {h}x{w}: both sides must be divisible by 4, as in {sizes}")
    if c not in (1, 3, 4):
        raise ValueError(f"image size {h}x{w}x{c}: there must be 1, 3 or 4 channels, not {c}")


def levels(image_shape: Sequence[int]) -> int:
    """How often both sides are halved while the smaller one stays >= 4; at least twice."""
    h, w, _ = image_shape
    n = 0
    while h % 2 == w % 2 == 0 and min(h, w) >= 8:
        h, w, n = h // 2, w // 2, n + 1
    return max(n, 2)


def _cast(tree, dtype: str):
    return jax.tree.map(lambda x: x.astype(dtype), tree)


class Net(nn.Module):
    """What generators and discriminators have in common; checked when constructed."""

    image_shape: Sequence[int] = (28, 28, 1)
    width: int = 64  # channels at the finest level; doubled at each coarser one, up to 8-fold
    activation: str = "leaky_relu"
    affine: str = "channel"  # of the generator's norms: "channel" or "value"
    impl: str = "auto"  # of convolutions: "matmul", "lax" or "auto"
    dtype: str = "float32"  # computed in: or "bfloat16", with parameters, inputs, outputs float32
    mapper: int = 0  # hidden layers between the latents and the generator, see `Mapper`
    place: float = 0.0  # how far the generator may move what it has drawn, see `_place.py`

    def __post_init__(self):
        check_image_shape(self.image_shape)
        if self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)
        activation(self.activation)
        if self.affine not in AFFINES:
            raise unknown("affine", self.affine, AFFINES)
        _matmul(self.impl)
        if not 0 <= self.place <= 1:
            raise ValueError(f"place must lie between 0 and 1, got {self.place}")
        super().__post_init__()

    def apply(self, variables, *args, **options):
        """As usual, except that lower precision is entered and left here, for all layers at once;
        derivatives come back in the parameters' precision.
        """
        if self.dtype == "float32":
            return super().apply(variables, *args, **options)
        variables, args = _cast((variables, args), self.dtype)
        return _cast(super().apply(variables, *args, **options), "float32")

    def channels(self) -> list[int]:
        """Channels per level, from fine to coarse."""
        return [self.width * min(2**i, 8) for i in range(levels(self.image_shape))]

    def coarsest(self) -> tuple[int, int]:
        """Height and width at the coarsest level."""
        h, w, _ = self.image_shape
        return h >> levels(self.image_shape), w >> levels(self.image_shape)


class Mapper(nn.Module):
    """Latents [n, latent] -> latents: StyleGAN's mapping network (Karras et al. 2019), with so many
    hidden layers of the latents' own size; with 0 the latents themselves.

    It is a part of its own to be adapted or meta-learned alone: which images are made, not how.
    """

    hidden: int
    activation: str

    @nn.compact
    def __call__(self, z: Array) -> Array:
        if self.hidden == 0:
            return z
        size, x = z.shape[-1], z
        for i in range(self.hidden):
            x = nn.Dense(size, kernel_init=kernel_init(2.0), name=f"dense{i}")(x)
            x = activation(self.activation)(x)
        return nn.Dense(size, kernel_init=kernel_init(1.0), name="out")(x)


class Stem(nn.Module):
    """A generator's first layer and norm: latents [n, latent] -> [n, h, w, features]."""

    size: tuple[int, int]
    features: int
    affine: str = "channel"

    @nn.compact
    def __call__(self, z: Array) -> Array:
        shape = (*self.size, self.features)
        x = nn.Dense(math.prod(shape), kernel_init=kernel_init(1.0), name="dense")(z)
        return Norm(self.affine, name="norm")(x.reshape(-1, *shape))
