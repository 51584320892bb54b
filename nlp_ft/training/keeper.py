"""The checkpoints and best weights of one run, written by the main process."""

from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from nlp_ft.errors import RunFolderError
from nlp_ft.layerwise import UnfreezeState
from nlp_ft.models.vocabulary import UsedVocabulary
from nlp_ft.training.agreement import require_equal_weights
from nlp_ft.training.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    load_model_tensors,
    model_tensors,
    read_state,
    save_checkpoint,
)
from nlp_ft.training.loop import LoopState
from nlp_ft.training.parts import Parts
from nlp_ft.training.run_folder import writing
from nlp_ft.training.task import Task


class Keeper:
    """Keeps the last checkpoint and the best weights that it knows of."""

    def __init__(self, parts: Parts, vocabulary: UsedVocabulary | None = None) -> None:
        self.parts = parts
        self.data_identity = data_identity(parts.task, vocabulary)
        self.folder = parts.folder.checkpoints

    def restore(self) -> LoopState:
        """The state of the last checkpoint, its weights put in place; without one, that of the beginning.

        Raises:
            RunFolderError: the checkpoint is of other data or of another model.
        """
        checkpoint = latest_checkpoint(self.folder)
        if checkpoint is None:
            return LoopState()
        saved = read_state(checkpoint)
        if saved["data"] != self.data_identity:
            raise RunFolderError(f"--resume: the data are not those that {self.folder.parent} was begun with")
        load_checkpoint(checkpoint, self.parts.model, self.parts.optimizer)
        state = LoopState(**{**saved["loop"], "unfreeze": UnfreezeState(**saved["loop"]["unfreeze"])})
        self.parts.accelerator.print(f"resuming after step {state.global_step} of {self.parts.plan.total_steps}")
        return state

    def save(self, state: LoopState) -> None:
        """Write a checkpoint, after proof that all processes agree. Raises: TrainingError, RunFolderError."""
        require_equal_weights(self.parts.accelerator, self.parts.model)
        if not self.parts.accelerator.is_main_process:
            return
        saved = {"loop": asdict(state), "data": self.data_identity}
        with writing(self.parts.folder.final):
            save_checkpoint(self.folder, state.global_step, self.parts.model, self.parts.optimizer, saved)
            kept = {self._best_file(state.best_step), self._best_file(state.best_step_of_phase)}
            for file in set(self.folder.glob("best-*.safetensors")) - kept:
                file.unlink()

    def save_best(self, step: int) -> None:
        """Keep the weights as they are now. Raises: RunFolderError."""
        if not self.parts.accelerator.is_main_process:
            return
        file = self._best_file(step)
        with writing(self.parts.folder.final):
            file.parent.mkdir(exist_ok=True)
            save_file(model_tensors(self.parts.model), file.with_suffix(".writing"))
            file.with_suffix(".writing").rename(file)

    def load_best(self, step: int) -> None:
        """Put the best weights back in place, on every process."""
        self.parts.accelerator.wait_for_everyone()
        load_model_tensors(self._best_file(step), self.parts.model)

    def _best_file(self, step: int) -> Path:
        return self.folder / f"best-{step:08d}.safetensors"


def data_identity(task: Task, vocabulary: UsedVocabulary | None = None) -> str:
    """A fingerprint of the inputs and labels of train, in their order, and of the tokens in use."""
    digest = blake2b(digest_size=16)
    for array in (task.train_hashes(), task.data.labels("train")):
        digest.update(np.ascontiguousarray(array).data)
    if vocabulary:
        digest.update(vocabulary.used.numpy().data)
    return digest.hexdigest()
