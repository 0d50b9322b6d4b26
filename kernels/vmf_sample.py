"""Draws from von Mises-Fisher laws and their gradients; csrc/vmf_sample.h, wood.h and vmf_tau.h have the formulas.

One launch each: a program makes several draws, whose vectors stay in registers, and one program goes back through all draws of a law.
Vectors are computed in the laws' dtype, whatever that of z, and what a draw has one of (Wood's step, tau) in float64: backends accept the
same proposals.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import check, launch, power_of_2
from .elementary import expm1, hypot, sincos
from .philox import normals, seed_key, uniform, uniform_positive, words

MAX_ATTEMPTS = tl.constexpr(32)  # as csrc/wood.h: the last is reached once in 1e15 draws
LARGEST = tl.constexpr(1e300)  # beyond lies infinity, as in csrc/fastmath.h


@triton.jit
def _load_plane(mu_ptr, law, coordinate, d, live):
    inside = live[:, None] & (coordinate < d)[None, :]
    return tl.load(mu_ptr + law[:, None] * d + coordinate[None, :], mask=inside, other=0.0)


@triton.jit
def _store_plane(z_ptr, mu, g, sample, coordinate, d, live, along, across):
    inside = live[:, None] & (coordinate < d)[None, :]
    tl.store(z_ptr + sample[:, None] * d + coordinate[None, :], along[:, None] * mu + across[:, None] * g, mask=inside)


@triton.jit
def _propose(x, x2, n, x0, one_minus_x0, word):
    """Wood's step for the first coordinate x of a uniform point, x2 = 1 - x^2: w, 1 - w^2, acceptance."""
    small = x2 / (1.0 + tl.abs(x))                                                           # 1 - |x|
    s = tl.where(x >= 0.0, 1.0 + x, small) - one_minus_x0 * x
    accept = -tl.log(uniform_positive(word, tl.float64)) > n * (tl.log(s) - x0 * x / s)
    w = 1.0 - tl.where(x >= 0.0, small, 1.0 - x) * one_minus_x0 / s
    return w, x2 * one_minus_x0 * (1.0 + x0) / (s * s), accept


@triton.jit
def _uniform_coordinate(n, word1, word2):
    """First coordinate of a uniform point and 1 minus its square, by Ulrich's symmetric beta."""
    u = uniform(word1, tl.float64)
    degenerate = (n < 1.5) | (u == 0.0)                                                      # the circle, and log 0
    exponent = 2.0 / tl.maximum(n - 1.0, 0.5) * tl.log(tl.where(u == 0.0, 1.0, u))
    p = tl.where(degenerate, 0.0, tl.exp(exponent))
    rest = tl.where(degenerate, 1.0, -expm1(exponent))                                       # 1 - p
    sine, cosine = sincos(uniform(word2, tl.float64) * 6.283185307179586)
    return tl.sqrt(rest) * cosine, p + rest * sine * sine


@triton.jit
def _draw_w(k, d, key, sample, g0, rest2, pending):
    """w and 1 - w^2; the first proposal comes from the Gaussian vector, rest2 = |g|^2 - g0^2. 1 and 0 where not pending."""
    n = (d - 1).to(tl.float64) + tl.zeros(k.shape, tl.float64)
    c = hypot(2.0 * k, n)
    x0, one_minus_x0 = 2.0 * k / (n + c), 2.0 * n / (n + 2.0 * k + c)
    norm2 = g0 * g0 + rest2
    first = sample * 0
    word, _, _, _ = words(key, first, 1, sample)
    w, v, accept = _propose(g0 / tl.sqrt(norm2), rest2 / norm2, n, x0, one_minus_x0, word)
    w, v = tl.where(pending, w, 1.0), tl.where(pending, v, 0.0)
    pending = pending & (accept == 0)
    attempt = 1
    left = tl.sum(pending.to(tl.int32), 0)
    while (attempt < MAX_ATTEMPTS) & (left > 0):
        word, word1, word2, _ = words(key, first + attempt, 1, sample)
        x, x2 = _uniform_coordinate(n, word1, word2)
        w_next, v_next, accept = _propose(x, x2, n, x0, one_minus_x0, word)
        w, v = tl.where(pending, w_next, w), tl.where(pending, v_next, v)
        pending = pending & (accept == 0)
        left = tl.sum(pending.to(tl.int32), 0)
        attempt += 1
    return w, v


