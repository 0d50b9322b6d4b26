"""Normaliser, mean resultant length, variance, entropy and divergence of von Mises-Fisher laws, at any dimension and concentration."""

import math
from typing import Any

import torch
from torch import Tensor

from .._checks import check_floating, check_values, compute_dtype, whole_number
from .._library import define, op
from ..reference.vmf_cumulant import KL
from ..reference.vmf_cumulant import vmf_cumulant as _reference


def log_sphere_area(d: int) -> float:
    r"""Log of the area of the unit sphere of :math:`R^d`, :math:`2\pi^{d/2}/\Gamma(d/2)`."""
    return math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2)


def vmf_log_normalizer(kappa: Tensor, d: int, *, backend: str | None = None) -> Tensor:
    r"""Log of :math:`C_d(\kappa)`, with which :math:`C_d(\kappa)e^{\kappa\mu\cdot z}` integrates to 1 over the sphere.

    :math:`\log C_d=-\log S-\Lambda`, S the area of the sphere and :math:`\Lambda=\log E_{uniform}e^{\kappa w}`. No Bessel function is
    evaluated, so nothing underflows: any d >= 2 and any kappa from 0 to infinity, where the value is -inf.

    Args:
        kappa: concentrations >= 0, any shape.
        d: dimension of the space, >= 2.
        backend: None for the fastest, or "reference", "cpu", "cuda", "triton".

    Returns:
        Values of kappa's shape and dtype, computed in float64: relative error below 1e-12 of :math:`|\log S|+\Lambda` (the sum of the two
        has a zero). Differentiable in kappa four times.

    Raises:
        ValueError: on a dtype that is not floating, d < 2 and, on a CPU, a negative or NaN kappa.
        RuntimeError: if the backend was not built.
    """
    return -log_sphere_area(d) - _cumulant("vmf_log_normalizer", kappa, d, 0, backend)


def vmf_mean_resultant(kappa: Tensor, d: int, *, backend: str | None = None) -> Tensor:
    r"""Mean of :math:`w=\mu\cdot z`: :math:`A_d(\kappa)=I_{d/2}(\kappa)/I_{d/2-1}(\kappa)`, in [0, 1]. Relative error below 1e-12, three
    times differentiable; arguments and errors as `vmf_log_normalizer`."""
    return _cumulant("vmf_mean_resultant", kappa, d, 1, backend)


def vmf_entropy(kappa: Tensor, d: int, *, backend: str | None = None) -> Tensor:
    r"""Differential entropy in nats, :math:`\log S-KL`, KL that to the uniform law; -inf at infinite kappa. It has a zero: the error is
    below 1e-12 of :math:`|\log S|+KL`. Three times differentiable; arguments and errors as `vmf_log_normalizer`."""
    return log_sphere_area(d) - _cumulant("vmf_entropy", kappa, d, KL, backend)


def vmf_kl_uniform(kappa: Tensor, d: int, *, backend: str | None = None) -> Tensor:
    r"""Kullback–Leibler divergence to the uniform law in nats, :math:`\kappa A_d(\kappa)-\Lambda`, without that difference's cancellation;
    inf at infinite kappa. Relative error below 1e-12, three times differentiable; arguments and errors as `vmf_log_normalizer`."""
    return _cumulant("vmf_kl_uniform", kappa, d, KL, backend)


def vmf_variance(kappa: Tensor, d: int, *, backend: str | None = None) -> Tensor:
    r"""Variance of :math:`w=\mu\cdot z`, :math:`A'=1-A^2-(d-1)A/\kappa`, without that difference's cancellation. Relative error below
    1e-12, twice differentiable; arguments and errors as `vmf_log_normalizer`."""
    return _cumulant("vmf_variance", kappa, d, 2, backend)


def vmf_cgf(kappa: Tensor, d: int, *, backend: str | None = None) -> Tensor:
    r"""Cumulant generating function of w under the uniform law, :math:`\Lambda=\log E_{uniform}e^{\kappa w}`; arguments and errors as
    `vmf_log_normalizer`."""
    return _cumulant("vmf_cgf", kappa, d, 0, backend)


def _cumulant(function: str, kappa: Tensor, d: int, order: int, backend: str | None) -> Tensor:
    dtype = check_floating(function, kappa=kappa)
    d = whole_number(function, "d", d, 2)
    check_values(function, "kappa", kappa, lambda t: t >= 0, "values >= 0")
    return op("vmf_cumulant", backend, kappa)(kappa.to(compute_dtype(dtype)), d, order).to(dtype)


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    kappa, ctx.d, ctx.order = inputs
    ctx.save_for_backward(kappa)


def _backward(op: Any, ctx: Any, grad: Tensor) -> tuple:
    (kappa,) = ctx.saved_tensors
    if ctx.order == 4:
        raise RuntimeError("vmf_cumulant: derivatives end at the fourth cumulant: differentiate log_normalizer at most four times")
    if ctx.order == KL:  # (k A - Lambda)' = k A', 0 at infinity
        slope = kappa.clamp(max=torch.finfo(kappa.dtype).max) * op("vmf_cumulant")(kappa, ctx.d, 2)
    else:
        slope = op("vmf_cumulant")(kappa, ctx.d, ctx.order + 1)
    return grad * slope, None, None


define(
    "vmf_cumulant(Tensor kappa, int d, int order) -> Tensor",
    reference=_reference,
    fake=lambda kappa, d, order: kappa.new_empty(kappa.shape),
    backward=_backward,
    setup_context=_setup_context,
)
