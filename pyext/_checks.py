"""Input checks that every public function shares. Shapes and types are always checked; values only where reading them costs no sync."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

DTYPES = torch.float64, torch.float32, torch.bfloat16, torch.float16
_TAKEN = "; taken are float64, float32, bfloat16 and float16"


def check_floating(function: str, **tensors: Tensor | None) -> torch.dtype:
    """All given tensors, the first among them, are floating, of one dtype and one device. Returns the dtype."""
    _refuse_functional_gradients(function)
    first_name, first = next(iter(tensors.items()))
    given = {name: t for name, t in tensors.items() if t is not None or name == first_name}
    for name, t in given.items():
        if not isinstance(t, Tensor):
            raise ValueError(f"{function}: {name}: expected a tensor, got {type(t).__name__}")
        if t.dtype not in DTYPES:
            raise ValueError(f"{function}: {name}: expected a floating dtype, got {t.dtype}{_TAKEN if t.is_floating_point() else ''}")
        if t.dtype != first.dtype:
            raise ValueError(f"{function}: {name}: expected {first.dtype} as {first_name}, got {t.dtype}")
        if t.device != first.device:
            raise ValueError(f"{function}: {name}: expected device {first.device} as {first_name}, got {t.device}")
        if forward_ad.unpack_dual(t).tangent is not None:  # which operators with a registered gradient drop without a word
            raise RuntimeError(f"{function}: forward-mode derivatives are not supported; use torch.autograd.grad")
    return first.dtype


def _refuse_functional_gradients(function: str) -> None:
    # torch's own refusal, of every operator with a registered gradient, speaks of something that no user wrote, and jvp gets none: zeros.
    if torch.compiler.is_compiling():
        return
    kind = torch._C._functorch.TransformType
    levels = torch._C._functorch.get_interpreter_stack() or ()
    if any(level.key() in (kind.Grad, kind.Jvp) for level in levels):
        raise RuntimeError(f"{function}: torch.func.grad and its kin are not supported; use torch.autograd.grad (torch.func.vmap works)")


def check_min_dim(function: str, **dims: tuple[Tensor, int]) -> None:
    """`name=(tensor, least number of dimensions)`."""
    for name, (t, least) in dims.items():
        if t is None:
            raise ValueError(f"{function}: {name}: expected a tensor, got None")
        if t.dim() < least:
            raise ValueError(f"{function}: {name}: expected at least {least} dimensions, got shape {tuple(t.shape)}")


def whole_number(function: str, name: str, value: Any, least: int) -> int:
    """`value` as an int, from numpy's too."""
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{function}: {name}: expected an integer >= {least}, got {value!r}")
    return value if isinstance(value, int) else int(value)


def positive_number(function: str, name: str, value: Any) -> float:
    if not isinstance(value, Real) or not 0 < value < math.inf:
        raise ValueError(f"{function}: {name}: expected a number > 0, got {value!r}")
    return float(value)


def values_are_free(t: Tensor) -> bool:
    """Whether a value check needs no device sync and no tracing: a real CPU tensor outside of compilation and function transforms."""
    if torch.compiler.is_compiling() or t.device.type != "cpu" or isinstance(t, FakeTensor):
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(t)


def check_values(function: str, name: str, t: Tensor, ok: Callable[[Tensor], Tensor], expected: str) -> None:
    """Raise ValueError unless `ok(t)` holds everywhere; skipped where it would cost a sync."""
    if not values_are_free(t) or t.numel() == 0:
        return
    with torch.no_grad():
        good = ok(t)
        if not bool(good.all()):
            raise ValueError(f"{function}: {name}: expected {expected}, got {t[~good].flatten()[0].item()}")


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 computes in float64; float32 and the half types in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def is_unit(t: Tensor) -> Tensor:
    """Which vectors of (..., d) have length 1, to an accuracy that normalising in the next smaller dtype reaches."""
    slack = {torch.float64: 1e-6, torch.float32: 1e-4}.get(t.dtype, 2e-2)
    return (t.norm(dim=-1) - 1).abs() < slack


def check_unit(function: str, name: str, t: Tensor) -> None:
    """Raise ValueError unless all vectors of (..., d) are unit; skipped where looking would cost a sync."""
    if not values_are_free(t) or t.numel() == 0:
        return
    with torch.no_grad():
        good = is_unit(t)
        if not bool(good.all()):
            raise ValueError(f"{function}: {name}: expected unit vectors, got one of length {t[~good][0].norm().item():.6g}")


def shares(function: str, name: str, weights: Tensor | None, points: Tensor) -> Tensor:
    """The weights of points (..., n, d) over their sums, or uniform ones: (..., n)."""
    *batch, n, _ = points.shape
    if weights is None:
        return points.new_full((n,), 1 / n).expand(*batch, n)
    check_values(function, name, weights, lambda w: (w >= 0) & w.isfinite(), "finite values >= 0")
    total = weights.sum(-1, dtype=points.dtype)
    check_values(function, name, total, lambda s: s > 0, "rows with a positive sum")
    check_values(function, name, total, torch.isfinite, "rows with a finite sum")
    try:
        weights = weights.to(points.dtype).expand(*batch, n)
    except RuntimeError:
        raise ValueError(f"{function}: {name}: expected a shape that broadcasts to {(*batch, n)}, got {tuple(weights.shape)}") from None
    return weights / weights.sum(-1, keepdim=True)
