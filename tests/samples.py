"""Arguments of every op, small and float64. A new op joins the tests of registration and of the emulator by a line here."""

import torch


def unit(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def vmf_backward_inputs():
    mu, kappa = unit(3, 5), torch.rand(3, dtype=torch.float64) * 9
    z, w, v = torch.ops.transphere.vmf_sample(mu, kappa, torch.tensor([1, 2]), 4, False)
    return torch.randn_like(z), z, w, v, mu, kappa, False


def mahalanobis_inputs():
    """B = 2, n = 3, m = 4, d = 5, as the public function prepares them."""
    z, M = (torch.randn(2, 7, 5) * torch.rand(7, 1)).double().requires_grad_(), torch.randn(5, 5, dtype=torch.float64)
    M = (M @ M.mT).requires_grad_()
    with torch.no_grad():
        zM = z @ M
        return z, M, zM, z[:, :3] @ zM[:, 3:].mT, False


def weights(*shape):
    return torch.full(shape, 1 / shape[-1], dtype=torch.float64)


def sinkhorn_inputs(mass):
    cost = torch.rand(2, 4, 5, dtype=torch.float64).requires_grad_()
    return cost, weights(2, 4), weights(2, 5), mass, None, None, 0.5, 200, 1e-13


def sinkhorn_backward_inputs():
    inputs = sinkhorn_inputs(torch.tensor([0.7, 1.0], dtype=torch.float64))
    plan, f, g, *_ = torch.ops.transphere.sinkhorn_reference(*inputs)
    return torch.randn(2, 4, 5, dtype=torch.float64), plan.detach(), *inputs[1:4], f, g, 0.5


SAMPLES = {
    "vmf_sample": lambda: (unit(3, 5).requires_grad_(), (torch.rand(3).double() * 9).requires_grad_(), torch.tensor([1, 2]), 4, False),
    "vmf_sample_backward": vmf_backward_inputs,
    "vmf_cumulant": lambda: (torch.rand(3, 2, dtype=torch.float64).requires_grad_(), 5, 0),
    "circular_projection": lambda: (torch.randn(4, 6, dtype=torch.float64).requires_grad_(),),
    "circular_projection_backward": lambda: (torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)),
    "sinkhorn": lambda: sinkhorn_inputs(None),
    "sinkhorn_backward": sinkhorn_backward_inputs,
    "circular_wasserstein": lambda: (*(torch.rand(2, n, 3, dtype=torch.float64).requires_grad_() for n in (4, 5)), None, None),
    "sliced_wasserstein": lambda: (*(torch.randn(2, 5, 6, dtype=torch.float64).requires_grad_() for _ in range(2)), 0.5),
    "sliced_wasserstein_backward": lambda: (*(torch.rand(2, 3, dtype=torch.float64) for _ in range(2)),
                                            torch.randint(256, (2, 2, 3), dtype=torch.uint8),
                                            *(torch.randn(2, 5, 6, dtype=torch.float64) for _ in range(2)), 0.5),
    "circular_wasserstein_power": lambda: (*(torch.rand(2, n, 3, dtype=torch.float64).requires_grad_() for n in (4, 5)), None, None, 2.0),
    "mahalanobis_cost": mahalanobis_inputs,
    "mahalanobis_cost_backward": lambda: (torch.randn(2, 3, 9, dtype=torch.float64), torch.rand(2, 3, 9, dtype=torch.float64), False),
    "symmetric_part": lambda: (torch.randn(2, 5, 5, dtype=torch.float64).requires_grad_(),),
}
