"""The checkpoints and best weights of one run, written by the main process."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from nlp_ft.errors import RunFolderError
from nlp_ft.layerwise import UnfreezeState
from nlp_ft.models.vocabulary import UsedVocabulary
from nlp_ft.training import durable
from nlp_ft.training.agreement import require_equal_weights
from nlp_ft.training.checkpoint import (
    ADVICE,
    METRICS,
    latest_checkpoint,
    load_checkpoint,
    load_model_tensors,
    model_tensors,
    read_state,
    require_unchanged,
    save_checkpoint,
)
from nlp_ft.training.identity import changes, environment_of, identity_of, refuse_other_identity
from nlp_ft.training.loop import LoopState
from nlp_ft.training.parts import Parts
from nlp_ft.training.run_folder import writing


class Keeper:
    """Keeps the last checkpoint and the best weights that it knows of."""

    def __init__(self, parts: Parts, vocabulary: UsedVocabulary | None = None) -> None:
        self.parts = parts
        self.identity = identity_of(parts, vocabulary)
        self.environment = environment_of(parts)
        self.folder = parts.folder.checkpoints
        self.metrics_so_far = ""
        """What metrics.jsonl held at the checkpoint that the run goes on from."""
        self._best_hashes: dict[str, str] = {}

    def restore(self) -> LoopState:
        """The state of the last checkpoint, its weights put in place; without one, that of the beginning.

        Raises:
            RunFolderError: the checkpoint is damaged, or of another run, other data or another model.
        """
        checkpoint = latest_checkpoint(self.folder)
        say = self.parts.accelerator.print
        if checkpoint is None:
            if self.parts.folder.resume:
                say(f"--resume: {self.parts.folder.partial} has no checkpoint, so training begins at step 0")
            return LoopState()
        saved = read_state(checkpoint)
        state = self._state_of(checkpoint, saved)
        self._best_hashes = saved["best_files"]
        for name, expected in self._best_hashes.items():
            require_unchanged(self.folder / name, expected)
        load_checkpoint(checkpoint, saved, self.parts.model, self.parts.optimizer)
        self.metrics_so_far = (checkpoint / METRICS).read_text(encoding="utf-8")
        say(f"resuming after step {state.global_step} of {self.parts.plan.total_steps}")
        if different := changes(saved["environment"], self.environment):
            say(
                f"warning: this run was begun elsewhere ({'; '.join(different)}); it goes on with the same steps and "
                "data, but its weights will equal those of an unbroken run to rounding, not to the bit"
            )
        return state

    def save(self, state: LoopState) -> None:
        """Write a checkpoint, after proof that all processes agree. Raises: TrainingError, RunFolderError."""
        require_equal_weights(self.parts.accelerator, self.parts.model)
        if not self.parts.accelerator.is_main_process:
            return
        kept = {self._best_file(step).name for step in (state.best_step, state.best_step_of_phase)}
        self._best_hashes = {name: value for name, value in self._best_hashes.items() if name in kept}
        saved = {
            "run_id": self.parts.folder.run_id,
            "identity": self.identity,
            "environment": self.environment,
            "loop": asdict(state),
            "best_files": self._best_hashes,
        }
        metrics = self.parts.folder.partial / METRICS
        with writing(self.parts.folder.final):
            self.parts.folder.require_own()
            save_checkpoint(
                self.folder,
                state.global_step,
                self.parts.model,
                self.parts.optimizer,
                saved,
                metrics.read_text(encoding="utf-8") if metrics.exists() else "",
            )
            for file in self.folder.glob("best-*.safetensors"):
                if file.name not in kept:
                    file.unlink()

    def save_best(self, step: int) -> None:
        """Keep the weights as they are now. Raises: RunFolderError."""
        if not self.parts.accelerator.is_main_process:
            return
        file = self._best_file(step)
        with writing(self.parts.folder.final):
            self.parts.folder.require_own()
            file.parent.mkdir(exist_ok=True)
            unnamed = file.with_suffix(".writing")
            save_file(model_tensors(self.parts.model), unnamed)
            self._best_hashes[file.name] = durable.content_hash(unnamed)
            durable.sync(unnamed)
            durable.rename(unnamed, file)

    def load_best(self, step: int) -> None:
        """Put the best weights back in place, on every process. Raises: RunFolderError: they are damaged."""
        self.parts.accelerator.wait_for_everyone()
        file = self._best_file(step)
        # The others see the same file, and `require_equal_weights` whether they read the same.
        if self.parts.accelerator.is_main_process:
            require_unchanged(file, self._best_hashes.get(file.name))
        load_model_tensors(file, self.parts.model)

    def _state_of(self, checkpoint: Path, saved: dict[str, Any]) -> LoopState:
        """The state of the loop, once it is known to be of this run."""
        try:
            loop = saved["loop"]
            state = LoopState(**{**loop, "unfreeze": UnfreezeState(**loop["unfreeze"])})
            run_id, identity = saved["run_id"], saved["identity"]
        except (KeyError, TypeError) as error:
            raise RunFolderError(f"{checkpoint} is of another version of nlp_ft: {error}; {ADVICE}") from None
        if run_id != self.parts.folder.run_id:
            raise RunFolderError(f"{checkpoint} is of another run than {self.parts.folder.partial}; {ADVICE}")
        refuse_other_identity(self.parts.folder.partial, identity, self.identity)
        if state.global_step != saved["step"] or not 0 < state.global_step <= self.parts.plan.total_steps:
            raise RunFolderError(
                f"{checkpoint} says that step {state.global_step} of {self.parts.plan.total_steps} is done; {ADVICE}"
            )
        return state

    def _best_file(self, step: int) -> Path:
        return self.folder / f"best-{step:08d}.safetensors"
