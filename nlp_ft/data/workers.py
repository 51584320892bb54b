"""Worker processes that read, tokenize or collate: how many cores there are for them, and how they end."""

import os
import signal
import threading
import time

import multiprocess

SECONDS_BETWEEN_LOOKS = 0.25
WATCH = "nlp_ft: ends with its parent"


def available_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """Make a worker of a `datasets` pool end when the process that started it is gone, even if that was killed.

    A worker calls this for each batch; in any other process it does nothing. Without it, a worker would wait for work
    for ever and keep its memory.
    """
    parent = multiprocess.parent_process()
    # No module-level state: `datasets` hashes what the mapped function refers to.
    if parent is not None and all(thread.name != WATCH for thread in threading.enumerate()):
        threading.Thread(target=_watch, args=(parent.pid,), name=WATCH, daemon=True).start()


def leave_signals_to_parent(worker: int) -> None:
    """Make a DataLoader's worker ignore interrupts, so that it lives while the parent finishes its step.

    An interrupt at the keyboard goes to every process of the group. Used as `worker_init_fn`.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
