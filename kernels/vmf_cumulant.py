"""Cumulants of w = mu . z under the von Mises-Fisher law; csrc/vmf_cumulant.h has the derivation. One kappa a lane, all in float64."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..reference.vmf_cumulant import DEBYE as POLYNOMIALS
from ..reference.vmf_cumulant import ORDER
from ._launch import check, launch
from .elementary import hypot, log1p

BLOCK = 128
DEBYE = tl.constexpr(tuple(tuple(u[e] for e in sorted(u)) for u in POLYNOMIALS))             # [j][i], the coefficient of t^(j + 2i)
TERMS = tl.constexpr(len(POLYNOMIALS))


@triton.jit
def _debye_sums(nu, t, one_minus_t):
    """U = sum u_j / nu^j, S = sum (u_j / 2 + t u_j') / nu^(j+1), their t-derivatives, U(1), and U - U(1) without cancellation."""
    zero = t * 0.0
    U, U_t, S, S_t, U_1, dU = zero + 1.0, zero, zero, zero, zero + 1.0, zero
    t2, scale, tj = t * t, zero + 1.0, zero + 1.0                                            # nu^-j, t^j
    power_sum = zero                                                                         # 1 + t + .. + t^(j-1)
    for j in tl.static_range(TERMS):
        u, u_t, s, s_t, u_1, du = zero, zero, zero, zero, zero, zero
        power, falling = tj, one_minus_t * power_sum                                         # t^e, 1 - t^e
        for i in tl.static_range(j + 1):
            term = DEBYE[j][i] * power
            u += term
            u_t += (j + 2 * i) * term                                                        # t u'
            s += (0.5 + j + 2 * i) * term
            s_t += (j + 2 * i) * (0.5 + j + 2 * i) * term
            u_1 += DEBYE[j][i]
            du -= DEBYE[j][i] * falling
            power *= t2
            falling = falling + (1.0 - falling) * one_minus_t * (1.0 + t)
        if j > 0:
            U += scale * u
            U_t += scale * u_t
            U_1 += scale * u_1
            dU += scale * du
        S += scale / nu * s
        S_t += scale / nu * s_t
        scale = scale / nu
        power_sum += tj
        tj *= t
    safe = tl.where(t > 0.0, t, 1.0)
    return U, U_t / safe, S, S_t / safe, U_1, dU


@triton.jit
def _third_cumulant(k, d, A, A1):
    a3 = -1.0 / (d * d * (d + 2.0))
    a5 = 2.0 / (d * d * d * (d + 2.0) * (d + 4.0))
    a7 = -(5.0 * d + 12.0) / (d * d * d * d * (d + 2.0) * (d + 2.0) * (d + 4.0) * (d + 6.0))
    series = k * (6.0 * a3 + k * k * (20.0 * a5 + k * k * 42.0 * a7))
    return tl.where(k > 0.01 * d, -2.0 * A * A1 + (d - 1.0) / k * (A / k - A1), series)


@triton.jit(do_not_specialize=["steps"])
def _forward(kappa_ptr, out_ptr, total, d, steps, CUMULANT: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = i < total
    kappa = tl.load(kappa_ptr + i, mask=live, other=1.0).to(tl.float64)
    regular = (kappa > 0.0) & (kappa <= 1.7976931348623157e308)
    k = tl.where(regular, kappa, 1.0)

    dimension = d.to(tl.float64)
    nu0 = 0.5 * dimension - 1.0
    nu = nu0 + steps
    s = hypot(nu, k)
    t, r = nu / s, k / s
    D = k * (k / (s + nu))                                                                   # s - nu
    U, U_t, S, S_t, U_1, dU = _debye_sums(nu, t, D / s)
    cgf = D - nu * log1p(D / (2.0 * nu)) - 0.5 * log1p(D / nu) + log1p(dU / U_1)
    W = S / U
    W_t = (S_t - W * U_t) / U
    A = k / (s + nu) - r * t * W
    A1 = t / (s + nu) - W * t / s * (t * t - r * r) + r * r * t * t / s * W_t
    for step in range(steps):  # downward, from order nu0 + steps - step to the next below
        m = 2.0 * (nu - step)
        M = m + k * A
        cgf += log1p(k * A / m)
        A1 = (m - k * k * A1) / (M * M)
        A = k / M

    if CUMULANT == 0:
        result = tl.where(kappa > 0.0, tl.where(regular, cgf, float("inf")), 0.0)
    elif CUMULANT == 1:
        result = tl.where(kappa > 0.0, tl.where(regular, A, 1.0), 0.0)
    elif CUMULANT == 2:
        result = tl.where(kappa > 0.0, tl.where(regular, A1, 0.0), 1.0 / dimension)
    else:
        result = tl.where(regular, _third_cumulant(k, dimension, A, A1), 0.0)
    tl.store(out_ptr + i, tl.where(kappa >= 0.0, result, float("nan")), mask=live)


def cumulant_into(out: Tensor, kappa: Tensor, d: int, order: int) -> Tensor:
    """out's dtype may be wider than kappa's."""
    check(d >= 2, f"vmf_cumulant: expected d >= 2, got {d}")
    check(0 <= order <= 3, f"vmf_cumulant: expected order 0 to 3, got {order}")
    n, steps = kappa.numel(), max(0, math.ceil(ORDER - (0.5 * d - 1)))
    launch(_forward, triton.cdiv(n, BLOCK), kappa, out, n, d, steps, CUMULANT=order, BLOCK=BLOCK)
    return out


def vmf_cumulant(kappa: Tensor, d: int, order: int) -> Tensor:
    kappa = kappa.contiguous()
    return cumulant_into(torch.empty_like(kappa), kappa, d, order)
