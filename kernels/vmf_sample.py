"""Draws from von Mises-Fisher laws and their gradients; csrc/vmf_sample.h, wood.h and vmf_tau.h have the formulas.

Vectors are computed in the tensors' dtype, and what a draw has one of (Wood's step, tau) in float64: backends accept the same proposals.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import check, launch, power_of_2
from .elementary import angle_turns, expm1, hypot, log1p, sincos
from .philox import normals, seed_key, uniform, uniform_positive, words
from .vmf_cumulant import cumulant_into

MAX_ATTEMPTS = tl.constexpr(32)  # as csrc/wood.h: the last is reached once in 1e15 draws
LARGEST = tl.constexpr(1.7976931348623157e308)
PATHWISE, CLOSED, EXACT, QUADRATURE = (tl.constexpr(i) for i in range(4))  # the forms of tau
# Gauss-Legendre, 32 nodes: the positive half.
NODES = tl.constexpr((
    0.048307665687738317, 0.14447196158279649, 0.23928736225213706, 0.33186860228212767,
    0.42135127613063533, 0.50689990893222939, 0.58771575724076233, 0.66304426693021523,
    0.73218211874028971, 0.79448379596794239, 0.84936761373256997, 0.89632115576605209,
    0.93490607593773967, 0.96476225558750639, 0.98561151154526838, 0.99726386184948157,
))  # fmt: skip
WEIGHTS = tl.constexpr((
    0.096540088514727798, 0.095638720079274861, 0.093844399080804566, 0.091173878695763891,
    0.087652093004403811, 0.083311924226946749, 0.078193895787070311, 0.072345794108848504,
    0.065822222776361849, 0.058684093478535544, 0.050998059262376175, 0.042835898022226683,
    0.034273862913021431, 0.025392065309262059, 0.016274394730905671, 0.0070186100094700964,
))  # fmt: skip


@triton.jit
def _square_and_dot(g, mu_ptr, law, coordinate, d, live):
    """Sums over the coordinates of g^2 and g mu."""
    inside = (coordinate < d)[None, :]
    mu = tl.load(mu_ptr + law[:, None] * d + coordinate[None, :], mask=live[:, None] & inside, other=0.0)
    g = tl.where(inside, g, 0.0)
    return tl.sum(g * g, 1), tl.sum(g * mu, 1)


@triton.jit
def _store_plane(g, mu_ptr, z_ptr, law, sample, coordinate, d, live, infinite, along, across, head):
    """z = along mu + across g, but for z0 = head, and z = mu at infinite kappa."""
    inside = live[:, None] & (coordinate < d)[None, :]
    mu = tl.load(mu_ptr + law[:, None] * d + coordinate[None, :], mask=inside, other=0.0)
    z = tl.where((coordinate == 0)[None, :], head[:, None], along[:, None] * mu + across[:, None] * g)
    tl.store(z_ptr + sample[:, None] * d + coordinate[None, :], tl.where(infinite[:, None], mu, z), mask=inside)


@triton.jit
def _propose(x, x2, n, x0, one_minus_x0, word):
    """Wood's step for the first coordinate x of a uniform point, x2 = 1 - x^2: w, 1 - w^2, acceptance."""
    small = x2 / (1.0 + tl.abs(x))                                                           # 1 - |x|
    s = tl.where(x >= 0.0, 1.0 + x, small) - one_minus_x0 * x
    t = x0 * x
    log_s = tl.where(s > 0.5, log1p(tl.where(s > 0.5, t, 0.0)), tl.log(s))
    accept = -tl.log(uniform_positive(word, tl.float64)) > n * (log_s - t / s)
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


