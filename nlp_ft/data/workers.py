"""Processes that read, tokenize or collate for another: they end with it, and leave signals to it."""

import os
import signal
import threading
import time

import multiprocess

SECONDS_BETWEEN_LOOKS = 0.25
WATCH = "nlp_ft: ends with its parent"


def end_with_parent() -> None:
    """In a process of a pool of `datasets`: end when the one that started it is gone, even if it was killed.

    Called for each batch; elsewhere nothing happens. A worker waits for work for ever, and would keep its memory.
    """
    parent = multiprocess.parent_process()
    # No module-level state: `datasets` hashes what the mapped function refers to.
    if parent is not None and all(thread.name != WATCH for thread in threading.enumerate()):
        threading.Thread(target=_watch, args=(parent.pid,), name=WATCH, daemon=True).start()


def leave_signals_to_parent(worker: int) -> None:
    """For a DataLoader's workers: what is sent to the whole group must not end them while the step is finished."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
