"""Runs a script of scripts/examples inside a process that others may share, and notes the weights after each update."""

import hashlib
import runpy
import sys
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

FOLDER = Path(__file__).parents[2] / "scripts" / "examples"


def run_example(name: str, *arguments: str) -> list[str]:
    """A hash of all weights after each update, whether they train or not."""
    hashes: list[str] = []

    def note(optimizer: torch.optim.Optimizer, *unused: Any) -> None:
        digest = hashlib.sha256()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                digest.update(parameter.detach().numpy().tobytes())
        hashes.append(digest.hexdigest())

    handle = register_optimizer_step_post_hook(note)
    sys.argv = [name, *arguments]
    try:
        runpy.run_path(str(FOLDER / name), run_name="__main__")
    finally:
        handle.remove()
    return hashes
