"""The support of every distribution here."""

from torch import Tensor
from torch.distributions import constraints

from .._checks import is_unit


class _UnitSphere(constraints.Constraint):
    """Vectors of length 1, to the accuracy of their dtype."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return is_unit(value)


unit_sphere = _UnitSphere()
