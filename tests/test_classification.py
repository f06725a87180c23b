"""Classification played as a game: the meta-gradient is MAML's, and it learns to learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from benchmarks import classification
from jax import lax

from fsgan import Images, Pair, episodes, tasks
from fsgan.meta import maml

WAYS, SHOTS, QUERIES, RATE, BLOCKS = 3, 2, 2, 0.4, 2
GAME = classification.make_game((8, 8, 1), WAYS, filters=8, blocks=BLOCKS)
KEYS = jax.random.split(jax.random.key(0), 4)
init = jax.jit(lambda key: classification.init(key, GAME))
# Compiled once: all pools have 40 classes of 6 images.
draw = jax.jit(lambda key, pool: classification.make_tasks(key, pool, 320, WAYS, SHOTS, QUERIES))


def textures(seed: int, classes: int = 40) -> Images:
    """6 images each of textures with period 2, under stronger noise that is constant over 2x2
    pixels: an untrained network sees the noise, filters without a mean see the texture.
    """
    rng = np.random.default_rng(seed)
    texture = rng.normal(size=(classes, 1, 1, 2, 1, 2, 1))
    texture = texture - texture.mean((3, 5), keepdims=True)
    noise = rng.normal(size=(classes, 6, 4, 1, 4, 1, 1))
    images = (0.15 * texture + 0.3 * noise).reshape(-1, 8, 8, 1)
    pixels = np.uint8(127.5 * (images.clip(-1, 1) + 1))
    labels = np.repeat(np.arange(classes), 6)
    return Images(pixels, labels, tuple(map(str, range(classes))))


def cross_entropy(params, images):
    """The network once more, of lax and jnp alone."""
    x = 0.5 * images + 0.5
    for i in range(BLOCKS):
        x = lax.conv_general_dilated(
            x,
            params[f"conv{i}"]["kernel"],
            (2, 2),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        norm = params[f"norm{i}"]
        x = (x - mean) / jnp.sqrt(variance + 1e-5) * norm["scale"] + norm["bias"]
        x = jnp.maximum(x, 0)
    logits = x.mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]
    log_p = logits - jax.scipy.special.logsumexp(logits, axis=1, keepdims=True)
    of_class = log_p.reshape(WAYS, -1, WAYS)[jnp.arange(WAYS), :, jnp.arange(WAYS)]
    return -of_class.mean()


def test_the_gradient_through_the_game_is_mamls():
    pool = episodes.make_pool(textures(0))
    begun, drawn = jax.device_get((init(KEYS[0]), draw(KEYS[2], pool)))
    task = jax.tree.map(lambda x: x[0], drawn)
    # Biases and scales off their starting values, where some derivatives vanish.
    params = jax.tree.map(lambda x: x + 0.1 * np.cos(np.arange(x.size)).reshape(x.shape), begun)
    with jax.enable_x64(True):
        params, support, query = jax.tree.map(np.float64, (params, task.support, task.query))
        sgd = Pair(optax.sgd(RATE), optax.sgd(RATE))
        learner = maml.make(tasks.Inner(GAME, sgd, steps=2), classification.on_query)
        ours, metrics = jax.jit(learner.gradient)(
            params, KEYS[3], task.replace(support=support, query=query), jnp.zeros((), int)
        )

        def after_two_steps(w):
            for _ in range(2):
                slope = jax.grad(cross_entropy)(w, support)
                w = jax.tree.map(lambda x, s: x - RATE * s, w, slope)
            return cross_entropy(w, query)

        loss, reference = jax.jit(jax.value_and_grad(after_two_steps))(params.d)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-10)
    assert ours.g == {}
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)  # noqa: E731
    jax.tree.map(close, ours.d, reference)


def test_tasks_have_different_classes_in_order_and_no_image_twice():
    labels = np.repeat(np.arange(40), 6)
    numbers = np.arange(240, dtype=np.uint8)  # image i is all i
    images = Images(
        np.tile(numbers[:, None, None, None], (8, 8, 1)), labels, tuple(map(str, range(40)))
    )
    pool = episodes.make_pool(images)
    drawn = jax.device_get(draw(KEYS[0], pool))
    for support, query, classes in zip(drawn.support, drawn.query, drawn.label, strict=True):
        support, query = (
            np.rint(127.5 * (x[:, 0, 0, 0] + 1)).astype(int) for x in (support, query)
        )
        assert len(set(classes.tolist())) == WAYS
        np.testing.assert_array_equal(labels[support], np.repeat(classes, SHOTS))
        np.testing.assert_array_equal(labels[query], np.repeat(classes, QUERIES))
        assert len({*support, *query}) == WAYS * (SHOTS + QUERIES)


def test_turned_characters_are_classes_of_their_own():
    images = textures(0, classes=2)
    turned = classification.turned(images)
    assert turned.classes == ("0/0", "1/0", "0/90", "1/90", "0/180", "1/180", "0/270", "1/270")
    half = turned.images[turned.labels == turned.classes.index("1/180")]
    np.testing.assert_array_equal(half, images.images[images.labels == 1][:, ::-1, ::-1])


def test_a_few_meta_steps_raise_the_accuracy_on_new_classes():
    train, test = (episodes.make_pool(textures(seed)) for seed in (0, 1))
    learner, outer = classification.make_learner(GAME), Pair(optax.adam(0.01), optax.adam(0.01))
    step = tasks.make_step(learner, outer)
    accuracy = classification.make_accuracy(learner.inner)

    @jax.jit
    def run(params, training, new):
        state = tasks.start(params, KEYS[0], outer, learner)
        after, _ = lax.scan(step, state, training)
        both = jax.tree.map(lambda *x: jnp.stack(x), state.params, after.params)
        return lax.map(lambda p: lax.map(lambda task: accuracy(p, task), new).mean(), both)

    training = jax.tree.map(lambda x: x.reshape(80, 4, *x.shape[1:]), draw(KEYS[2], train))
    before, after = run(init(KEYS[0]), training, draw(KEYS[3], test))
    assert before < 0.7
    assert after > 0.9
