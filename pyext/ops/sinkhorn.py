"""Entropic optimal transport, balanced and partial."""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._checks import check_floating, check_min_dim, check_values, compute_dtype, values_are_free
from .._library import define, op
from ..reference.sinkhorn import sinkhorn as _reference
from ..reference.sinkhorn import sinkhorn_backward as _reference_backward

# How far sums of weights may be apart and still count as equal: what normalising in the dtype leaves, generously.
SAME_MASS = {torch.float64: 1e-9, torch.float32: 1e-5}


class SinkhornResult(NamedTuple):
    """What `sinkhorn` and `partial_sinkhorn` return. `plan`, `value` and `transport_cost` are differentiable."""

    plan: Tensor            # (..., n, m), exp((f_i + g_j + h - C_ij) / eps), exactly 0 where a weight is
    f: Tensor               # (..., n), the gradient of value in a; -inf where a is 0
    g: Tensor               # (..., m), the gradient of value in b; -inf where b is 0
    value: Tensor           # (...), <P, C> + eps sum P (log P - 1)
    transport_cost: Tensor  # (...), <P, C>
    error: Tensor           # (...), the L1 distance of the plan's sums from what they should be
    iterations: Tensor      # (...), int32
    converged: Tensor       # (...), bool, error <= tol sum P; never for a NaN
    h: Tensor               # (...), the gradient of value in the mass; 0 where the mass is no constraint of its own


def sinkhorn(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    eps: float,
    max_iter: int = 1000,
    tol: float = 1e-6,
    init: SinkhornResult | tuple[Tensor, Tensor] | None = None,
    backend: str | None = None,
) -> SinkhornResult:
    r"""Entropic optimal transport: :math:`\min_P\langle P,C\rangle+\varepsilon\sum P(\log P-1)` over :math:`P\ge0, P1=a, P'1=b`.

    :math:`P_{ij}=e^{(f_i+g_j-C_{ij})/\varepsilon}` with f and g found by Sinkhorn's iteration (Cuturi 2013), which Anderson's method
    accelerates in C++ and CUDA, and on a CPU by Newton's on the dual where that is slow too. Gradients are those of the solution (implicit
    function theorem), whatever the iterations were: of `value` they are P, f and g; of `plan` one linear system in P, as
    docs/mathematics.md has it.

    Args:
        cost: C, (..., n, m), n, m >= 1, in the unit of `eps`. Batch dimensions broadcast with those of the weights. inf forbids a pair.
        a, b: weights (..., n), (..., m), >= 0, of equal sums. A zero masks its row or column: exact zeros in the plan, finite gradients.
            Default uniform with sum 1.
        eps: the regularisation, > 0.
        max_iter: the most updates of the potentials.
        tol: a problem ends when the L1 error of its marginals is at most `tol` times their sum; not below 8 roundings of the dtype.
        init: a result for similar costs, or potentials (f (..., n), g (..., m)), to start from.
        backend: None for the fastest, or "reference", "cpu", "cuda", "triton".

    Returns:
        A `SinkhornResult`, differentiable once in cost, a and b; the gradients in a and b are determined up to a constant. Problems of a
        batch end each by itself, and give the same bits alone or among others. A NaN in one leaves the others alone.

    Raises:
        ValueError: on wrong shapes, dtypes, devices, ranges and, on a CPU, weights that are negative, not finite, all zero or of unequal
            sums.
        RuntimeError: if the backend was not built.

    Warns:
        RuntimeWarning: on a CPU, if a problem did not converge.
    """
    return _solve("sinkhorn", cost, None, a, b, eps, max_iter, tol, init, backend)


