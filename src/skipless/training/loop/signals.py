"""Ctrl-C and SIGTERM as requests to stop, which the loop honours between two steps."""

import signal
import threading
from types import FrameType


class TrainingStopped(SystemExit):
    """Training was interrupted after its checkpoint had been written; the process ends with the signal's exit code."""


class StopRequest:
    """A context that records the first SIGINT or SIGTERM; the second one has its usual effect.

    Attributes:
        signal: the signal received, if any.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._handlers: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._handlers.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self.__exit__()
