"""Transfer methods: ONE FILE PER METHOD, whose `make(**options)` returns a `Method`.

Its keyword options are the config's fields; their defaults are those of the released code or of the
paper. Where what is trained needs another learning rate than whole kernels do, the file has a
`LEARNING_RATE`, which the config begins with. Some files are switches (`diff_augment`, `ada`,
`lecam`, `consistency`, `mode_seeking`, `imle`): alone they go with plain fine-tuning, and `combine`
puts them on top of any other method. What keeps nothing of a source serves inner loops, too.
"""

from __future__ import annotations

import jax

from fsgan.types import Method, Pair


def combine(*methods: Method) -> Method:
    """One method that does what all of them do, each with a memory of its own.

    Starts, augmentations and losses are chained in the order given. ValueError if two of them
    choose a subspace for the same player.
    """
    return Method(
        subspace=Pair(*(_only([m.subspace[i] for m in methods], i) for i in range(2))),
        extend=lambda game: _chain([m.extend for m in methods], game),
        start=lambda *args: _start(methods, *args),
        latents=lambda key, z, memory: _draw([m.latents for m in methods], key, z, memory),
        augment=lambda key, x, memory: _draw([m.augment for m in methods], key, x, memory),
        g_loss=lambda game, play, loss: _loss([m.g_loss for m in methods], game, play, loss),
        d_loss=lambda game, play, loss: _loss([m.d_loss for m in methods], game, play, loss),
        report=lambda play: {
            name: value
            for m, own in zip(methods, _plays(play), strict=True)
            for name, value in m.report(own).items()
        },
        finish=lambda *args: _finish(methods, *args),
    )


def _only(spaces, player: int):
    default = Method().subspace[player]
    chosen = [space for space in spaces if space is not default]
    if len(chosen) > 1:
        raise ValueError(f"two methods choose what of player {'gd'[player]} is trained: keep one")
    return chosen[0] if chosen else default


def _chain(functions, x):
    for function in functions:
        x = function(x)
    return x


def _draw(functions, key, x, memory):
    for i, (function, own) in enumerate(zip(functions, memory, strict=True)):
        x = function(jax.random.fold_in(key, i), x, own)
    return x


def _plays(play):
    """The play as each method sees it."""
    for i, own in enumerate(play.memory):
        yield play._replace(key=jax.random.fold_in(play.key, i), memory=own)


def _loss(functions, game, play, loss):
    for function, own in zip(functions, _plays(play), strict=True):
        loss = function(game, own, loss)
    return loss


def _start(methods, game, params, real, key):
    memory = []
    for i, method in enumerate(methods):
        params, own = method.start(game, params, real, jax.random.fold_in(key, i))
        memory.append(own)
    return params, tuple(memory)


def _finish(methods, game, before, after, real, metrics):
    memory = []
    for method, own in zip(methods, before.memory, strict=True):
        mine = before.replace(memory=own), after.replace(memory=own)
        after = method.finish(game, *mine, real, metrics)
        memory.append(after.memory)
    return after.replace(memory=tuple(memory))