def partial_sinkhorn(
    cost: Tensor,
    mass: float | Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    eps: float,
    max_iter: int = 1000,
    tol: float = 1e-6,
    init: SinkhornResult | tuple[Tensor, Tensor] | None = None,
    backend: str | None = None,
) -> SinkhornResult:
    r"""Entropic partial transport: the same objective over :math:`P\ge0, P1\le a, P'1\le b, \sum P=` `mass`.

    :math:`P_{ij}=e^{(f_i+g_j+h-C_{ij})/\varepsilon}`, f and g <= 0, by Dykstra's scalings (Benamou et al. 2015, prop. 5) and Newton's
    method. A mass equal to a side's sum makes that side's inequality an equation and h zero; equal to both, it is that of `sinkhorn`.

    Args:
        mass: (...) or a number, in (0, min(sum a, sum b)], by up to 1e-6 of it above.
        cost, a, b, eps, max_iter, tol, init, backend: as in `sinkhorn`; a and b may have different sums.

    Returns:
        A `SinkhornResult`, differentiable once in cost, a, b and mass. `error` adds up how far the next update would move the sums of rows
        and of columns, and how far the total is from `mass`.

    Raises, Warns:
        As `sinkhorn`; ValueError also on a mass out of range.
    """
    if mass is None:
        raise ValueError("partial_sinkhorn: mass: expected a number or a tensor, got None")
    return _solve("partial_sinkhorn", cost, mass, a, b, eps, max_iter, tol, init, backend)


def _solve(
    name: str,
    cost: Tensor,
    mass: float | Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    eps: float,
    max_iter: int,
    tol: float,
    init: SinkhornResult | tuple[Tensor, Tensor] | None,
    backend: str | None,
) -> SinkhornResult:
    dtype, batch, problem, starts = prepare(name, cost, mass, a, b, eps, max_iter, tol, init)
    C, a, b, mass = problem
    tol = max(tol, 8 * torch.finfo(C.dtype).eps)
    P, f, g, h, error, iterations, converged = op("sinkhorn", backend, C)(*problem, *starts, float(eps), max_iter, tol)
    warn_unless_converged(name, converged, error, max_iter)
    value, transport_cost = summary(C, a, b, mass, P, f, g, h, float(eps))
    cast = lambda x: x.to(dtype) if dtype != C.dtype and x.is_floating_point() else x  # noqa: E731
    shaped = lambda x: cast(x).reshape((*batch, *x.shape[1:]))  # noqa: E731
    return SinkhornResult(*map(shaped, (P, f, g, value, transport_cost, error, iterations, converged, h)))


def warn_unless_converged(name: str, converged: Tensor, error: Tensor, max_iter: int, stacklevel: int = 4) -> None:
    if values_are_free(converged) and not bool(converged.all()):
        left = (~converged).sum().item()
        worst = error[~converged].max().item()
        warnings.warn(f"{name}: {left} of {len(converged)} problems did not converge in {max_iter} iterations: error {worst:.3g}",
                      RuntimeWarning, stacklevel=stacklevel)


