"""The heart: a GAN as a pytree, its training step, adaptation and sampling.

    game = Game(nets, losses.adversarial("non_saturating"), latent=64)
    params = init(key, game)                       # Pair(g, d) of parameters
    state = start(params, key, tx)                 # GANState: with optimizer states and an average
    step = make_step(game, tx)
    state, metrics = step(state, real)             # one update of both players
    state, metrics = adapt(step, state, batches)   # many: lax.scan(step, state, batches)
    images = sample(game, weights(state), key, 16)

`tx` is a `Pair` of optax transformations. All of it is pure and runs under jit, vmap, scan and
grad: pretraining, transfer and the inner loop of every meta-learner are the same `make_step`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from fsgan.types import Array, Game, GANState, Method, Metrics, Pair, Play, Step


def latents(key: Array, n: int, latent: int) -> Array:
    """n latent vectors from the standard normal distribution, float32 [n, latent]."""
    return jax.random.normal(key, (n, latent))


def init(key: Array, game: Game) -> Pair:
    """Fresh parameters of both networks."""
    g_key, d_key = jax.random.split(key)
    fake, g = game.nets.g.init_with_output(g_key, jnp.zeros((1, game.latent)))
    return Pair(g["params"], game.nets.d.init(d_key, fake)["params"])


def start(
    params: Pair, key: Array, tx: Pair, method: Method = Method(), *, memory=None, ema: bool = True
) -> GANState:
    """The state in which training of `params` begins, with fresh optimizer states.

    `params` and `memory` are what `method.start` returned, where the method has one. Without `ema`
    the generator is not averaged. Call it under jit where the state will be donated: otherwise the
    average shares its buffers with the parameters.
    """
    g, d = (
        space.split(player) for space, player in zip(method.subspace, params, strict=True)
    )  # (trainable, frozen) each
    return GANState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        params=Pair(g[0], d[0]),
        frozen=Pair(g[1], d[1]),
        opt=Pair(tx.g.init(g[0]), tx.d.init(d[0])),
        ema=Pair(g[0] if ema else {}, {}),
        memory={} if memory is None else memory,
    )


def join(method: Method, trainable: Pair, frozen: Pair) -> Pair:
    """The full parameters of both networks."""
    return Pair(*(s.join(t, f) for s, t, f in zip(method.subspace, trainable, frozen, strict=True)))


def weights(state: GANState, method: Method = Method(), *, ema: bool = True) -> Pair:
    """The full parameters of a state: averaged where an average is kept, unless `ema` is False."""
    players = zip(state.params, state.ema, strict=True)
    chosen = Pair(*(mean if ema and mean else now for now, mean in players))
    return join(method, chosen, state.frozen)


def objectives(game: Game) -> Pair:
    """The two players' losses: a `Pair` of `(params, real, key, memory) -> (scalar, metrics)`.

    The functions take the full parameters of both networks and real images [n, h, w, c]. Nothing
    is detached: whoever differentiates chooses with respect to what, and a meta-learner needs the
    path from one player into the other's update.
    """
    nets, loss, method = game.nets, game.loss, game.method

    def generate(params: Pair, real: Array, key: Array, memory) -> tuple[Play, Callable, Array]:
        """The play before anybody has judged it, the judge, and a key for the game's penalty."""
        z_key, augment_key, penalty_key, latents_key, own_key = jax.random.split(key, 5)
        z = latents(z_key, len(real) * game.repeat, game.latent)
        z = method.latents(latents_key, z, memory)
        fake = nets.g.apply({"params": params.g}, z)

        def augment(images: Array) -> Array:
            return method.augment(augment_key, images, memory)

        def judge(images: Array) -> Array:
            return nets.d.apply({"params": params.d}, augment(images))

        play = Play(params, z, real, fake, None, None, augment, own_key, memory)
        return play, judge, penalty_key

    def g_loss(params: Pair, real: Array, key: Array, memory) -> tuple[Array, Metrics]:
        play, judge, _ = generate(params, real, key, memory)
        # Two calls: where the loss does not look at `real`, the compiler drops that one.
        play = play._replace(on_real=judge(real), on_fake=judge(play.fake))
        value = method.g_loss(game, play, loss.g(play.on_real, play.on_fake))
        return value, {"g_loss": value}

    def d_loss(params: Pair, real: Array, key: Array, memory) -> tuple[Array, Metrics]:
        play, judge, penalty_key = generate(params, real, key, memory)
        on_real, on_fake = jnp.split(judge(jnp.concatenate([real, play.fake])), [len(real)])
        play = play._replace(on_real=on_real, on_fake=on_fake)
        value = method.d_loss(game, play, loss.d(on_real, on_fake))
        if game.penalty is not None:
            value = value + game.penalty(judge, real, play.fake, penalty_key)
        means = {"d_real": on_real.mean(), "d_fake": on_fake.mean()}
        return value, {"d_loss": value, **means, **method.report(play)}

    return Pair(g_loss, d_loss)


