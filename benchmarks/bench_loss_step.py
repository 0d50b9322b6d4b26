"""L_C + L_S of three modalities, forward and backward, at the size of the ISMIR 2024 recipe: 128 items, d = 512, 16 draws, 100 circles.

The floor is the arithmetic that no kernel can leave out: `randn` for the draws and the projection's product with its two backward products.
"""

import torch
from bench_circular_wasserstein import eager as eager_circle
from bench_vmf_sample import eager as eager_sample
from harness import BOTH, Case, CheckFailed, Way, eager_and_compiled

import transphere as ts

TEMPERATURE, L, P = 0.07, 16, 100
PAIRS = [(0, 1), (0, 2), (1, 2)]


def ours(mu, kappa):
    laws = {str(i): ts.VonMisesFisher(m, k, validate_args=False) for i, (m, k) in enumerate(zip(mu, kappa, strict=True))}
    return ts.losses.Harnessed(temperature=TEMPERATURE, n_samples=L, n_projections=P)(laws)[0]


def contrastive(z):
    """L_C of draws (S, batch, L, d), eq. 10 and 11."""
    flat, target = z.flatten(2), torch.arange(z.shape[1], device=z.device)
    logits = [flat[i] @ flat[j].mT / (L * TEMPERATURE) for i, j in PAIRS]
    cross_entropy = torch.nn.functional.cross_entropy
    return torch.stack([0.5 * (cross_entropy(s, target) + cross_entropy(s.mT, target)) for s in logits]).mean()


def reference(mu, kappa):
    """From the reference ops, drawing in the order of `ours`: the samples, then the circles."""
    z = ts.vmf_sample(mu, kappa, L, backend="reference")
    circles = ts.great_circles(P, z.shape[-1], device=z.device, dtype=z.dtype)
    distances = [ts.sliced_wasserstein_sphere(z[i], z[j], projections=circles, backend="reference") for i, j in PAIRS]
    return contrastive(z) + torch.stack(distances).mean()


def eager(mu, kappa):
    S, batch, d = mu.shape
    z = eager_sample(mu.flatten(0, 1), kappa.flatten(), L).unflatten(0, (S, batch))
    circles = ts.great_circles(P, d, device=z.device).permute(1, 2, 0).reshape(d, -1)
    xy = z @ circles
    turns = (torch.atan2(xy[..., P:], xy[..., :P]) / (2 * torch.pi) % 1).mT                  # (S, batch, P, L)
    return contrastive(z) + torch.stack([eager_circle(turns[i], turns[j]).mean() for i, j in PAIRS]).mean()


def near(expected):
    """A check for another stream of draws: the loss to 2 percent, which is far beyond its spread from draw to draw."""

    def check(value, gradients):
        error = abs(value.item() / expected - 1)
        if not error < 0.02:
            raise CheckFailed(f"the loss is {value.item():.4f}, the reference's {expected:.4f} on other draws")
        if any(g is None or not g.isfinite().all() for g in gradients or ()):
            raise CheckFailed("a gradient is missing or not finite")

    return check


def cases(device, quick):
    g = torch.Generator().manual_seed(0)
    S, batch, d = 3, 32 if quick else 128, 512
    # Modalities of an item agree, as after some training.
    mu = torch.randn(1, batch, d, generator=g) + 0.5 * torch.randn(S, batch, d, generator=g)
    mu = torch.nn.functional.normalize(mu, dim=-1).to(device)
    kappa = (64 + 64 * torch.rand(S, batch, generator=g)).to(device)
    torch.manual_seed(0)
    check = near(reference(mu.double(), kappa.double()).item())
    flat = ts.great_circles(P, d, device=device).permute(1, 2, 0).reshape(d, -1)

    def products(mu, kappa):
        z = torch.randn(S * batch, L, d, device=mu.device) + mu.reshape(-1, 1, d)
        return z @ flat

    yield Case(
        op="loss_step",
        shape=f"{S} modalities of {batch} items, d = {d}, {L} draws, {P} circles",
        inputs=(mu, kappa),
        ours={"ours": Way(ours)},
        reference=reference,
        peers=eager_and_compiled(eager, not quick, check=check),
        floors={"randn and the projection's products": Way(products)},
        value_tolerance=1e-4,
        gradient_tolerance=2e-2,
        modes=(BOTH,),
    )
