"""Problems of entropic transport, and their solution by loops run to the end, in the words of a textbook."""

import pytest
import torch
from conftest import BACKENDS

over_backends = pytest.mark.parametrize("backend", BACKENDS, indirect=True)


def weights(*shape, dtype=torch.float64):
    w = torch.rand(*shape, dtype=torch.float64) + 0.2
    return (w / w.sum(-1, keepdim=True)).to(dtype)


def loop(C, a, b, eps, steps):
    """Sinkhorn in the log domain, differentiated through its steps."""
    g = torch.zeros_like(b)
    for _ in range(steps):
        f = a.log() - (g[..., None, :] - C / eps).logsumexp(-1)
        g = b.log() - (f[..., :, None] - C / eps).logsumexp(-2)
    return (f[..., :, None] + g[..., None, :] - C / eps).exp()


def partial_loop(C, mass, a, b, eps, steps):
    K = (-C / eps).exp()
    u, v = torch.ones_like(a), torch.ones_like(b)
    t = mass / K.sum((-2, -1))
    for _ in range(steps):
        u = (a / (t[..., None] * (K @ v[..., None])[..., 0])).clamp(max=1)
        w = (K.mT @ u[..., None])[..., 0]
        v = (b / (t[..., None] * w)).clamp(max=1)
        t = mass / (w * v).sum(-1)
    return t[..., None, None] * u[..., :, None] * K * v[..., None, :]


def embeddings(kind, n=256, d=64):
    """Costs with largest entry 1: unrelated points, matched pairs with noise, clusters of unequal occupancy."""
    normalize = torch.nn.functional.normalize
    noise = lambda: normalize(torch.randn(n, d, dtype=torch.float64), dim=-1)  # noqa: E731
    x = noise()
    if kind == "unrelated":
        y = noise()
    elif kind == "clustered":
        centre = normalize(torch.randn(16, d, dtype=torch.float64), dim=-1)
        x, y = (normalize(centre[torch.multinomial(torch.rand(16) ** 2, n, replacement=True)] + 0.5 * noise(), dim=-1) for _ in range(2))
    else:
        y = normalize(x + float(kind) * noise(), dim=-1)
    C = torch.cdist(x, y)
    return C / C.max()