def prepare(
    name: str,
    cost: Tensor,
    mass: float | Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    eps: float,
    max_iter: int,
    tol: float,
    init: SinkhornResult | tuple[Tensor, Tensor] | None,
) -> tuple[torch.dtype, torch.Size, tuple[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor | None, Tensor | None]]:
    """Checks, and makes one batch dimension: dtype, batch shape, (cost (B, n, m), a (B, n), b (B, m), mass (B) or None), (f0, g0)."""
    if isinstance(init, SinkhornResult):
        init = init.f, init.g
    if not (init is None or (isinstance(init, (tuple, list)) and len(init) == 2)):
        raise ValueError(f"{name}: init: expected a SinkhornResult or potentials (f, g), got {type(init).__name__}")
    if not (mass is None or isinstance(mass, (int, float, Tensor))):
        raise ValueError(f"{name}: mass: expected a number or a tensor, got {type(mass).__name__}")
    f0, g0 = init or (None, None)
    dtype = check_floating(name, cost=cost, a=a, b=b, f=f0, g=g0, **({"mass": mass} if isinstance(mass, Tensor) else {}))
    check_min_dim(name, cost=(cost, 2))
    n, m = cost.shape[-2:]
    if n == 0 or m == 0:
        raise ValueError(f"{name}: cost: expected at least one row and one column, got shape {tuple(cost.shape)}")
    if not (isinstance(eps, (int, float)) and 0 < eps < float("inf")):
        raise ValueError(f"{name}: eps: expected a finite number > 0, got {eps!r}")
    if not (isinstance(max_iter, int) and 1 <= max_iter < 2**31):
        raise ValueError(f"{name}: max_iter: expected an integer >= 1, got {max_iter!r}")
    if not (isinstance(tol, (int, float)) and tol >= 0):
        raise ValueError(f"{name}: tol: expected a number >= 0, got {tol!r}")
    for label, x, size in (("a", a, n), ("b", b, m), ("init f", f0, n), ("init g", g0, m)):
        if x is not None and (x.dim() < 1 or x.shape[-1] != size):
            raise ValueError(f"{name}: {label}: expected shape (..., {size}) for cost of shape {tuple(cost.shape)}, got {tuple(x.shape)}")

    compute = compute_dtype(dtype)
    number = mass if isinstance(mass, (int, float)) else None
    if number is not None:  # made on the device: a copy from the host would wait for it, and could not be in a graph
        mass = torch.full((), number, dtype=compute, device=cost.device)
    elif mass is not None:
        mass = torch.as_tensor(mass, dtype=compute, device=cost.device)
    batch = cost.shape[:-2]
    shapes = [x.shape[:-1] for x in (a, b, f0, g0) if x is not None] + ([] if mass is None else [mass.shape])
    try:
        if any(shapes):
            batch = torch.broadcast_shapes(batch, *shapes)
    except RuntimeError:
        got = ", ".join(str(tuple(s)) for s in (cost.shape[:-2], *shapes))
        raise ValueError(f"{name}: expected batch dimensions that broadcast, got {got}") from None
    if number is None or a is not None or b is not None:
        _check_weights(name, a, b, mass, cost.device)
    elif not 0 < number <= 1 + 1e-6:
        raise ValueError(f"{name}: mass: expected a number in (0, min(sum a, sum b)], here at most 1, got {number:.9g}")
    B = batch.numel()
    uniform = lambda size: cost.new_full((B, size), 1 / size, dtype=compute)  # noqa: E731
    flat = lambda x, *tail: x.to(compute).expand((*batch, *tail)).reshape((B, *tail))  # noqa: E731
    problem = (
        flat(cost, n, m),
        uniform(n) if a is None else flat(a, n),
        uniform(m) if b is None else flat(b, m),
        None if mass is None else flat(mass),
    )
    return dtype, batch, problem, (None, None) if f0 is None else (flat(f0.detach(), n), flat(g0.detach(), m))


def _check_weights(name: str, a: Tensor | None, b: Tensor | None, mass: Tensor | None, device: torch.device) -> None:
    sums = []
    for label, w in (("a", a), ("b", b)):
        if w is None:
            sums.append(torch.ones((), dtype=torch.float64, device=device))
            continue
        check_values(name, label, w, lambda w: (w >= 0) & w.isfinite(), "finite weights >= 0")
        sums.append(w.detach().sum(-1, dtype=torch.float64))
        check_values(name, label, sums[-1], lambda s: s > 0, "rows with a positive sum")
    given = [x for x in (a, b, mass) if x is not None]
    if not given or not all(map(values_are_free, given)):
        return
    if mass is None:
        same = SAME_MASS.get(given[0].dtype, 2e-2)
        A, B = torch.broadcast_tensors(*sums)
        if bool(((A - B).abs() > same * A).any()):
            worst = (A - B).abs().argmax()
            raise ValueError(f"{name}: a, b: expected equal sums, got {A.flatten()[worst].item():.9g} and {B.flatten()[worst].item():.9g}")
    else:
        least = torch.minimum(*torch.broadcast_tensors(*sums))
        good = (mass > 0) & (mass <= (1 + 1e-6) * least)
        if not bool(good.all()):
            got = mass.expand(good.shape)[~good].flatten()[0].item()
            most = least.min().item()
            raise ValueError(f"{name}: mass: expected a number in (0, min(sum a, sum b)], here at most {most:.9g}, got {got:.9g}")


