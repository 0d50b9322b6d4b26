"""Cumulants of w = mu . z under the von Mises-Fisher law; csrc/vmf_cumulant.h has the derivation. One kappa a lane, all in float64."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..reference.vmf_cumulant import AT_ONE, DIFFERENCES, KL, LEAST, POLYNOMIALS, TERMS, shift
from ._launch import check, launch
from .elementary import hypot, log1p

BLOCK = 128
# [STRIDE M + j - 1][i] belongs to t^(2i) s^-j: for M = 0 .. 4 in L_M = (t d/dt)^M phi, for M = FALL in the sum of
# (P_j(1) - P_j(t^2)) / (1 - t^2)
STRIDE, FALL = tl.constexpr(len(POLYNOMIALS)), tl.constexpr(5)
DERIVATIVES = [tuple(c * (j + 1 + 2 * i) ** m for i, c in enumerate(p)) for m in range(5) for j, p in enumerate(POLYNOMIALS)]
SERIES = tl.constexpr((*DERIVATIVES, *((*q, 0.0) for q in DIFFERENCES)))
ONE = tl.constexpr(tuple(AT_ONE))  # P_j(1)


@triton.jit
def _debye_sum(t2, inverse_s, M: tl.constexpr, TERMS: tl.constexpr):
    total = t2 * 0.0
    for back in tl.static_range(TERMS):  # j = TERMS - back
        row = t2 * 0.0
        for down in tl.static_range(TERMS - back + 1):  # i = j - down
            row = row * t2 + SERIES[STRIDE * M + TERMS - back - 1][TERMS - back - down]
        total = (total + row) * inverse_s
    return total


@triton.jit
def _powers(t, inverse_nu, TERMS: tl.constexpr):
    """sum_j P_j(1) nu^-j (1 + .. + t^(j-1))."""
    scale, geometric, power, total = t * 0.0 + 1.0, t * 0.0, t * 0.0 + 1.0, t * 0.0
    for j in tl.static_range(TERMS):
        scale, geometric, power = scale * inverse_nu, geometric + power, power * t
        total += ONE[j] * scale * geometric
    return total


@triton.jit
def _log_constant(low, high, steps, TERMS: tl.constexpr):
    """log Gamma(low + 1) + low log 2 - log(2 pi) / 2, by Stirling's series at high. A kernel's scalar arguments are float32."""
    product = high * 0.0 + 1.0
    for step in range(steps):
        product *= high - step
    stirling = (high + 0.5) * tl.log(high) - high - _powers(high * 0.0, 1.0 / high, TERMS)
    return stirling - tl.log(product) + low * 0.6931471805599453


@triton.jit(do_not_specialize=["steps"])
def _forward(kappa_ptr, out_ptr, total, d, steps, CUMULANT: tl.constexpr, TERMS: tl.constexpr, LEAST: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = i < total
    kappa = tl.load(kappa_ptr + i, mask=live, other=1.0).to(tl.float64)
    regular = (kappa > 0.0) & (kappa <= 1.7976931348623157e308)
    k = tl.where(regular, kappa, 1.0)

    dimension = d.to(tl.float64)
    low = 0.5 * dimension - 1.0
    high = low + steps
    shifted = (k < LEAST) & (steps > 0)
    nu = tl.where(shifted, high, low)
    s = hypot(nu, k)
    inverse_s = 1.0 / s
    r, t = k / s, nu * inverse_s
    D = k * (k / (s + nu))                                                                   # s - nu
    r2, t2, once = r * r, t * t, 1.0 / (1.0 + t)
    half = 0.5 + _debye_sum(t2, inverse_s, 1, TERMS)
    A = r * (once - inverse_s * half)
    A1, A2, A3, product, deficit = k * 0.0, k * 0.0, k * 0.0, k * 0.0, k * 0.0

    if CUMULANT <= 0:  # deficit = D - Lambda: above where nu >= LEAST, else direct, where k is
        x = tl.where(nu >= LEAST, D / (2.0 * tl.where(nu >= LEAST, nu, 1.0)), nu + s - 1.0)
        y = tl.where(nu >= LEAST, 2.0 * x, s - 1.0)
        above = D * inverse_s * ((1.0 + t) * _debye_sum(t2, inverse_s, FALL, TERMS) + _powers(t, 1.0 / high, TERMS))
        direct = -nu - _debye_sum(t2, inverse_s, 0, TERMS) - _log_constant(low, high, steps, TERMS)
        deficit = nu * log1p(x) + 0.5 * log1p(y) + tl.where(nu >= LEAST, above, direct)
    if CUMULANT >= 2:
        L2 = _debye_sum(t2, inverse_s, 2, TERMS)
        A1 = inverse_s * inverse_s * (nu * once + (r2 - t2) * half + r2 * L2)
        if CUMULANT >= 3:
            L3 = _debye_sum(t2, inverse_s, 3, TERMS)
            H = nu * (2.0 + t) * once * once + 2.0 * (r2 - 3.0 * t2) * half + 3.0 * (r2 - t2) * L2 + r2 * L3
            A2 = -r * inverse_s * inverse_s * inverse_s * H
            if CUMULANT == 4:
                slope = r2 * _debye_sum(t2, inverse_s, 4, TERMS) - nu * t * (3.0 + t) * once * once * once
                slope = slope - 16.0 * t2 * half - (18.0 * t2 - 2.0 * r2) * L2 - (5.0 * t2 - 3.0 * r2) * L3
                square = inverse_s * inverse_s
                A3 = square * square * ((3.0 * r2 - t2) * H + r2 * slope)

    k_low = tl.where(shifted, k, 1.0)
    for step in range(steps):  # downward, from order high - step to the next below
        m = 2.0 * (high - step)
        if CUMULANT <= 1:  # A (1 + product) in A's place: one division, at the end
            x = tl.where(shifted, k_low / m, 0.0)
            before = 1.0 + product
            product += x * A
            A = tl.where(shifted, x * before, A)
        else:
            inverse = 1.0 / (m + k_low * A)
            B, M1, B1 = k_low * inverse, A + k_low * A1, (m - k_low * k_low * A1) * inverse * inverse
            if CUMULANT >= 3:
                M2 = 2.0 * A1 + k_low * A2
                B2 = -(B * M2 + 2.0 * B1 * M1) * inverse
                if CUMULANT == 4:
                    A3 = tl.where(shifted, -(B * (3.0 * A2 + k_low * A3) + 3.0 * B1 * M2 + 3.0 * B2 * M1) * inverse, A3)
                A2 = tl.where(shifted, B2, A2)
            A1 = tl.where(shifted, B1, A1)
            A = tl.where(shifted, B, A)

    A = A / (1.0 + product)
    if CUMULANT <= 0:
        value = D - deficit + log1p(product)
        at_zero, at_infinity = 0.0, float("inf")
        if CUMULANT < 0:
            value = tl.where(shifted, k * A - value, deficit - r2 * half)
    elif CUMULANT == 1:
        value, at_zero, at_infinity = A, 0.0, 1.0
    elif CUMULANT == 2:
        value, at_zero, at_infinity = A1, 1.0 / dimension, 0.0
    elif CUMULANT == 3:
        value, at_zero, at_infinity = A2, 0.0, 0.0
    else:
        value, at_zero, at_infinity = A3, -6.0 / (dimension * dimension * (dimension + 2.0)), 0.0
    value = tl.where(kappa > 0.0, tl.where(regular, value, at_infinity), at_zero)
    tl.store(out_ptr + i, tl.where(kappa >= 0.0, value, float("nan")), mask=live)


def cumulant_into(out: Tensor, kappa: Tensor, d: int, order: int) -> Tensor:
    """out's dtype may be wider than kappa's."""
    check(d >= 2, f"vmf_cumulant: expected d >= 2, got {d}")
    check(KL <= order <= 4, f"vmf_cumulant: expected order -1 to 4, got {order}")
    n = kappa.numel()
    constants = dict(CUMULANT=order, TERMS=TERMS[order], LEAST=LEAST, BLOCK=BLOCK)
    launch(_forward, triton.cdiv(n, BLOCK), kappa, out, n, d, shift(d), **constants)
    return out


def vmf_cumulant(kappa: Tensor, d: int, order: int) -> Tensor:
    kappa = kappa.contiguous()
    return cumulant_into(torch.empty_like(kappa), kappa, d, order)