def make_step(game: Game, tx: Pair, *, ema_decay: float = 0.999) -> Step:
    """The training step `(state, real) -> (state, metrics)`: `game.d_steps` discriminator updates,
    then one of the generator, each on fresh latents, `game.repeat` for each real image.

    `real` is [n, h, w, c] in [-1, 1], with d_steps > 1 [d_steps, n, h, w, c]: one batch for each
    discriminator update, the last one also for the generator. The average of the generator warms
    up as min(ema_decay, (1 + step) / (10 + step)), see `average`. Metrics are g_loss, d_loss, the
    mean logits d_real and d_fake, and what the method reports.
    """
    players, method, d_steps = objectives(game), game.method, game.d_steps

    def update(state: GANState, player: str, real: Array, key: Array):
        def objective(trainable):
            params = join(method, state.params._replace(**{player: trainable}), state.frozen)
            return getattr(players, player)(params, real, key, state.memory)

        params, opt = getattr(state.params, player), getattr(state.opt, player)
        gradient, metrics = jax.grad(objective, has_aux=True)(params)
        updates, opt = getattr(tx, player).update(gradient, opt, params)
        params = optax.apply_updates(params, updates)
        state = state.replace(
            params=state.params._replace(**{player: params}),
            opt=state.opt._replace(**{player: opt}),
        )
        return state, metrics

    def step(state: GANState, real: Array) -> tuple[GANState, Metrics]:
        before, batches = state, real if d_steps > 1 else real[None]
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), d_steps + 1)
        for batch, key in zip(batches, keys[:-1], strict=True):
            state, d_metrics = update(state, "d", batch, key)
        state, g_metrics = update(state, "g", batches[-1], keys[-1])
        metrics = {**g_metrics, **d_metrics}
        state = method.finish(game, before, state, batches, metrics)
        return average(state, ema_decay), metrics

    return step


def average(state: GANState, decay: float) -> GANState:
    """Count the step and move the averages towards the parameters, for those who have one.

    A decay of 1 is the uniform mean of the parameters after each step; below, it warms up.
    """
    warm = 1 - jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    rate = 1 / (1 + state.step) if decay == 1 else warm
    players = zip(state.params, state.ema, strict=True)
    ema = (optax.incremental_update(now, mean, rate) if mean else mean for now, mean in players)
    return state.replace(step=state.step + 1, ema=Pair(*ema))


def adapt(step: Step, state: GANState, batches, *, unroll: int = 1) -> tuple[GANState, Metrics]:
    """Take one step on each batch (leading axis): `lax.scan(step, state, batches)`.

    Fine-tuning, the inner loop of a meta-learner and adaptation at test time are this function.
    The metrics have the leading axis, too. What no step changes stays outside of the carry, so that
    neither vmap nor grad makes copies of it.
    """
    fixed = {"key": state.key, "frozen": state.frozen}
    moving = state.replace(key=None, frozen=None)

    def body(moving: GANState, batch):
        after, metrics = step(moving.replace(**fixed), batch)
        return after.replace(key=None, frozen=None), metrics

    moving, metrics = jax.lax.scan(body, moving, batches, unroll=unroll)
    return moving.replace(**fixed), metrics


def sample(game: Game, params: Pair, key: Array, n: int) -> Array:
    """n generated images, float32 [n, h, w, c] in [-1, 1]. `params`: see `weights`.

    With `game.truncation` below 1 the latents are nearer to their mean than in training, as those
    in W of Karras et al. 2019 (appendix B): samples are better and more alike.
    """
    z = game.truncation * latents(key, n, game.latent)
    return game.nets.g.apply({"params": params.g}, z)
