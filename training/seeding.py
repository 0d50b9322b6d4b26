"""One integer seed per purpose, derived from the run's seed."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: object) -> int:
    """A 63-bit seed for `purpose`, e.g. derive(0, "epoch", 3).

    Stateless on purpose: the noise of epoch 3 does not depend on what was drawn before it, so a resumed run needs no saved generator.
    """
    text = ":".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
