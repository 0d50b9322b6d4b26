"""Wasserstein-1 on the circle in plain PyTorch: the definition that the kernels are tested against; csrc/circular_wasserstein.h has the
arrays."""

import torch
from torch import Tensor


def circular_wasserstein(
    u: Tensor, v: Tensor, u_weights: Tensor | None, v_weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    n, m = u.shape[1], v.shape[1]
    t = torch.cat([u, v], 1).mT.double()                                                     # (B, P, N)
    t = t - t.floor()
    t, order = torch.where(t >= 1, torch.zeros_like(t), t).sort(dim=-1, stable=True)

    # Uniform weights have whole-number levels in units of 1/(n m), which doubles hold exactly.
    if u_weights is None:
        unit, signed = n * m, torch.cat([t.new_full((n,), m, dtype=torch.float64), t.new_full((m,), -n, dtype=torch.float64)])
        signed = signed.expand(t.shape)
    else:
        unit, signed = 1, torch.cat([u_weights, -v_weights], 1).double()[:, None].expand(t.shape)
    level = signed.gather(-1, order).cumsum(-1)                                              # (B, P, N)
    gap = torch.cat([t[..., 1:], 1 + t[..., :1]], -1) - t

    ordered, by_level = level.sort(dim=-1, stable=True)
    below = gap.gather(-1, by_level).cumsum(-1)
    median = ordered.gather(-1, (below < 0.5).sum(-1, keepdim=True).clamp(max=n + m - 1))

    distance = (level - median).abs() / unit                                                 # (B, P, N)
    cost = (distance * gap).sum(-1)
    slope = distance.roll(1, -1) - distance + 0 * cost[..., None]                            # NaN where the cost is
    slope = torch.empty_like(slope).scatter_(-1, order, slope).mT                            # (B, N, P)
    slopes = [x.to(u.dtype).contiguous() for x in slope.split([n, m], 1)]
    if u_weights is None:
        return cost.to(u.dtype), *slopes, u.new_empty(0), u.new_empty(0)

    # The signs at the median's own gaps are those that make the median optimal: all gaps with their signs sum to 0.
    sign, at_median = (level - median).sign(), level == median
    own = -(gap * sign).sum(-1, keepdim=True) / (gap * at_median).sum(-1, keepdim=True)
    sign = torch.where(at_median, own, sign)
    rise = (gap * sign).flip(-1).cumsum(-1).flip(-1) + 0 * cost[..., None]                   # over the gaps at or after t_k
    rise = torch.empty_like(rise).scatter_(-1, order, rise).mT
    return cost.to(u.dtype), *slopes, rise[:, :n].to(u.dtype).contiguous(), (-rise[:, n:]).to(u.dtype).contiguous()
