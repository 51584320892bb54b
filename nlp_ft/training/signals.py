"""Handles SIGTERM, Ctrl-C and SIGHUP: during training the run finishes its step and writes a checkpoint, else it ends.

A cluster that takes a machine back sends SIGTERM and waits; a terminal that goes, as with a lost connection, sends
SIGHUP, and what is printed from then on goes nowhere. After each step, all processes of a run agree whether to
stop, because the signal may not have reached all of them and none may wait for one that has gone.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch import distributed

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SECONDS_OF_ONE_STOP = 2.0
"""Time in which a terminal and a launcher may both report one Ctrl-C; a later signal is a new one and ends at once."""


class StopSignals:
    """Notes the first signal that asks the run to stop; it handles signals only inside `watched`."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.received = 0
        self._time_received = 0.0
        self._waits = False
        self._process = os.getpid()
        self._group: Any = None

    @contextmanager
    def watched(self) -> Iterator["StopSignals"]:
        """Let these signals raise KeyboardInterrupt inside; outside the main thread this has no effect."""
        # Only the main process has something to tidy up; the others may wait in code where Python handles no signal.
        with self._handled() if self.accelerator.is_main_process else _unchanged():
            yield self

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note a signal inside; a second one, two seconds later or more, raises KeyboardInterrupt."""
        self._waits = True
        try:
            with _unchanged() if self.accelerator.is_main_process else self._handled():
                yield
        finally:
            self._waits = False

    def asked(self) -> bool:
        """Return whether the run should stop now, the same on all processes; collective."""
        if self.accelerator.num_processes > 1:
            if self._group is None and distributed.get_backend() != "gloo":
                # On the CPU, so that asking does not wait for the accelerator to finish its work.
                self._group = distributed.new_group(backend="gloo")
            told = torch.tensor(self.received)
            distributed.all_reduce(told, distributed.ReduceOp.MAX, group=self._group)
            self.received = int(told)
        return self.received != 0

    @contextmanager
    def _handled(self) -> Iterator[None]:
        before = {}
        if threading.current_thread() is threading.main_thread():
            # An ignored signal stays ignored: a shell sets that for Ctrl-C when it starts a program in the background,
            # and nohup for SIGHUP.
            before = {number: signal.getsignal(number) for number in STOPPING}
            before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
        for number in before:
            signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked child has inherited this handler; its parent decides
            if number != signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if number == signal.SIGHUP:
            _leave_lost_terminal()
        is_first = not self.received
        if is_first:
            self.received, self._time_received = number, time.monotonic()
        if not self._waits or (not is_first and time.monotonic() - self._time_received > SECONDS_OF_ONE_STOP):
            raise KeyboardInterrupt


def _leave_lost_terminal() -> None:
    """Let stdout and stderr go nowhere where their terminal is gone: printing to it would be an error."""
    for descriptor in (1, 2):
        watch = select.poll()
        watch.register(descriptor, select.POLLHUP)
        if watch.poll(0):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


@contextmanager
def _unchanged() -> Iterator[None]:
    yield
