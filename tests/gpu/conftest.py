"""What the tests on a device share."""

import pytest
import torch

collect_ignore_glob = [] if torch.cuda.is_available() else ["test_*.py"]


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """As everywhere, `empty` is NaN; but a sum of torch's own that has no deterministic form on a GPU only warns."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
