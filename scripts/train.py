"""Train a recipe on one or several processes: accelerate launch scripts/train.py RECIPE.yaml [key=value ...]."""

import os
import sys
from typing import NoReturn

import psutil

from nlp_ft.cli import main
from nlp_ft.exits import exit_with


def cpu_processes_not_started() -> int:
    """N of `accelerate launch --cpu --num_processes N` when this is the only process that it started, else 0.

    Without MPI, Accelerate (1.15) starts one process then, and tells it nothing of the others: a run on half the
    batch, in silence. The number stands in the launcher's command line alone.
    """
    words = [part for word in psutil.Process(os.getppid()).cmdline() for part in word.split("=", 1)]
    flags = ("--num_processes", "--num-processes")
    if "WORLD_SIZE" in os.environ or "--cpu" not in words or not any(flag in words for flag in flags):
        return 0
    number = int(words[min(words.index(flag) for flag in flags if flag in words) + 1])
    return number if number > 1 else 0


def start() -> NoReturn:
    """All processes, where the launcher started one of several; the training, in each of them."""
    if number := cpu_processes_not_started():
        print(f"accelerate launch --cpu started one process of {number}; starting all with torchrun", file=sys.stderr)
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
        os.execv(sys.executable, [sys.executable, *launcher, *sys.argv])  # noqa: S606
    main(["train", *sys.argv[1:]])


if __name__ == "__main__":
    exit_with(start)
