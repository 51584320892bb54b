"""Trains a recipe on the workers of Ray Train, which goes on from the last checkpoint after a worker is lost.

    trainer = TorchTrainer(
        train_loop(load_recipe("mine.yaml")),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=3)),
    )
    result = trainer.fit()

Ray starts the workers and joins them. The run wraps its model itself, and anew whenever other layers train, so
`ray.train.torch.prepare_model` has no place here.
"""

import json
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ray.train import Checkpoint, get_context, report
from torch.distributed import broadcast_object_list

from nlp_ft.errors import MachineError
from nlp_ft.recipe import Recipe
from nlp_ft.training.run import train
from nlp_ft.training.run_folder import SUMMARY, RunFolder, run_id_of

__all__ = ["train_loop"]


def train_loop(recipe: Recipe) -> Callable[[], Any]:
    """Make the training function of a `TorchTrainer`.

    All machines must see data, model and `output_dir` under the paths of the machine that calls this; relative ones
    begin in its current folder. An unfinished run in `output_dir` is continued.

    Args:
        recipe: the settings of the run.

    Returns:
        A function that trains, reports scores and run folder to Ray, and returns the content of summary.json, which
        Ray gives back as `Result.return_value`.

    Raises:
        RunFolderError: `output_dir` holds a finished run already, or cannot be written.
    """
    RunFolder(recipe.output_dir, resume=True)  # checks it
    return partial(_train_on_worker, recipe, os.getcwd())


def _train_on_worker(recipe: Recipe, folder: str) -> dict[str, Any]:
    """Train as one of the workers. Raises: NlpFtError."""
    try:
        os.chdir(folder)  # Ray starts workers in folders of their own
    except OSError:
        raise MachineError(
            f"{socket.gethostname()} does not see {folder}; data and output_dir must be on a disk that all machines "
            "see under the same path"
        ) from None
    output_dir = Path(recipe.output_dir).absolute()
    summary = _finished(output_dir) or train(recipe, resume=True)
    is_first = get_context().get_world_rank() == 0
    report(summary["metrics"], Checkpoint(output_dir) if is_first else None)
    return summary


def _finished(output_dir: Path) -> dict[str, Any] | None:
    """Read the summary of the run if it was finished before a worker was lost; collective."""
    is_finished = (output_dir / SUMMARY).exists() and run_id_of(output_dir) is None
    found = [json.loads((output_dir / SUMMARY).read_text(encoding="utf-8")) if is_finished else None]
    # The first worker decides, because a disk may show the same files to others later.
    broadcast_object_list(found)
    return found[0]
