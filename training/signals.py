"""SIGTERM and SIGUSR1, by which clusters announce the end of a job."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Signals:
    """Which signal has come, as a number; 0 for none."""

    came = 0

    def note(self, number: int, frame: FrameType | None) -> None:
        self.came = number


@contextmanager
def noted() -> Iterator[Signals]:
    """Inside, the signals are noted and do nothing else; outside the main thread, which alone may say so, they act as ever."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.signal(number, signals.note) for number in SIGNALS}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
