"""Shares a run folder among the processes of a run: the main process claims and makes it, and all must see it."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from nlp_ft.errors import Interrupted, RunFolderError
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import recipe_to_dict
from nlp_ft.screen import show
from nlp_ft.training import lock
from nlp_ft.training.agreement import errors_of_all
from nlp_ft.training.checkpoint import step_of_latest
from nlp_ft.training.run_folder import RunFolder, writing
from nlp_ft.training.signals import StopSignals

COPIES_ON_DISK = 8
"""Disk space of a run, in copies of its weights.

Two checkpoints of three copies each (weights and two moments of the optimizer), the best weights, and the result.
"""


@contextmanager
def claimed(folder: RunFolder, recipe: Recipe, accelerator: Accelerator) -> Iterator[dict[str, Any] | None]:
    """Keep other runs out of the folder inside; yield the summary if the run to resume is finished. Collective.

    Raises:
        RunFolderError: the folder is in use, or was begun with another recipe.
    """
    with ExitStack() as held:
        finished = None
        with errors_of_all(accelerator):
            if accelerator.is_main_process:
                folder.check()
                held.enter_context(lock.held(folder.final))
                with writing(folder.final):
                    finished = folder.claim(recipe_to_dict(recipe))
                if finished is not None:
                    show(f"{folder.final} was already finished; only its name or some tidying was left to do")
        [finished, *_] = gather_object([finished])
        try:
            yield finished
        except BaseException:
            if accelerator.is_main_process:
                folder.discard_if_useless()
            raise


def create_folder(folder: RunFolder, recipe: Recipe, accelerator: Accelerator, model: torch.nn.Module) -> None:
    """Make the `.partial` folder; collective.

    Raises:
        RunFolderError: the disk has too little room for the run, or a process does not see the folder.
    """
    parameter_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    with errors_of_all(accelerator):
        if accelerator.is_main_process:
            with writing(folder.final):
                folder.create(recipe_to_dict(recipe), COPIES_ON_DISK * parameter_bytes)
    if not all(gather_object([folder.partial.exists()])):
        raise RunFolderError(
            f"output_dir: {folder.final} must be on a disk that all machines see: some do not find "
            f"{folder.partial}, which the first one made"
        )
    # All processes need the id: each compares it with that of the checkpoint.
    [folder.run_id, *_] = gather_object([folder.run_id])


@contextmanager
def interruptions_explained(folder: RunFolder, signals: StopSignals) -> Iterator[None]:
    """Turn an interruption into a message that names the kept checkpoint. Raises: Interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        number, step = signals.received, step_of_latest(folder.checkpoints)
        kept = (
            "no checkpoint had been written, so there is nothing to resume"
            if step is None
            else f"the checkpoint after step {step} is kept in {folder.partial}; pass --resume to go on from there"
        )
        number = number or signal.SIGINT
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        raise Interrupted(f"stopped by {name}; {kept}", 128 + number) from None
