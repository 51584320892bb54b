"""Ends a study on Ctrl-C or SIGTERM: it says what is kept, and no process that it has started is left behind."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from nlp_ft.errors import Interrupted

STOPPING = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """The signal that has asked a study to end; 0 before there is one."""

    def __init__(self) -> None:
        self.received = 0
        self._is_deferred = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note a signal inside, so that none comes between the start of a process and the note of it."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has been noted."""
        if self.received:
            raise KeyboardInterrupt

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Note a signal, and raise KeyboardInterrupt unless it is deferred."""
        self.received = self.received or number
        if not self._is_deferred:
            raise KeyboardInterrupt


@contextmanager
def stoppable(folder: Path) -> Iterator[Stop]:
    """Handle Ctrl-C and SIGTERM inside the block; outside the main thread neither arrives. Raises: Interrupted."""
    stop, before = Stop(), {}
    if threading.current_thread() is threading.main_thread():
        # An ignored signal stays ignored: a shell sets that for Ctrl-C when it starts a program in the background.
        before = {number: signal.getsignal(number) for number in STOPPING}
        before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, stop.on_signal)
    try:
        yield stop
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; what is finished is kept in {folder}, and the same command goes on from there",
            128 + (stop.received or signal.SIGINT),
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
