"""Classification accuracy score (Ravuri and Vinyals 2019), of a linear classifier on features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from fsgan.metrics._check import check_sets
from fsgan.types import Array


def fit(features: Array, labels: Array, *, classes: int, decay: float, steps: int) -> dict:
    """Multinomial logistic regression: the weights {"w": [d, classes], "b": [classes]}.

    They minimise the mean cross entropy of features [n, d] and labels [n] plus decay / 2 |w|^2:
    a convex problem, solved by `steps` steps of L-BFGS on all samples.
    """

    def loss(params: dict) -> Array:
        logits = jnp.matmul(features, params["w"], precision="highest") + params["b"]
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return entropy + decay / 2 * jnp.square(params["w"]).sum()

    tx = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry, _):
        params, state = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        return (optax.apply_updates(params, updates), state), None

    params = {"w": jnp.zeros((features.shape[1], classes)), "b": jnp.zeros(classes)}
    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=steps)
    return params


def compute(
    real: Array,
    fake: Array,
    real_labels: Array,
    fake_labels: Array,
    *,
    classes: int,
    decay: float = 1e-3,
    steps: int = 100,
) -> Array:
    """The accuracy, from 0 to 1, on reals [n, d] of a classifier trained on fakes [m, d] alone.

    Labels [n] and [m] are from 0 to classes - 1; a generated image has the label of the class it
    was made for. Features are centred and scaled, by one factor, as the fakes require. To be read
    beside the same with as many real images in the place of the fakes. n and m at least 2.
    """
    check_sets("the classification accuracy score", 2, real=real, fake=fake)
    mean = fake.mean(0)
    scale = jnp.maximum(jnp.sqrt(jnp.square(fake - mean).mean()), 1e-12)
    train, test = (fake - mean) / scale, (real - mean) / scale
    params = fit(train, fake_labels, classes=classes, decay=decay, steps=steps)
    return ((test @ params["w"] + params["b"]).argmax(1) == real_labels).mean()
