"""Costs as in training: distances of embeddings, with largest entry 1. At eps = .05 and b = 256 plain iterations take about 60 steps to an
L1 error of 1e-6 at noise 1.1, 300 at .8, 550 at .7 and 1,100 at .6: the better the model, the harder its problems."""

import torch


def matched(b, d=1024, noise=1.1, batch=None, seed=0):
    """(b, b), or (batch, b, b), between unit vectors and their noisy partners."""
    g = torch.Generator().manual_seed(seed)
    unit = lambda: torch.nn.functional.normalize(torch.randn(batch or 1, b, d, generator=g), dim=-1)  # noqa: E731
    x = unit()
    C = torch.cdist(x, torch.nn.functional.normalize(x + noise * unit(), dim=-1))
    C = C / C.amax((1, 2), keepdim=True)
    return C if batch else C[0]


def clustered(b, d=1024, clusters=16, seed=0):
    """(b, b) between two samples of the same clusters, of unequal occupancy."""
    g = torch.Generator().manual_seed(seed)
    unit = lambda n: torch.nn.functional.normalize(torch.randn(n, d, generator=g), dim=-1)  # noqa: E731
    centre = unit(clusters)
    draw = lambda: centre[torch.multinomial(torch.rand(clusters, generator=g) ** 2, b, replacement=True, generator=g)]  # noqa: E731
    C = torch.cdist(*(torch.nn.functional.normalize(draw() + 0.5 * unit(b), dim=-1) for _ in range(2)))
    return C / C.max()