@triton.jit(do_not_specialize=["L"])
def _forward(mu_ptr, kappa_ptr, seed_ptr, z_ptr, w_ptr, v_ptr, samples, L, d, BLOCK_S: tl.constexpr, BLOCK_Q: tl.constexpr):
    """BLOCK_S draws a program. The normals are made twice, for their sums and for z, so that vectors of any d fit."""
    T: tl.constexpr = mu_ptr.dtype.element_ty
    sample = tl.program_id(0).to(tl.int64) * BLOCK_S + tl.arange(0, BLOCK_S)                 # [S]
    live = sample < samples
    law = sample // L
    k = tl.load(kappa_ptr + law, mask=live, other=0.0).to(tl.float64)
    infinite = k > LARGEST
    k = tl.where(infinite, 1.0, k)
    key = seed_key(seed_ptr)
    q = (d + 3) // 4

    g0 = tl.zeros([BLOCK_S], T)
    rest2 = tl.zeros([BLOCK_S], T)
    dot = tl.zeros([BLOCK_S], T)                                                             # sum over i > 0 of g_i mu_i
    for start in range(0, q, BLOCK_Q):
        j = start + tl.arange(0, BLOCK_Q)                                                    # [Q]
        at = tl.where(j < q, j, 4 * q)                                                       # beyond d where nothing is
        a, b, c, e = normals(key, j[None, :], sample[:, None], T)                            # 4 of [S, Q]
        g0 += tl.sum(tl.where((at == 0)[None, :], a, 0.0), 1)
        a2, am = _square_and_dot(tl.where((at == 0)[None, :], 0.0, a), mu_ptr, law, at, d, live)
        b2, bm = _square_and_dot(b, mu_ptr, law, at + q, d, live)
        c2, cm = _square_and_dot(c, mu_ptr, law, at + 2 * q, d, live)
        e2, em = _square_and_dot(e, mu_ptr, law, at + 3 * q, d, live)
        rest2 += (a2 + b2) + (c2 + e2)
        dot += (am + bm) + (cm + em)

    w, v = _draw_w(k, d, key, sample, g0.to(tl.float64), rest2.to(tl.float64), live & (infinite == 0))
    mu0 = tl.load(mu_ptr + law * d, mask=live, other=1.0)
    sign = tl.where(mu0 < 0.0, -1.0, 1.0).to(T)
    r = tl.sqrt(v / rest2.to(tl.float64)).to(T)
    along = w.to(T) + sign * r * dot / (1.0 + tl.abs(mu0))
    across = -sign * r
    head = w.to(T) * mu0 + r * dot
    tl.store(w_ptr + sample, w.to(T), mask=live)
    tl.store(v_ptr + sample, v.to(T), mask=live)

    for start in range(0, q, BLOCK_Q):
        j = start + tl.arange(0, BLOCK_Q)
        at = tl.where(j < q, j, 4 * q)
        a, b, c, e = normals(key, j[None, :], sample[:, None], T)
        _store_plane(a, mu_ptr, z_ptr, law, sample, at, d, live, infinite, along, across, head)
        _store_plane(b, mu_ptr, z_ptr, law, sample, at + q, d, live, infinite, along, across, head)
        _store_plane(c, mu_ptr, z_ptr, law, sample, at + 2 * q, d, live, infinite, along, across, head)
        _store_plane(e, mu_ptr, z_ptr, law, sample, at + 3 * q, d, live, infinite, along, across, head)


@triton.jit
def _tau_by_quadrature(w, v, k, n, A):
    """int_w^1 (t - A) p(t) dt / p(w) over the side of w that lies away from A, in the angle; the nodes crowd at w."""
    lane = tl.arange(0, 32)
    s = lane.to(tl.float64) * 0.0
    weight = s
    for i in tl.static_range(16):  # constants cannot be indexed by a tensor
        s = tl.where(lane == i, 0.5 + 0.5 * NODES[i], tl.where(lane == 16 + i, 0.5 - 0.5 * NODES[i], s))
        weight = tl.where((lane & 15) == i, WEIGHTS[i], weight)
    sine = tl.sqrt(v)                                                                        # [S]
    theta = angle_turns(w, sine) * 6.283185307179586
    away = w > A
    R = tl.minimum(tl.where(away, theta, 3.141592653589793 - theta), 14.0 / tl.sqrt(k + n - 0.5))
    step = tl.where(away, -R, R)[:, None] * (s * s)[None, :]                                 # [S, 32]
    middle, _ = sincos(theta[:, None] + 0.5 * step)
    half, _ = sincos(0.5 * step)
    fall = -2.0 * middle * half                                                              # cos phi - cos theta
    sine_phi, _ = sincos(theta[:, None] + step)
    log_density = k[:, None] * fall + (n - 1.0) * tl.log(sine_phi / sine[:, None])
    return sine * R * tl.sum((weight * s)[None, :] * tl.abs(w[:, None] + fall - A) * tl.exp(log_density), 1)


