"""The PyTorch side of `meta_step.py`: the same games, written as PyTorch's users write them.

Networks are functions of a dict of tensors, images [n, c, h, w]. `FORMS` has for each job the ways
to do it; each maker returns `run() -> gradient` (one whole step, gradients for the comparison).
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vjp, vmap

RATE, OUTER = 0.01, 1e-3  # inner SGD, outer Adam


class Generator(nn.Module):
    def __init__(self, latent: int, width: int, size: int):
        super().__init__()
        self.shape = (2 * width, size // 4, size // 4)
        self.stem = nn.Linear(latent, 2 * width * (size // 4) ** 2)
        self.norm0 = nn.GroupNorm(1, 2 * width)  # one group: layer norm, affine per channel
        self.block0 = nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False)
        self.norm1 = nn.GroupNorm(1, width)
        self.head = nn.ConvTranspose2d(width, 1, 4, 2, 1)

    def forward(self, z):
        x = self.stem(z).view(-1, *self.shape)
        x = F.leaky_relu(self.norm0(x), 0.2)
        x = F.leaky_relu(self.norm1(self.block0(x)), 0.2)
        return torch.tanh(self.head(x))


class Discriminator(nn.Module):
    def __init__(self, width: int, size: int):
        super().__init__()
        self.block0 = nn.Conv2d(1, width, 4, 2, 1)
        self.block1 = nn.Conv2d(width, 2 * width, 4, 2, 1)
        self.head = nn.Linear(2 * width * (size // 4) ** 2, 1)

    def forward(self, x):
        x = F.leaky_relu(self.block0(x), 0.2)
        x = F.leaky_relu(self.block1(x), 0.2)
        return self.head(x.flatten(1))[:, 0]


def from_jax(params, width: int, size: int) -> tuple[dict, dict]:
    """The two state dicts of fsgan's parameters (numpy, as `dcgan` names them)."""
    s, c = size // 4, 2 * width

    def tensor(x):
        return torch.tensor(x.copy())

    def dense_out(x):  # [..., h w c] -> [..., c h w]
        return (
            x.reshape(*x.shape[:-1], s, s, c)
            .transpose(*range(x.ndim - 1), -1, -3, -2)
            .reshape(x.shape)
        )

    g, d = params
    generator = {
        "stem.weight": dense_out(g["stem"]["dense"]["kernel"]).T,
        "stem.bias": dense_out(g["stem"]["dense"]["bias"]),
        "norm0.weight": g["stem"]["norm"]["scale"],
        "norm0.bias": g["stem"]["norm"]["bias"],
        "block0.weight": g["block0"]["conv"]["kernel"].transpose(2, 3, 0, 1),
        "norm1.weight": g["block0"]["norm"]["scale"],
        "norm1.bias": g["block0"]["norm"]["bias"],
        "head.weight": g["head"]["kernel"].transpose(2, 3, 0, 1),
        "head.bias": g["head"]["bias"],
    }
    discriminator = {
        "block0.weight": d["block0"]["conv"]["kernel"].transpose(3, 2, 0, 1),
        "block0.bias": d["block0"]["conv"]["bias"],
        "block1.weight": d["block1"]["conv"]["kernel"].transpose(3, 2, 0, 1),
        "block1.bias": d["block1"]["conv"]["bias"],
        "head.weight": dense_out(d["head"]["kernel"].T),
        "head.bias": d["head"]["bias"],
    }
    return tuple({k: tensor(v) for k, v in part.items()} for part in (generator, discriminator))


def d_loss(g, d, real, z):
    on_real, on_fake = d(torch.cat([real, g(z)])).chunk(2)
    return F.softplus(-on_real).mean() + F.softplus(on_fake).mean()


def g_loss(g, d, z):
    return F.softplus(-d(g(z))).mean()