@triton.jit(do_not_specialize=["L", "offset"])
def _forward(
    z_ptr, mu_ptr, kappa_ptr, seed_ptr, w_ptr, v_ptr, samples, L, offset, d, q,
    BLOCK_S: tl.constexpr, BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """BLOCK_S draws a program."""
    T: tl.constexpr = mu_ptr.dtype.element_ty
    sample = tl.program_id(0).to(tl.int64) * BLOCK_S + tl.arange(0, BLOCK_S)                 # [S]
    live = sample < samples
    law = sample // L
    number = sample + offset
    k = tl.load(kappa_ptr + law, mask=live, other=0.0).to(tl.float64)
    infinite = k > LARGEST
    key = seed_key(seed_ptr)

    j = tl.arange(0, BLOCK_Q)                                                                # [Q]
    at = tl.where(j < q, j, 4 * q)                                                           # beyond d where nothing is
    a, b, c, e = normals(key, j[None, :], number[:, None], T)                                # 4 of [S, Q]
    head = (j == 0)[None, :]
    g0 = tl.sum(tl.where(head, a, 0.0), 1)
    a = tl.where(head, 0.0, a)
    a, b = tl.where((at < d)[None, :], a, 0.0), tl.where((at + q < d)[None, :], b, 0.0)
    c, e = tl.where((at + 2 * q < d)[None, :], c, 0.0), tl.where((at + 3 * q < d)[None, :], e, 0.0)
    rest2 = tl.sum((a * a + b * b) + (c * c + e * e), 1)
    mu_a, mu_b = _load_plane(mu_ptr, law, at, d, live), _load_plane(mu_ptr, law, at + q, d, live)
    mu_c, mu_e = _load_plane(mu_ptr, law, at + 2 * q, d, live), _load_plane(mu_ptr, law, at + 3 * q, d, live)
    dot = tl.sum((a * mu_a + b * mu_b) + (c * mu_c + e * mu_e), 1)                           # sum over i > 0 of g_i mu_i

    w, v = _draw_w(tl.where(infinite, 1.0, k), d, key, number, g0.to(tl.float64), rest2.to(tl.float64), live & (infinite == 0))
    mu0 = tl.sum(tl.where(head, mu_a, 0.0), 1)
    sign = tl.where(mu0 < 0.0, -1.0, 1.0).to(T)
    r = tl.sqrt(v / tl.maximum(rest2, 1e-30).to(tl.float64)).to(T)
    along = tl.where(infinite, 1.0, w.to(T) + sign * r * dot / (1.0 + tl.abs(mu0)))
    across = -sign * r
    first = tl.where(infinite, mu0, w.to(T) * mu0 + r * dot)
    tl.store(w_ptr + sample, w.to(T), mask=live)
    tl.store(v_ptr + sample, v.to(T), mask=live)
    z = tl.where(head, first[:, None], along[:, None] * mu_a + across[:, None] * a)
    tl.store(z_ptr + sample[:, None] * d + at[None, :], z, mask=live[:, None] & (at < d)[None, :])
    _store_plane(z_ptr, mu_b, b, sample, at + q, d, live, along, across)
    _store_plane(z_ptr, mu_c, c, sample, at + 2 * q, d, live, along, across)
    _store_plane(z_ptr, mu_e, e, sample, at + 3 * q, d, live, along, across)


@triton.jit
def _start_of_tau(w, v, k, D):
    """tau_D of [S] draws and 1 - A_D, to first order."""
    n = D - 1.0
    c = hypot(2.0 * k, n)
    x0, g = 2.0 * k / (n + c), k * w + 0.5 * (n + c)
    tau = v / g * (1.0 + k / (g * g) * (w + x0 + n * x0 * (c + g) / (c * c)))
    return tau, 2.0 * n / (n + 2.0 * k + c) + x0 * n / (c * c)


@triton.jit
def _tau(w, v, k, d, PATHWISE: tl.constexpr):
    """dw/dkappa, csrc/vmf_tau.h: float64, w and v > 0 of [S] draws, k finite, of one law."""
    n = (d - 1).to(tl.float64)
    c = hypot(2.0 * k, n)
    if PATHWISE:
        return v / c
    else:
        steps = tl.where(k < 1000.0, 6.0 + 3.5 * tl.sqrt(k * (2.0 * k / (n + c))), 0.0).to(tl.int32)
        tau, B = _start_of_tau(w, v, k, n + 1.0 + 2.0 * steps.to(tl.float64))
        below = tl.where(w > 0.0, v / (1.0 + tl.maximum(w, 0.0)), 1.0 - w)                   # 1 - w
        for i in range(steps):
            e = n + 1.0 + 2.0 * (steps - 1 - i).to(tl.float64)
            scale = 1.0 / (e + k * (1.0 - B))
            B = (e - k * B) * scale
            tau = v / (e - 1.0) * (B + k * scale * (below - k * tau))
        return tau


@triton.jit(do_not_specialize=["L"])
def _backward(
    G_ptr, z_ptr, w_ptr, v_ptr, mu_ptr, kappa_ptr, grad_mu_ptr, grad_kappa_ptr, L, d,
    PATHWISE: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One program a law: G and z are read once, BLOCK_S draws at a time."""
    T: tl.constexpr = mu_ptr.dtype.element_ty
    law = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK_D)                                                                # [D]
    mu = tl.load(mu_ptr + law * d + i, mask=i < d, other=0.0)
    k = tl.load(kappa_ptr + law).to(tl.float64)
    finite = k <= LARGEST
    k = tl.where(finite, k, 1.0)
    total = tl.zeros([BLOCK_D], T)
    slope = tl.zeros([BLOCK_S], tl.float64)
    for start in range(0, L, BLOCK_S):
        l = start + tl.arange(0, BLOCK_S)
        live = l < L
        sample = law * L + l                                                                 # [S]
        inside = live[:, None] & (i < d)[None, :]
        at = sample[:, None] * d + i[None, :]
        G = tl.load(G_ptr + at, mask=inside, other=0.0).to(T)                                # [S, D]
        z = tl.load(z_ptr + at, mask=inside, other=0.0).to(T)
        w = tl.load(w_ptr + sample, mask=live, other=0.0)
        v = tl.load(v_ptr + sample, mask=live, other=0.0).to(tl.float64)
        along = tl.sum(G * mu[None, :], 1)                                                   # G.mu
        across = tl.sum(G * (z - w[:, None] * mu[None, :]), 1)                               # G.(z - w mu)
        total += tl.sum(w[:, None] * G - along[:, None] * z, 0)
        counts = tl.where(finite, v, 0.0) > 0.0
        w64, v = tl.where(counts, w.to(tl.float64), 0.0), tl.where(counts, v, 1.0)
        term = _tau(w64, v, k, d, PATHWISE) * (along.to(tl.float64) - w64 / v * across.to(tl.float64))
        slope += tl.where(counts, term, 0.0)
    normal = tl.sum(total.to(tl.float64) * mu.to(tl.float64), 0).to(T)
    tl.store(grad_mu_ptr + law * d + i, total - normal * mu, mask=i < d)
    tl.store(grad_kappa_ptr + law, tl.sum(slope, 0).to(T))


def _check_laws(mu: Tensor, kappa: Tensor) -> None:
    check(mu.dim() == 2 and mu.shape[1] >= 2, "vmf_sample: expected mu of shape (B, d) with d >= 2")
    check(kappa.shape == mu.shape[:1], "vmf_sample: expected kappa of shape (B,)")
    check(kappa.dtype == mu.dtype, "vmf_sample: expected mu and kappa of one dtype")


def vmf_sample(
    mu: Tensor, kappa: Tensor, seed: Tensor, n_samples: int, pathwise: bool, offset: int = 0, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    _check_laws(mu, kappa)
    check(n_samples >= 0, f"vmf_sample: expected n_samples >= 0, got {n_samples}")
    check(seed.dtype == torch.int64 and seed.numel() == 2, "vmf_sample: expected seed of two int64 words")
    (B, d), L = mu.shape, n_samples
    mu, kappa, seed = mu.contiguous(), kappa.contiguous(), seed.contiguous()
    z, w, v = mu.new_empty(B, L, d, dtype=dtype), mu.new_empty(B, L), mu.new_empty(B, L)
    q = (d + 3) // 4
    BLOCK_Q = triton.next_power_of_2(q)
    BLOCK_S = max(1, min(128, 1024 // BLOCK_Q // (mu.element_size() // 4)))
    num_warps = max(4, min(16, BLOCK_Q * mu.element_size() // 1024))
    args = z, mu, kappa, seed, w, v, B * L, L, offset, d, q
    launch(_forward, triton.cdiv(B * L, BLOCK_S), *args, num_warps=num_warps, BLOCK_S=BLOCK_S, BLOCK_Q=BLOCK_Q)
    return z, w, v


def vmf_sample_backward(
    grad_z: Tensor, z: Tensor, w: Tensor, v: Tensor, mu: Tensor, kappa: Tensor, pathwise: bool
) -> tuple[Tensor, Tensor]:
    _check_laws(mu, kappa)
    (B, d), L = mu.shape, z.shape[1]
    if L == 0:
        return torch.zeros_like(mu), torch.zeros_like(kappa)
    grad_z, z, w, v, mu, kappa = (t.contiguous() for t in (grad_z, z, w, v, mu, kappa))
    grad_mu, grad_kappa = torch.empty_like(mu), torch.empty_like(kappa)
    BLOCK_D = triton.next_power_of_2(d)
    BLOCK_S = power_of_2(L, max(1, min(32, 4096 // BLOCK_D // (mu.element_size() // 4))))
    num_warps = max(4, min(16, BLOCK_D // 256))
    args = grad_z, z, w, v, mu, kappa, grad_mu, grad_kappa, L, d
    launch(_backward, B, *args, num_warps=num_warps, PATHWISE=pathwise, BLOCK_S=BLOCK_S, BLOCK_D=BLOCK_D)
    return grad_mu, grad_kappa
