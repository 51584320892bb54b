"""Writes and restores the checkpoints and best weights of one run; the main process writes."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import save_file

from nlp_ft.errors import DivergedError, RunFolderError
from nlp_ft.layerwise import UnfreezeState
from nlp_ft.screen import say, show
from nlp_ft.training import durable
from nlp_ft.training.agreement import require_equal_weights
from nlp_ft.training.build import RunParts
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
from nlp_ft.training.loop_state import LoopState
from nlp_ft.training.optimizer_state import optimizer_state
from nlp_ft.training.precision import precision_name
from nlp_ft.training.process_count import obstacle
from nlp_ft.training.run_folder import RunFolder, writing
from nlp_ft.training.whole_tensors import gathered, whole


class CheckpointManager:
    """Writes the last checkpoint and the best weights of a run, drops older ones, and restores them.

    Args:
        folder: the run folder.
        accelerator: the accelerator of the run; its main process writes.
        parts: the objects of the run.
    """

    def __init__(self, folder: RunFolder, accelerator: Accelerator, parts: RunParts) -> None:
        self.run_folder, self.accelerator, self.parts = folder, accelerator, parts
        self.model, self.optimizer, self.total_steps = parts.model, parts.optimizer, parts.settings.total_steps
        micro_batches = parts.recipe.training.gradient_accumulation_steps * accelerator.num_processes
        self.identity = identity_of(parts.task, self.model, parts.settings, micro_batches)
        self.environment = environment_of(accelerator.device, precision_name(accelerator), parts.task.libraries)
        self.folder = folder.checkpoints
        self.metrics_so_far = ""
        """Content of metrics.jsonl at the restored checkpoint."""
        self._best_hashes: dict[str, str] = {}

    def restore(self) -> LoopState:
        """Restore the last checkpoint and return its state; without one, return the state of a new run.

        Raises:
            RunFolderError: the checkpoint is damaged, or belongs to another run, other data or another model.
        """
        checkpoint = latest_checkpoint(self.folder)
        if checkpoint is None:
            if self.run_folder.resume:
                say(f"--resume: {self.run_folder.partial} has no checkpoint, so training begins at step 0")
            return LoopState()
        saved = read_state(checkpoint)
        state = self._state_of(checkpoint, saved)
        self._best_hashes = saved["best_files"]
        for name, expected in self._best_hashes.items():
            require_unchanged(self.folder / name, expected)
        load_checkpoint(checkpoint, saved, self.model, self.optimizer)
        if self.accelerator.scaler is not None and saved.get("scaler"):
            # In float16, which updates are skipped depends on the scale that the steps so far have found.
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        self.metrics_so_far = (checkpoint / METRICS).read_text(encoding="utf-8")
        say(f"resuming after step {state.global_step} of {self.total_steps}")
        if different := changes(saved["environment"], self.environment):
            show(
                f"warning: this run was begun in another environment ({'; '.join(different)}); it goes on with the "
                "same steps and data, but its weights will equal those of an unbroken run to rounding, not to the bit"
            )
        return state

    def save(self, state: LoopState) -> None:
        """Write a checkpoint if all processes hold equal weights; collective. Raises: TrainingError, RunFolderError."""
        require_equal_weights(self.accelerator, self.model)
        weights, (moments, scalars) = model_tensors(self.model), optimizer_state(self.optimizer)
        weights, moments = gathered(weights, self.accelerator), gathered(moments, self.accelerator)
        if not self.accelerator.is_main_process:
            return
        kept = {self._best_file(step).name for step in (state.best_step, state.best_step_of_phase)}
        self._best_hashes = {name: value for name, value in self._best_hashes.items() if name in kept}
        saved = {
            "run_id": self.run_folder.run_id,
            "identity": self.identity,
            "num_processes": self.accelerator.num_processes,
            "environment": self.environment,
            "loop": asdict(state),
            "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
            "best_files": self._best_hashes,
        }
        metrics = self.run_folder.partial / METRICS
        with writing(self.run_folder.final):
            self.run_folder.require_own()
            save_checkpoint(
                self.folder,
                state.global_step,
                weights,
                moments,
                scalars,
                saved,
                metrics.read_text(encoding="utf-8") if metrics.exists() else "",
            )
            for file in self.folder.glob("best-*.safetensors"):
                if file.name not in kept:
                    file.unlink()

    def save_best(self, step: int) -> None:
        """Write the current weights as the best of `step`; collective. Raises: RunFolderError."""
        weights = gathered(model_tensors(self.model), self.accelerator)
        if not self.accelerator.is_main_process:
            return
        file = self._best_file(step)
        with writing(self.run_folder.final):
            self.run_folder.require_own()
            file.parent.mkdir(exist_ok=True)
            unnamed = file.with_suffix(".writing")
            save_file(weights, unnamed)
            self._best_hashes[file.name] = durable.content_hash(unnamed)
            durable.sync(unnamed)
            durable.rename(unnamed, file)

    def load_best(self, step: int) -> None:
        """Load the best weights, saved at `step`, on every process. Raises: RunFolderError: they are damaged."""
        self.accelerator.wait_for_everyone()
        file = self._best_file(step)
        # One check is enough: all processes read this file, and `require_equal_weights` compares what they read.
        if self.accelerator.is_main_process:
            require_unchanged(file, self._best_hashes.get(file.name))
        load_model_tensors(file, self.model)

    def load_kept(self, state: LoopState) -> None:
        """Load the weights that the run keeps: the best by its metric, or the last if it has none or it was NaN.

        Raises:
            DivergedError: they are no numbers, as after a last update whose gradient was none; collective.
        """
        metric, step = self.parts.settings.metric, state.global_step
        if metric is not None and self.parts.recipe.training.keep == "best":
            if state.best_value is None:
                show(f"warning: {metric} was NaN at each evaluation; the last weights are kept")
            else:
                step = state.best_step
                self.load_best(step)
        if not all(bool(whole(parameter.detach()).isfinite().all()) for parameter in self.model.parameters()):
            raise DivergedError(
                f"the weights are NaN or infinite after step {step}; try a lower optimizer.lr, a longer "
                "schedule.warmup, or training.precision: fp32"
            )

    def _state_of(self, checkpoint: Path, saved: dict[str, Any]) -> LoopState:
        """Read the state of the loop after checking that it belongs to this run."""
        try:
            loop = saved["loop"]
            state = LoopState(**{**loop, "unfreeze": UnfreezeState(**loop["unfreeze"])})
            run_id, identity, num_processes = saved["run_id"], saved["identity"], saved["num_processes"]
        except (KeyError, TypeError) as error:
            raise RunFolderError(f"{checkpoint} is of another version of nlp_ft: {error}; {ADVICE}") from None
        if run_id != self.run_folder.run_id:
            raise RunFolderError(f"{checkpoint} is of another run than {self.run_folder.partial}; {ADVICE}")
        refuse_other_identity(self.run_folder.partial, identity, self.identity)
        self._allow_processes(num_processes)
        if state.global_step != saved["step"] or not 0 < state.global_step <= self.total_steps:
            raise RunFolderError(
                f"{checkpoint} says that step {state.global_step} of {self.total_steps} is done; {ADVICE}"
            )
        return state

    def _allow_processes(self, before: int) -> None:
        """Allow another number of processes if only rounding will differ. Raises: RunFolderError."""
        now = self.accelerator.num_processes
        if before == now:
            return
        if reason := obstacle(self.parts.task, self.model):
            raise RunFolderError(
                f"--resume: {self.run_folder.partial} was begun on {before} process(es), and its steps would differ "
                f"on {now}: {reason}; go on with {before}, or pass --overwrite to begin anew"
            )
        show(f"warning: the run was begun on {before} process(es) and goes on with {now}: the same steps, to rounding")

    def _best_file(self, step: int) -> Path:
        return self.folder / f"best-{step:08d}.safetensors"
