"""How much faster convolutions are as matrix products: `python tests/benchmarks/layers.py`.

Prints milliseconds for both forms and their ratio (lax / matmul), medians of interleaved rounds,
for the layers of a 28x28x1 DCGAN on 10 images: forward, gradient and second order (the gradient of
the squared gradient), alone and as the body of a `lax.scan` of 5 steps. Run it on an idle machine.
"""

import statistics
import time

import jax
import jax.numpy as jnp
from jax import lax

from fsgan.nets.layers import conv, conv_transpose

PAD, N, STEPS, ROUNDS = ((1, 1), (1, 1)), 10, 5, 7
LAYERS = {  # function, input size and channels, output channels
    "conv 28x28x1 -> 14x14x64": (conv, 28, 1, 64),
    "conv 14x14x64 -> 7x7x128": (conv, 14, 64, 128),
    "transposed 7x7x128 -> 14x14x64": (conv_transpose, 7, 128, 64),
    "transposed 14x14x64 -> 28x28x1": (conv_transpose, 14, 64, 1),
}


def orders(apply, impl):
    """Three functions (x, kernel) -> arrays shaped like the result, or like (x, kernel)."""

    def loss(x, kernel):
        return jnp.sum(jnp.sin(apply(x, kernel, (2, 2), PAD, impl)))

    gradient = jax.grad(loss, (0, 1))

    def penalty(x, kernel):
        return sum(jnp.sum(part**2) for part in gradient(x, kernel))

    return {"forward": loss, "gradient": gradient, "second order": jax.grad(penalty, (0, 1))}


def scanned(function):
    """STEPS calls that depend on each other, so that the compiler can drop none."""

    def run(x, kernel):
        def body(moved, _):
            out = function(x + moved, kernel)
            return 1e-9 * sum(leaf.ravel()[0] for leaf in jax.tree.leaves(out)), None

        return lax.scan(body, jnp.zeros(()), length=STEPS)[0]

    return run


def medians(functions, arguments):
    """Milliseconds of each compiled function, measured in turns."""
    functions = [jax.jit(f).lower(*arguments).compile() for f in functions]
    times = [[] for _ in functions]
    for _ in range(ROUNDS + 1):
        for function, record in zip(functions, times, strict=True):
            begin = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            record.append(1e3 * (time.perf_counter() - begin))
    return [statistics.median(record[1:]) for record in times]  # the first round warms up


def main():
    columns = f"{'lax ms':>9}{'matmul':>9}{'ratio':>8}"
    print(f"{'':46}{columns}{'in a scan: lax':>16}{columns[9:]}")
    for name, (apply, size, cin, cout) in LAYERS.items():
        x = jax.random.normal(jax.random.key(0), (N, size, size, cin))
        kernel = jax.random.normal(jax.random.key(1), (4, 4, cin, cout)) / 40
        both = orders(apply, "lax"), orders(apply, "matmul")
        for order in both[0]:
            pair = [functions[order] for functions in both]
            plain, matmul = medians(pair, (x, kernel))
            scan = [t / STEPS for t in medians(map(scanned, pair), (x, kernel))]
            line = f"{plain:9.2f}{matmul:9.2f}{plain / matmul:8.1f}"
            line += f"{scan[0]:16.2f}{scan[1]:9.2f}{scan[0] / scan[1]:8.1f}"
            print(f"{name:33}{order:13}{line}", flush=True)


if __name__ == "__main__":
    main()