class Problem:
    """Networks at given weights, and a batch of tasks with all of their noise.

    `support` and `query` are [T, S, 1, h, w], `z` [T, K, 2, S, latent] (D's, then G's), `z_query`
    [T, 2, S, latent] (G's, then D's).
    """

    def __init__(self, weights, support, query, z, z_query, *, latent, width, size):
        self.g, self.d = Generator(latent, width, size), Discriminator(width, size)
        if weights is not None:
            self.g.load_state_dict(weights[0])
            self.d.load_state_dict(weights[1])
        self.support, self.query, self.z, self.z_query = support, query, z, z_query
        self.outer = [torch.optim.Adam(m.parameters(), OUTER) for m in (self.g, self.d)]

    def step(self, gradient):
        for model, optimizer, values in zip((self.g, self.d), self.outer, gradient, strict=True):
            for name, parameter in model.named_parameters():
                parameter.grad = values[name]
            optimizer.step()
        return gradient

    # The forms with torch.func are functions of two dicts of parameters.

    def functions(self, params):
        g = lambda z: functional_call(self.g, params[0], (z,))  # noqa: E731
        d = lambda x: functional_call(self.d, params[1], (x,))  # noqa: E731
        return g, d

    def params(self):
        return tuple({k: v.detach() for k, v in m.named_parameters()} for m in (self.g, self.d))

    def inner(self, params, support, z):
        """SGD on both players in turn, differentiable."""

        def of_d(d, g, real, noise):
            return d_loss(*self.functions((g, d)), real, noise)

        def of_g(g, d, noise):
            return g_loss(*self.functions((g, d)), noise)

        g, d = params
        for noise in z:
            slope = grad(of_d)(d, g, support, noise[0])
            d = {k: d[k] - RATE * slope[k] for k in d}
            slope = grad(of_g)(g, d, noise[1])
            g = {k: g[k] - RATE * slope[k] for k in g}
        return g, d

    def query_losses(self, params, query, z):
        g, d = self.functions(params)
        return g_loss(g, d, z[0]), d_loss(g, d, query, z[1])


def mean(per_task):
    return tuple({k: v.mean(0) for k, v in part.items()} for part in per_task)


def reptile_loop(p: Problem):
    """FIGR's form: copies of the modules, an optimizer for each, one task after the other."""

    def run():
        total = None
        for support, z in zip(p.support, p.z, strict=True):
            g, d = copy.deepcopy(p.g), copy.deepcopy(p.d)
            g_tx, d_tx = (torch.optim.SGD(m.parameters(), RATE) for m in (g, d))
            for noise in z:
                adapt_once(g, d, g_tx, d_tx, support, noise)
            back = tuple(
                {
                    k: a.detach() - b.detach()
                    for (k, a), b in zip(m.named_parameters(), n.parameters(), strict=True)
                }
                for m, n in ((p.g, g), (p.d, d))
            )
            total = add(total, back)
        return p.step(tuple({k: v / len(p.z) for k, v in part.items()} for part in total))

    return run


def adapt_once(g, d, g_tx, d_tx, support, noise):
    d_tx.zero_grad()
    with torch.no_grad():
        fake = g(noise[0])
    on_real, on_fake = d(torch.cat([support, fake])).chunk(2)
    (F.softplus(-on_real).mean() + F.softplus(on_fake).mean()).backward()
    d_tx.step()
    g_tx.zero_grad()
    for q in d.parameters():
        q.requires_grad_(False)
    g_loss(g, d, noise[1]).backward()
    for q in d.parameters():
        q.requires_grad_(True)
    g_tx.step()


def add(total, part):
    if total is None:
        return part
    return tuple({k: a[k] + b[k] for k in a} for a, b in zip(total, part, strict=True))


def reptile_vmap(p: Problem):
    def task(params, support, z):
        ends = p.inner(params, support, z)
        return tuple({k: a[k] - b[k] for k in a} for a, b in zip(params, ends, strict=True))

    def run():
        return p.step(mean(vmap(task, (None, 0, 0))(p.params(), p.support, p.z)))

    return run


