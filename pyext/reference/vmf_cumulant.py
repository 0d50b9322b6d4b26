"""Cumulants of w = mu . z under the von Mises-Fisher law in plain PyTorch; csrc/vmf_cumulant.h has the derivation."""

import math
from fractions import Fraction

import torch
from torch import Tensor

LEAST = 32.0  # what the expansion needs: nu or kappa above it
KL = -1
TERMS = {KL: 11, 0: 9, 1: 9, 2: 12, 3: 14, 4: 15}  # by order: what leaves 3e-13 at s = 32, where the expansion is at its worst


def _log_debye(terms: int) -> list[list[Fraction]]:
    """log sum_j u_j(t) / nu^j = sum_j t^j P_j(t^2) / nu^j: the coefficients of P_1 .. P_terms, from those of Debye's polynomials,
    u_{j+1} = t^2 (1 - t^2) u_j' / 2 + int_0^t (1 - 5 s^2) u_j(s) ds / 8  (DLMF 10.41.9)."""
    u = [[Fraction(1)]]  # u[j][i] belongs to t^(j + 2i)
    for j in range(terms):
        following = [Fraction(0)] * (j + 2)
        for i, c in enumerate(u[j]):
            e = j + 2 * i
            following[i] += c * (Fraction(e, 2) + Fraction(1, 8 * (e + 1)))
            following[i + 1] -= c * (Fraction(e, 2) + Fraction(5, 8 * (e + 3)))
        u.append(following)
    P: list[list[Fraction]] = [[]]
    for j in range(1, terms + 1):  # j log U = (x d/dx U) / U, by powers of x = 1 / nu
        p = [j * c for c in u[j]]
        for i in range(1, j):
            for a, c in enumerate(P[i]):
                for b, e in enumerate(u[j - i]):
                    p[a + b] -= i * c * e
        P.append([c / j for c in p])
    return P[1:]


POLYNOMIALS = [[float(c) for c in p] for p in _log_debye(max(TERMS.values()))]
# (P_j(1) - P_j(x)) / (1 - x), and P_j(1), which is 0 for even j
DIFFERENCES = [[float(sum(p[i + 1 :])) for i in range(len(p) - 1)] for p in _log_debye(TERMS[KL])]
AT_ONE = [float(sum(p)) for p in _log_debye(TERMS[KL])]


def shift(d: int) -> int:
    """How many orders above d/2 - 1 the expansion is good for every kappa."""
    return max(0, math.ceil(LEAST - (d / 2 - 1)))


def log_constant(d: int) -> float:
    """With which log I_nu has no other term that only depends on nu: log Gamma(nu + 1) + nu log 2 - log(2 pi) / 2."""
    nu = d / 2 - 1
    return math.lgamma(nu + 1) + nu * math.log(2) - 0.5 * math.log(2 * math.pi)


def _horner(coefficients: list, x: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for c in reversed(coefficients):
        total = total * x + c
    return total


def _log_derivative(m: int, terms: int, t2: Tensor, s: Tensor) -> Tensor:
    """(t d/dt)^m of log U."""
    rows = [_horner([c * (j + 1 + 2 * i) ** m for i, c in enumerate(p)], t2) for j, p in enumerate(POLYNOMIALS[:terms])]
    return _horner([torch.zeros_like(s), *rows], 1 / s)


def cumulant(kappa: Tensor, d: int, order: int) -> Tensor:
    """float64 in, float64 out: Lambda, A, A', A'', A''' for order 0 to 4, k A - Lambda for order -1."""
    kappa = kappa.double()
    k = torch.where((kappa > 0) & (kappa < torch.inf), kappa, 1.0)
    low, steps = d / 2 - 1, shift(d)
    shifted = (k < LEAST) & (steps > 0)
    nu = low + steps * shifted.to(k.dtype)
    s = torch.hypot(k, nu)
    r, t, D = k / s, nu / s, k * (k / (s + nu))                                              # D = s - nu
    r2, t2, terms = r * r, t * t, TERMS[order]
    half = 0.5 + _log_derivative(1, terms, t2, s)
    A = [k / (s + nu) - r / s * half]  # and its derivatives, as many as the order asks for

    if order <= 0:
        inverse, powers, tail = 1 / nu.clamp(min=LEAST), torch.zeros_like(t), 0
        for j in reversed(range(terms)):  # sum_j P_j(1) nu^-j (1 + .. + t^(j-1)), by powers of t
            tail = tail + AT_ONE[j] * inverse ** (j + 1)
            powers = powers * t + tail
        fall = _horner([torch.zeros_like(s), *(_horner(q, t2) for q in DIFFERENCES[:terms])], 1 / s)
        above = nu * torch.log1p(D / (2 * nu)) + 0.5 * torch.log1p(D / nu) + D / s * ((1 + t) * fall + powers)
        direct = nu * torch.log(nu + s) - nu + 0.5 * torch.log(s) - _log_derivative(0, terms, t2, s) - log_constant(d)
        rest = torch.where(nu >= LEAST, above, direct)                                       # D - Lambda
    if order >= 2:
        L2 = _log_derivative(2, terms, t2, s)
        A.append((nu / (1 + t) + (r2 - t2) * half + r2 * L2) / s / s)
    if order >= 3:
        L3 = _log_derivative(3, terms, t2, s)
        H = nu * (2 + t) / (1 + t) ** 2 + 2 * (r2 - 3 * t2) * half + 3 * (r2 - t2) * L2 + r2 * L3
        A.append(-r * H / s / s / s)
    if order == 4:
        L4 = _log_derivative(4, terms, t2, s)
        slope = -nu * t * (3 + t) / (1 + t) ** 3 - 16 * t2 * half - (18 * t2 - 2 * r2) * L2 - (5 * t2 - 3 * r2) * L3 + r2 * L4  # t dH/dt
        A.append(((3 * r2 - t2) * H + r2 * slope) / s / s / s / s)

    product = torch.zeros_like(k)  # prod(1 + k A / m) - 1
    for i in reversed(range(steps)):  # from order low + i + 1 to low + i
        m = 2 * (low + i + 1)
        M = m + k * A[0]
        product = torch.where(shifted, product + k * A[0] / m * (1 + product), product)
        B = [k / M]
        if order >= 2:
            M1 = A[0] + k * A[1]
            B.append((m - k * k * A[1]) / (M * M))
        if order >= 3:
            M2 = 2 * A[1] + k * A[2]
            B.append(-(B[0] * M2 + 2 * B[1] * M1) / M)
        if order == 4:
            B.append(-(B[0] * (3 * A[2] + k * A[3]) + 3 * B[1] * M2 + 3 * B[2] * M1) / M)
        A = [torch.where(shifted, new, old) for new, old in zip(B, A, strict=True)]

    if order >= 1:
        result = A[order - 1]
    else:
        cgf = D - rest + torch.log1p(product)
        result = cgf if order == 0 else torch.where(shifted, k * A[0] - cgf, rest - r2 * half)
    at_zero = (0.0, 0.0, 0.0, 1 / d, 0.0, -6 / (d * d * (d + 2)))[order + 1]
    at_infinity = (torch.inf, torch.inf, 1.0, 0.0, 0.0, 0.0)[order + 1]
    result = torch.where(kappa == 0, at_zero, torch.where(torch.isinf(kappa), at_infinity, result))
    return torch.where(kappa >= 0, result, torch.nan)


def vmf_cumulant(kappa: Tensor, d: int, order: int) -> Tensor:
    return cumulant(kappa, d, order).to(kappa.dtype)
