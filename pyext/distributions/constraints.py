"""The support of every distribution here, and what their divergences check."""

from torch import Tensor
from torch.distributions import Distribution, constraints

from .._checks import is_unit


class _UnitSphere(constraints.Constraint):
    """Vectors of length 1, to the accuracy of their dtype."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return is_unit(value)

    def __repr__(self) -> str:
        return "UnitSphere()"


class _FiniteNonnegative(constraints.Constraint):
    def check(self, value: Tensor) -> Tensor:
        return (value >= 0) & value.isfinite()

    def __repr__(self) -> str:
        return "FiniteNonnegative()"


unit_sphere, finite_nonnegative = _UnitSphere(), _FiniteNonnegative()


def check_one_dimension(p: Distribution, q: Distribution) -> None:
    if p.event_shape != q.event_shape:
        raise ValueError(f"kl_divergence: expected one dimension, got {p.event_shape[0]} and {q.event_shape[0]}")
