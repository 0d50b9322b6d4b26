"""Cumulants of w = mu . z under the von Mises-Fisher law in plain PyTorch; csrc/vmf_cumulant.h has the derivation."""

import math
from fractions import Fraction

import torch
from torch import Tensor

TERMS, ORDER = 7, 40.0


def _debye_polynomials() -> list[dict[int, float]]:
    """u_j as {exponent: coefficient}: u_{j+1} = t^2 (1 - t^2) u_j' / 2 + int_0^t (1 - 5 s^2) u_j(s) ds / 8."""
    u = [{0: Fraction(1)}]
    for _ in range(TERMS):
        following: dict[int, Fraction] = {}
        for e, c in u[-1].items():
            following[e + 1] = following.get(e + 1, Fraction(0)) + c * (Fraction(e, 2) + Fraction(1, 8 * (e + 1)))
            following[e + 3] = following.get(e + 3, Fraction(0)) - c * (Fraction(e, 2) + Fraction(5, 8 * (e + 3)))
        u.append(following)
    return [{e: float(c) for e, c in p.items()} for p in u]


DEBYE = _debye_polynomials()


def cumulant(kappa: Tensor, d: int, order: int) -> Tensor:
    """float64 in, float64 out: Lambda, A, A' or A'' for order 0 to 3."""
    k = kappa.double()
    nu0 = d / 2 - 1
    steps = max(0, math.ceil(ORDER - nu0))
    nu = nu0 + steps
    s = torch.hypot(k, torch.full_like(k, nu))
    t, r, D = nu / s, k / s, k * (k / (s + nu))
    one = torch.ones_like(k)
    U, U_t, S, S_t, dU, U_1 = one.clone(), 0 * k, 0 * k, 0 * k, 0 * k, 1.0
    for j, u in enumerate(DEBYE):
        for e, c in u.items():
            term = c * t**e / nu**j
            if j:
                U, U_t, U_1 = U + term, U_t + e * term / t, U_1 + c / nu**j
                dU = dU + c / nu**j * torch.expm1(e * torch.log1p(-D / s))
            S, S_t = S + (0.5 + e) * term / nu, S_t + e * (0.5 + e) * term / nu / t
    W, W_t = S / U, (S_t - S / U * U_t) / U
    cgf = D - nu * torch.log1p(D / (2 * nu)) - 0.5 * torch.log1p(D / nu) + torch.log1p(dU / U_1)
    A = k / (s + nu) - r * t * W
    A1 = t / (s + nu) - W * t / s * (t * t - r * r) + r * r * t * t / s * W_t
    for i in reversed(range(steps)):
        m = 2 * (nu0 + i + 1)
        M = m + k * A
        cgf = cgf + torch.log1p(k * A / m)
        A, A1 = k / M, (m - k * k * A1) / (M * M)
    if order == 3:
        n = float(d)
        a3, a5 = -1 / (n**2 * (n + 2)), 2 / (n**3 * (n + 2) * (n + 4))
        a7 = -(5 * n + 12) / (n**4 * (n + 2) ** 2 * (n + 4) * (n + 6))
        series = k * (6 * a3 + k**2 * (20 * a5 + k**2 * 42 * a7))
        result = torch.where(k > 0.01 * d, -2 * A * A1 + (d - 1) / k * (A / k - A1), series)
    else:
        result = (cgf, A, A1)[order]
    result = torch.where(k == 0, 1 / d if order == 2 else 0.0, result)
    result = torch.where(torch.isinf(k), (torch.inf, 1.0, 0.0, 0.0)[order], result)
    return torch.where(k >= 0, result, torch.nan)


def vmf_cumulant(kappa: Tensor, d: int, order: int) -> Tensor:
    return cumulant(kappa, d, order).to(kappa.dtype)