@triton.jit
def _tau(w, v, k, A, d, FORM: tl.constexpr):
    """dw/dkappa, csrc/vmf_tau.h; float64, finite k, v > 0."""
    n = (d - 1).to(tl.float64)
    c = hypot(2.0 * k, n)
    if FORM == PATHWISE:
        return v / c
    elif FORM == CLOSED:
        x0, g = 2.0 * k / (n + c), k * w + 0.5 * (n + c)
        return v / g * (1.0 + k / (g * g) * (w + x0 + n * x0 * (c + g) / (c * c)))
    elif FORM == EXACT:  # d = 3, but where kappa is so small that it cancels
        safe = tl.maximum(k, 0.01)
        below = tl.where(w > 0.0, v / (1.0 + tl.maximum(w, 0.0)), 1.0 - w)                   # 1 - w
        ratio = tl.exp(safe * (below - 2.0)) * expm1(-safe * below) / expm1(-2.0 * safe)
        return tl.where(k > 0.01, (below - 2.0 * ratio) / safe, _tau_by_quadrature(w, v, k, n, A))
    else:
        return _tau_by_quadrature(w, v, k, n, A)


@triton.jit(do_not_specialize=["L", "chunks"])
def _backward(
    G_ptr, z_ptr, w_ptr, v_ptr, mu_ptr, kappa_ptr, A_ptr, sum_mu_ptr, sum_kappa_ptr, L, chunks, d,
    FORM: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One program a chunk of BLOCK_S draws of one law: its part of sum_l (w G - (G.mu) z) and of grad_kappa."""
    T: tl.constexpr = mu_ptr.dtype.element_ty
    chunk = tl.program_id(0).to(tl.int64)
    law, l = chunk // chunks, chunk % chunks * BLOCK_S + tl.arange(0, BLOCK_S)
    live = l < L
    sample = law * L + l                                                                     # [S]
    w = tl.load(w_ptr + sample, mask=live, other=0.0)
    v = tl.load(v_ptr + sample, mask=live, other=0.0).to(tl.float64)
    along = tl.zeros([BLOCK_S], T)                                                           # G.mu
    across = tl.zeros([BLOCK_S], T)                                                          # G.(z - w mu)
    for start in range(0, d, BLOCK_D):
        i = start + tl.arange(0, BLOCK_D)                                                    # [D]
        inside = live[:, None] & (i < d)[None, :]
        G = tl.load(G_ptr + sample[:, None] * d + i[None, :], mask=inside, other=0.0)        # [S, D]
        z = tl.load(z_ptr + sample[:, None] * d + i[None, :], mask=inside, other=0.0)
        mu = tl.load(mu_ptr + law * d + i, mask=i < d, other=0.0)[None, :]
        along += tl.sum(G * mu, 1)
        across += tl.sum(G * (z - w[:, None] * mu), 1)
    for start in range(0, d, BLOCK_D):
        i = start + tl.arange(0, BLOCK_D)
        inside = live[:, None] & (i < d)[None, :]
        G = tl.load(G_ptr + sample[:, None] * d + i[None, :], mask=inside, other=0.0)
        z = tl.load(z_ptr + sample[:, None] * d + i[None, :], mask=inside, other=0.0)
        tl.store(sum_mu_ptr + chunk * d + i, tl.sum(w[:, None] * G - along[:, None] * z, 0), mask=i < d)

    k = tl.load(kappa_ptr + law).to(tl.float64) + tl.zeros([BLOCK_S], tl.float64)
    counts = (v > 0.0) & (k <= LARGEST)
    w64, v = w.to(tl.float64), tl.where(counts, v, 1.0)
    slope = _tau(tl.where(counts, w64, 0.0), v, tl.where(k <= LARGEST, k, 1.0), tl.load(A_ptr + law).to(tl.float64), d, FORM)
    term = slope * (along.to(tl.float64) - w64 / v * across.to(tl.float64))
    tl.store(sum_kappa_ptr + chunk, tl.sum(tl.where(counts, term, 0.0), 0).to(T))


@triton.jit(do_not_specialize=["chunks"])
def _reduce(sum_mu_ptr, sum_kappa_ptr, mu_ptr, grad_mu_ptr, grad_kappa_ptr, chunks, d, BLOCK_D: tl.constexpr):
    """One program a law: adds up the chunks, in order, and takes off the part along mu. Sums twice rather than read back what it wrote."""
    T: tl.constexpr = mu_ptr.dtype.element_ty
    law = tl.program_id(0).to(tl.int64)
    normal = tl.sum(tl.zeros([BLOCK_D], tl.float64), 0)
    for start in range(0, d, BLOCK_D):
        i = start + tl.arange(0, BLOCK_D)
        total = tl.zeros([BLOCK_D], T)
        for c in range(0, chunks):
            total += tl.load(sum_mu_ptr + (law * chunks + c) * d + i, mask=i < d, other=0.0)
        mu = tl.load(mu_ptr + law * d + i, mask=i < d, other=0.0)
        normal += tl.sum(total.to(tl.float64) * mu.to(tl.float64), 0)
    for start in range(0, d, BLOCK_D):
        i = start + tl.arange(0, BLOCK_D)
        total = tl.zeros([BLOCK_D], T)
        for c in range(0, chunks):
            total += tl.load(sum_mu_ptr + (law * chunks + c) * d + i, mask=i < d, other=0.0)
        mu = tl.load(mu_ptr + law * d + i, mask=i < d, other=0.0)
        tl.store(grad_mu_ptr + law * d + i, total - normal.to(T) * mu, mask=i < d)
    slope = tl.sum(tl.zeros([1], tl.float64), 0)
    for c in range(0, chunks):
        slope += tl.load(sum_kappa_ptr + law * chunks + c).to(tl.float64)
    tl.store(grad_kappa_ptr + law, slope.to(T))


def _check_laws(mu: Tensor, kappa: Tensor) -> None:
    check(mu.dim() == 2 and mu.shape[1] >= 2, "vmf_sample: expected mu of shape (B, d) with d >= 2")
    check(kappa.shape == mu.shape[:1], "vmf_sample: expected kappa of shape (B,)")
    check(kappa.dtype == mu.dtype, "vmf_sample: expected mu and kappa of one dtype")


def vmf_sample(mu: Tensor, kappa: Tensor, seed: Tensor, n_samples: int, pathwise: bool) -> tuple[Tensor, Tensor, Tensor]:
    _check_laws(mu, kappa)
    check(n_samples >= 0, f"vmf_sample: expected n_samples >= 0, got {n_samples}")
    check(seed.dtype == torch.int64 and seed.numel() == 2, "vmf_sample: expected seed of two int64 words")
    (B, d), L = mu.shape, n_samples
    mu, kappa, seed = mu.contiguous(), kappa.contiguous(), seed.contiguous()
    z, w, v = mu.new_empty(B, L, d), mu.new_empty(B, L), mu.new_empty(B, L)
    BLOCK_Q = power_of_2((d + 3) // 4, 256)
    BLOCK_S = max(1, min(128, 1024 // BLOCK_Q // (mu.element_size() // 4)))
    launch(_forward, triton.cdiv(B * L, BLOCK_S), mu, kappa, seed, z, w, v, B * L, L, d, BLOCK_S=BLOCK_S, BLOCK_Q=BLOCK_Q)
    return z, w, v


def vmf_sample_backward(
    grad_z: Tensor, z: Tensor, w: Tensor, v: Tensor, mu: Tensor, kappa: Tensor, pathwise: bool
) -> tuple[Tensor, Tensor]:
    _check_laws(mu, kappa)
    (B, d), L = mu.shape, z.shape[1]
    if L == 0:
        return torch.zeros_like(mu), torch.zeros_like(kappa)
    grad_z, z, w, v, mu, kappa = (t.contiguous() for t in (grad_z, z, w, v, mu, kappa))
    form = PATHWISE if pathwise else CLOSED if d > 32 else EXACT if d == 3 else QUADRATURE
    by_quadrature = form in (EXACT, QUADRATURE)
    A = cumulant_into(kappa.new_empty(B, dtype=torch.float64), kappa, d, 1) if by_quadrature else kappa
    BLOCK_D = power_of_2(d, 256)
    BLOCK_S = 8 if by_quadrature else max(1, min(32, 2048 // BLOCK_D // (mu.element_size() // 4)))  # there [S, 32 nodes] of float64
    chunks = triton.cdiv(L, BLOCK_S)
    sum_mu, sum_kappa = mu.new_empty(B * chunks, d), mu.new_empty(B * chunks)
    grad_mu, grad_kappa = torch.empty_like(mu), torch.empty_like(kappa)
    blocks = dict(FORM=form.value, BLOCK_S=BLOCK_S, BLOCK_D=BLOCK_D)
    launch(_backward, B * chunks, grad_z, z, w, v, mu, kappa, A, sum_mu, sum_kappa, L, chunks, d, **blocks)
    launch(_reduce, B, sum_mu, sum_kappa, mu, grad_mu, grad_kappa, chunks, d, BLOCK_D=power_of_2(d, 1024))
    return grad_mu, grad_kappa