def summary(
    cost: Tensor, a: Tensor, b: Tensor, mass: Tensor | None, plan: Tensor, f: Tensor, g: Tensor, h: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """value and transport cost (B)."""
    inputs = cost, a, b, mass, plan, f, g, h, eps
    if torch.is_grad_enabled() and (not values_are_free(cost) or any(isinstance(x, Tensor) and x.requires_grad for x in inputs)):
        return _Summary.apply(*inputs)  # vmap's tensors do not say whether they require a gradient
    return _Summary.forward(*inputs)  # at a third of the cost


def _paid(plan: Tensor, cost: Tensor) -> Tensor:
    """<P, C> (B), with 0 of what may be infinite or not a number counted as 0."""
    n, m = plan.shape[1:]
    if 2**15 < n * m <= 2**17 and values_are_free(plan):
        # At once, one matrix would wake torch's threads, which can take longer than the solve; parts of at most 2^15 entries do not.
        parts = zip(plan.split(max(1, 2**15 // m), 1), cost.split(max(1, 2**15 // m), 1), strict=True)
        return torch.stack([(P * C).nansum((1, 2)) for P, C in parts]).sum(0)
    return (plan * cost).nansum((1, 2))


class _Summary(torch.autograd.Function):
    """The dual value, whose gradients at the solution are the plan and the potentials (envelope theorem): no linear system; and <P, C>."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        cost: Tensor, a: Tensor, b: Tensor, mass: Tensor | None, plan: Tensor, f: Tensor, g: Tensor, h: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        total = a.sum(1) if mass is None else mass
        # A weight of 0 has a potential of -inf; a plan of NaN has an h of NaN.
        return (f * a).nansum(1) + (g * b).nansum(1) + (h - eps) * total, _paid(plan, cost) + (h - h)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        cost, a, b, mass, plan, f, g, h, _ = inputs
        ctx.save_for_backward(cost, a, b, plan, f, g, h)
        ctx.partial = mass is not None

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_value: Tensor, grad_paid: Tensor) -> tuple:
        cost, a, b, plan, f, g, h = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            (grad_value + grad_paid)[:, None, None] * plan if wanted[0] else None,
            grad_value[:, None] * f.masked_fill(a <= 0, 0) if wanted[1] else None,
            grad_value[:, None] * g.masked_fill(b <= 0, 0) if wanted[2] else None,
            grad_value * h if ctx.partial and wanted[3] else None,
            grad_paid[:, None, None] * cost.masked_fill(plan == 0, 0) if wanted[4] else None,
            *(None,) * 4,
        )


def _fake(cost: Tensor, a: Tensor, b: Tensor, mass: Tensor | None, f0: Tensor | None, g0: Tensor | None, *_: Any) -> tuple[Tensor, ...]:
    B = cost.shape[0]
    one = lambda dtype: cost.new_empty(B, dtype=dtype)  # noqa: E731
    potentials = cost.new_empty(a.shape), cost.new_empty(b.shape), one(cost.dtype)
    return cost.new_empty(cost.shape), *potentials, one(cost.dtype), one(torch.int32), one(torch.bool)


def _setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    _, a, b, mass, _, _, eps, _, _ = inputs
    plan, f, g, *_ = output
    ctx.save_for_backward(plan, a, b, mass, f, g)
    ctx.eps = eps
    ctx.mark_non_differentiable(*output[1:])


def _backward(op: Any, ctx: Any, grad_plan: Tensor, *_: Tensor) -> tuple:
    plan, *rest = ctx.saved_tensors
    grad_cost, grad_a, grad_b, grad_mass = op("sinkhorn_backward")(grad_plan * plan, plan, *rest, ctx.eps)
    return grad_cost, grad_a, grad_b, None if rest[2] is None else grad_mass, *(None,) * 5


def _fake_backward(grad_log_plan: Tensor, plan: Tensor, a: Tensor, b: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return plan.new_empty(plan.shape), plan.new_empty(a.shape), plan.new_empty(b.shape), plan.new_empty(plan.shape[0])


define(
    "sinkhorn(Tensor cost, Tensor a, Tensor b, Tensor? mass, Tensor? f0, Tensor? g0, float eps, int max_iter, float tol)"
    " -> (Tensor plan, Tensor f, Tensor g, Tensor h, Tensor error, Tensor iterations, Tensor converged)",
    reference=_reference,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
define(
    "sinkhorn_backward(Tensor grad_log_plan, Tensor plan, Tensor a, Tensor b, Tensor? mass, Tensor f, Tensor g, float eps)"
    " -> (Tensor grad_cost, Tensor grad_a, Tensor grad_b, Tensor grad_mass)",
    reference=_reference_backward,
    fake=_fake_backward,
)
