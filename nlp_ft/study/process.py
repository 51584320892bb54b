"""Starts the training of a recipe in a process of its own. Its imports are light: a worker of Ray needs no more."""

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from nlp_ft.errors import DivergedError, FolderInUseError
from nlp_ft.exits import exit_with, fail
from nlp_ft.screen import at_level

SECONDS_BETWEEN_LOOKS = 0.2
TAKEN, DIVERGED = 75, 76
"""Exit codes of a process that found another one in its run folder, and of one whose loss became NaN."""
STOPPING = (signal.SIGINT, signal.SIGTERM)
PRELOADED = ["nlp_ft.training.run", "nlp_ft.tasks.class_scores"]
"""Modules that the server of processes imports once."""


class Running(Protocol):
    """A process that trains a cell."""

    def poll(self) -> int | None:
        """Return its exit code; None while it runs."""
        ...

    def terminate(self) -> None:
        """Ask it to write a checkpoint and end."""
        ...

    def wait(self) -> int:
        """Wait for its end."""
        ...


Start = Callable[[Path, Path], Running]
"""Starts the training of a recipe file; what it prints goes to the second file."""


class _Child:
    """A process of multiprocessing as `Running`."""

    def __init__(self, process: BaseProcess) -> None:
        self.process = process

    def poll(self) -> int | None:
        return self.process.exitcode

    def terminate(self) -> None:
        self.process.terminate()

    def wait(self) -> int:
        self.process.join()
        return self.process.exitcode or 0


def at_a_time(jobs: int) -> Start:
    """Return what starts one of so many processes that share the threads of this one; OMP_NUM_THREADS is for each."""
    if "OMP_NUM_THREADS" in os.environ:
        return start_process
    import torch

    return partial(start_process, threads=max(1, torch.get_num_threads() // jobs))


def start_process(recipe: Path, log: Path, threads: int | None = None) -> Running:
    """Start `nlp-ft train RECIPE --resume --quiet` in a process whose memory and time are its own.

    It is forked from a server that has imported the libraries, which takes seconds, and has done nothing else.

    Args:
        recipe: the recipe file.
        log: takes what it prints.
        threads: how many it computes with; None leaves that to PyTorch.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_train, args=(str(recipe), str(log), os.getcwd(), dict(os.environ), threads))
    # The server inherits what is blocked here. Else Ctrl-C in a terminal, which all processes get, ends it while it
    # imports, and the comparison with it. The tracker, which unblocks the signals, has to be there before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _Child(process)


def _train(recipe: str, log: str, folder: str, environment: dict[str, str], threads: int | None) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    # The server may have been started in another folder, and with another environment.
    os.environ.update(environment)
    os.chdir(folder)
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with at_level("quiet"):
        exit_with(lambda: _trained(recipe))


def _trained(recipe: str) -> int:
    from nlp_ft.recipe.loader import load_recipe
    from nlp_ft.training.run import train

    try:
        train(load_recipe(recipe), resume=True)
    except FolderInUseError:
        return TAKEN
    except DivergedError as error:
        fail(str(error))
        return DIVERGED
    return 0


def _end_with_parent() -> None:
    """Write a checkpoint and end when the comparison is gone: killed, it cannot ask for that."""
    parent = parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
