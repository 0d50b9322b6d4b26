"""Draws from von Mises-Fisher laws."""

import math
from typing import Any

import torch
from torch import Tensor

from .._checks import check_floating, check_min_dim, check_unit, check_values, compute_dtype, whole_number
from .._library import define, op
from .._seed import seed_words
from ..reference.vmf_sample import vmf_sample as _reference
from ..reference.vmf_sample import vmf_sample_backward as _reference_backward


def vmf_sample(
    mu: Tensor,
    kappa: Tensor,
    n_samples: int,
    *,
    kappa_grad: str = "implicit",
    generator: torch.Generator | None = None,
    seed: int | None = None,
    offset: int = 0,
    backend: str | None = None,
) -> Tensor:
    r"""Independent draws from von Mises–Fisher laws, the density :math:`\propto e^{\kappa\,\mu\cdot z}` on the unit sphere of :math:`R^d`.

    Wood's rejection in a form without cancellation, from one Gaussian vector a draw: exact from d = 2 to thousands and from kappa = 0
    (uniform) to infinity (mu itself). Reparameterised in both parameters: the gradient in mu is parallel transport; that in kappa holds
    F(w) fixed, :math:`dw/d\kappa = \frac1{p(w)}\int_w^1 (t-A)p(t)\,dt`, w = mu.z, and is unbiased (Figurnov et al. 2018), where the
    derivative of the accepted proposal, which widely copied code uses, is too small by up to half at small d.

    Args:
        mu: unit mean directions, (..., d), d >= 2.
        kappa: concentrations >= 0, broadcastable to (...); `inf` returns mu.
        n_samples: draws from each law.
        kappa_grad: "implicit" (unbiased), or "pathwise" (that of the accepted proposal, for comparison).
        generator: source of the two seed words; default torch's own for the device, in which the ranks of torch.distributed's default
            group draw differently even where they are seeded alike.
        seed: fixes the draws, to rounding the same on every backend, device and number of threads.
        offset: draws are numbered from here on, in row-major order over (..., n_samples), and only `seed` and number make a draw: a batch
            in parts gives the draws of the whole where each part's offset is the number of draws before it.
        backend: None for the fastest, or "reference", "cpu", "cuda", "triton".

    Returns:
        Unit vectors (..., n_samples, d), differentiable in `mu` and `kappa` (once). bfloat16 and float16 are computed in float32 and
        rounded as they are stored, without a float32 copy in memory; their gradients are those at the rounded draws.

    Raises:
        ValueError: on wrong shapes, dtypes or devices and, on a CPU, if mu is not of unit length or kappa is negative or NaN.
        RuntimeError: if the backend was not built.
    """
    name = "vmf_sample"
    dtype = check_floating(name, mu=mu, kappa=kappa)
    check_min_dim(name, mu=(mu, 1))
    if mu.shape[-1] < 2:
        raise ValueError(f"{name}: mu: expected a last dimension of at least 2, got shape {tuple(mu.shape)}")
    n_samples, offset = whole_number(name, "n_samples", n_samples, 0), whole_number(name, "offset", offset, 0)
    if offset >= 2**62:
        raise ValueError(f"{name}: offset: expected an integer below 2^62, got {offset}")
    if kappa_grad not in ("implicit", "pathwise"):
        raise ValueError(f"{name}: kappa_grad: expected 'implicit' or 'pathwise', got {kappa_grad!r}")
    try:
        batch = torch.broadcast_shapes(mu.shape[:-1], kappa.shape)
    except RuntimeError:
        raise ValueError(f"{name}: kappa: expected a shape that broadcasts with {tuple(mu.shape[:-1])}, got {tuple(kappa.shape)}") from None
    d = mu.shape[-1]
    check_unit(name, "mu", mu)
    check_values(name, "kappa", kappa, lambda t: t >= 0, "values >= 0")

    seed_ = seed_words(seed, generator, mu.device)
    B = math.prod(batch)  # views cost more than small draws do: none where the shapes are these already
    mu_BD = (mu if mu.shape == (B, d) else mu.expand(*batch, d).reshape(B, d)).to(compute_dtype(dtype))
    if dtype not in (torch.float32, torch.float64):  # a half vector is unit only to three digits
        mu_BD = torch.nn.functional.normalize(mu_BD, dim=-1)
    kappa_B = (kappa if kappa.shape == (B,) else kappa.expand(batch).reshape(B)).to(compute_dtype(dtype))
    z, _, _ = op(name, backend, mu)(mu_BD, kappa_B, seed_, n_samples, kappa_grad == "pathwise", offset, dtype)
    return z if len(batch) == 1 else z.reshape(*batch, n_samples, d)


def _setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    mu, kappa, _, _, ctx.pathwise, _, _ = inputs
    z, w, v = output
    ctx.save_for_backward(z, w, v, mu, kappa)
    ctx.mark_non_differentiable(w, v)


def _backward(op: Any, ctx: Any, grad_z: Tensor, _w: Tensor, _v: Tensor) -> tuple:
    grad_mu, grad_kappa = op("vmf_sample_backward")(grad_z, *ctx.saved_tensors, ctx.pathwise)
    return grad_mu, grad_kappa, None, None, None, None, None


define(
    "vmf_sample_backward(Tensor grad_z, Tensor z, Tensor w, Tensor v, Tensor mu, Tensor kappa, bool pathwise) -> (Tensor, Tensor)",
    reference=_reference_backward,
    fake=lambda grad_z, z, w, v, mu, kappa, pathwise: (mu.new_empty(mu.shape), kappa.new_empty(kappa.shape)),
)
define(
    "vmf_sample(Tensor mu, Tensor kappa, Tensor seed, int n_samples, bool pathwise, int offset=0, ScalarType? dtype=None)"
    " -> (Tensor z, Tensor w, Tensor v)",
    reference=_reference,
    fake=lambda mu, kappa, seed, L, pathwise, offset=0, dtype=None: (
        mu.new_empty(mu.shape[0], L, mu.shape[1], dtype=dtype),
        mu.new_empty(mu.shape[0], L),
        mu.new_empty(mu.shape[0], L),
    ),
    backward=_backward,
    setup_context=_setup_context,
)