def fomaml_loop(p: Problem):
    def run():
        total = None
        for support, query, z, z_query in zip(p.support, p.query, p.z, p.z_query, strict=True):
            g, d = copy.deepcopy(p.g), copy.deepcopy(p.d)
            g_tx, d_tx = (torch.optim.SGD(m.parameters(), RATE) for m in (g, d))
            for noise in z:
                adapt_once(g, d, g_tx, d_tx, support, noise)
            of_g = torch.autograd.grad(g_loss(g, d, z_query[0]), list(g.parameters()))
            of_d = torch.autograd.grad(d_loss(g, d, query, z_query[1]), list(d.parameters()))
            names = [[k for k, _ in m.named_parameters()] for m in (g, d)]
            part = tuple(
                dict(zip(n, s, strict=True)) for n, s in zip(names, (of_g, of_d), strict=True)
            )
            total = add(total, part)
        return p.step(tuple({k: v / len(p.z) for k, v in part.items()} for part in total))

    return run


def fomaml_vmap(p: Problem):
    def task(params, support, query, z, z_query):
        g, d = p.inner(params, support, z)
        of_g = grad(lambda g: p.query_losses((g, d), query, z_query)[0])(g)
        of_d = grad(lambda d: p.query_losses((g, d), query, z_query)[1])(d)
        return of_g, of_d

    def run():
        args = p.support, p.query, p.z, p.z_query
        return p.step(mean(vmap(task, (None, 0, 0, 0, 0))(p.params(), *args)))

    return run


def maml_vmap(p: Problem):
    """Exact second order: both meta-gradients from one forward pass, as in fsgan."""

    def task(params, support, query, z, z_query):
        def losses(params):
            return p.query_losses(p.inner(params, support, z), query, z_query)

        values, pull = vjp(losses, params)
        one, zero = torch.ones_like(values[0]), torch.zeros_like(values[0])
        return pull((one, zero))[0][0], pull((zero, one))[0][1]

    def run():
        args = p.support, p.query, p.z, p.z_query
        return p.step(mean(vmap(task, (None, 0, 0, 0, 0))(p.params(), *args)))

    return run


def maml_higher(p: Problem):
    """`higher`, as its documentation shows it, with both players in one loop."""
    import higher

    def run():
        total = None
        for support, query, z, z_query in zip(p.support, p.query, p.z, p.z_query, strict=True):
            g_tx, d_tx = (torch.optim.SGD(m.parameters(), RATE) for m in (p.g, p.d))
            with (
                higher.innerloop_ctx(p.g, g_tx, copy_initial_weights=False) as (g, g_inner),
                higher.innerloop_ctx(p.d, d_tx, copy_initial_weights=False) as (d, d_inner),
            ):
                for noise in z:
                    # Copies that the opponent has not seen: with respect to the parameters that
                    # it has learned against, the slope would go on through its update.
                    d.update_params([x.clone() for x in d.fast_params])
                    d_inner.step(d_loss(g, d, support, noise[0]))
                    g.update_params([x.clone() for x in g.fast_params])
                    g_inner.step(g_loss(g, d, noise[1]))
                of_g = torch.autograd.grad(
                    g_loss(g, d, z_query[0]), list(p.g.parameters()), retain_graph=True
                )
                of_d = torch.autograd.grad(d_loss(g, d, query, z_query[1]), list(p.d.parameters()))
            names = [[k for k, _ in m.named_parameters()] for m in (p.g, p.d)]
            part = tuple(
                dict(zip(n, s, strict=True)) for n, s in zip(names, (of_g, of_d), strict=True)
            )
            total = add(total, part)
        return p.step(tuple({k: v / len(p.z) for k, v in part.items()} for part in total))

    return run


FORMS = {
    "reptile": {"deep-copy loop": reptile_loop, "torch.func vmap": reptile_vmap},
    "fomaml": {"deep-copy loop": fomaml_loop, "torch.func vmap": fomaml_vmap},
    "maml": {"torch.func vmap": maml_vmap, "higher": maml_higher},
}
