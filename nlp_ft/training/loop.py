"""The training loop: it trains a model on effective batches. It receives objects and does not know the recipe.

One step: seed the random numbers from (seed, step, process), set the learning rates, accumulate the gradient of the
mean over the effective batch, clip, update. Everything is a function of the step, so a resumed run equals an unbroken
one.
"""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from accelerate import Accelerator

from nlp_ft.errors import DivergedError
from nlp_ft.layerwise import Unfreezer
from nlp_ft.layerwise.lr_schedules import rates_by_name
from nlp_ft.training.agreement import share_statistics
from nlp_ft.training.features.cache import FeatureCache, logits_of
from nlp_ft.training.loop_state import Batch, EpochBatches, LoopHooks, LoopSettings, LoopState, Loss
from nlp_ft.training.progress import Progress, shown_first
from nlp_ft.training.recorder import Recorder
from nlp_ft.training.row_losses import RowLosses
from nlp_ft.training.wrapping import rewrapped, wrapped

STEPS_BETWEEN_RECORDS = 10


class Loop:
    """Trains `model` in place until the settings or early stopping end it.

    Args:
        accelerator: the accelerator of the run; its own gradient accumulation is not used.
        model: the model, without wrappers; the loop wraps it, and wraps it again when other layers begin to train.
        optimizer: the optimizer of the model; its groups have `initial_lr`.
        unfreezer: decides at each step which layers train, and at which learning rates.
        loss: computes the sum and the divisor of the loss for a part of an effective batch.
        batches: streams the batches of an epoch.
        settings: lengths and limits of the run.
        hooks: functions that the loop calls.
        state: the state to begin with; changed in place.
        features: the cached outputs of the frozen blocks, for batches with a `row`; None computes them.
        recorder: looks at how the layers train; None records nothing of it.
        row_losses: keeps the losses of rows of train; None keeps none.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        unfreezer: Unfreezer,
        loss: Loss,
        batches: EpochBatches,
        settings: LoopSettings,
        hooks: LoopHooks,
        state: LoopState,
        features: FeatureCache | None = None,
        recorder: Recorder | None = None,
        row_losses: RowLosses | None = None,
    ) -> None:
        self.accelerator = accelerator
        self.model, self.optimizer = wrapped(accelerator, model, optimizer)
        self.unfreezer = unfreezer
        self.loss = loss
        self.batches = batches
        self.settings = settings
        self.hooks = hooks
        self.state = state
        self.features = features
        self.recorder = recorder or Recorder({}, settings.total_steps, is_on=False)
        self.row_losses = row_losses
        self.trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.progress = Progress(
            settings.total_steps,
            settings.steps_per_epoch,
            state.global_step,
            len(unfreezer.plan.schedule.phases),
            accelerator.is_main_process,
        )
        self.was_stopped = False
        """Whether the run was asked to end before its last step; a checkpoint has then been written."""
        self._losses: list[torch.Tensor] = []

    def run(self) -> None:
        """Train to the end.

        Raises:
            DivergedError: the loss is NaN or infinite.
            KeyboardInterrupt: `asked_to_stop` returned True; a checkpoint has been written.
        """
        self.model.train()
        try:
            while not self._ends_here():
                epoch, first_batch = divmod(self.state.global_step, self.settings.steps_per_epoch)
                self._run_epoch(epoch, first_batch)
            if not self.was_stopped:
                self._name_untrained()
        finally:
            self.progress.close()
        if self.was_stopped:
            raise KeyboardInterrupt

    def _is_over(self) -> bool:
        return self.state.stopped_early or self.state.global_step >= self.settings.total_steps

    def _ends_here(self) -> bool:
        return self._is_over() or self.was_stopped

    def _run_epoch(self, epoch: int, first_batch: int) -> None:
        batches = self.batches(epoch, first_batch)
        while not self._ends_here():
            started = time.perf_counter()
            self.recorder.begin(self.state.global_step)
            item = next(batches, None)
            if item is None:
                return
            self.recorder.passed("data")
            num_rows, micro_batches = item
            self._losses.append(self._step(micro_batches))
            self.state.global_step += 1
            self.state.train_examples += num_rows
            self.state.train_seconds += time.perf_counter() - started
            self._after_step()

    def _step(self, micro_batches: Sequence[Batch]) -> torch.Tensor:
        """Update the weights once; return the mean loss of this process's share times the number of processes."""
        self._begin_step()
        accelerator = self.accelerator
        seed = step_seed(self.settings.seed, self.state.global_step, accelerator.process_index)
        if accelerator.device.type == "cpu":
            # On a CPU, torch.manual_seed would be slow: it records the call stack, in case CUDA starts later.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        micro_batches = [
            {key: value.to(accelerator.device, non_blocking=True) for key, value in batch.items()}
            for batch in micro_batches
        ]
        divisor = torch.stack([self.loss.weight(batch["labels"]) for batch in micro_batches]).sum()
        if accelerator.num_processes > 1:
            divisor = accelerator.reduce(divisor, "sum")
            # DistributedDataParallel averages the gradients over the processes, but their sum is needed.
            divisor = divisor / accelerator.num_processes
        # A batch of words that the tokenizer drops has nothing to learn: its loss is 0, not 0 / 0.
        divisor = torch.where(divisor > 0, divisor, 1.0)
        total = torch.zeros((), device=accelerator.device)
        for i, batch in enumerate(micro_batches):
            is_last = i == len(micro_batches) - 1
            with nullcontext() if is_last else accelerator.no_sync(self.model):
                logits = logits_of(self.model, batch, "train", self.features)
                loss = self.loss.total(logits, batch["labels"]) / divisor
                self.recorder.passed("forward")
                if self.row_losses:
                    self.row_losses.note(self.state.global_step, batch, logits, self.loss)
                accelerator.backward(loss)
                total += loss.detach()
                self.recorder.passed("backward")
        self.recorder.before_update(accelerator.scaler.get_scale() if accelerator.scaler else 1.0)
        if self.settings.max_grad_norm is not None:
            accelerator.clip_grad_norm_(self.trainable, self.settings.max_grad_norm)
            self.recorder.passed("clipping")
        self.optimizer.step()
        self.recorder.passed("update")
        record = self.recorder.after_update(self.state.global_step + 1)
        self.optimizer.zero_grad()
        if record is not None:
            self.state.layer_records.append(record)
            self.hooks.record_layers(record)
        return total

    def _begin_step(self) -> None:
        """Freeze and unfreeze the layers that are due, and set the learning rates."""
        if self.unfreezer.begin_step(self.state.global_step):
            self.model = rewrapped(self.accelerator, self.model)
            self.trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if self.features:
            self.features.use(self.unfreezer.plan, self.unfreezer.state)
        if self.unfreezer.phase != self.state.phase:
            self._begin_phase()

    def _begin_phase(self) -> None:
        state = self.state
        if self.settings.restore_best_of_phase and state.best_value_of_phase is not None:
            self.hooks.load_best(state.best_step_of_phase)
        state.begin_phase(self.unfreezer.phase)
        plan = self.unfreezer.plan
        names = plan.schedule.layer_names(plan.layers(state.unfreeze))
        self.progress.say(state.global_step, f"phase {state.phase + 1}/{len(plan.schedule.phases)}: {names} train")

    def _name_untrained(self) -> None:
        """Name the layers of phases that waited for a condition until the run ended."""
        plan, state = self.unfreezer.plan, self.state
        if layers := plan.never_trained(state.unfreeze):
            phases = f"phase {self.unfreezer.phase + 1} of {len(plan.schedule.phases)}"
            names = plan.schedule.layer_names(layers)
            self.progress.say(state.global_step, f"warning: the run ended in {phases}, so these never trained: {names}")

    def _after_step(self) -> None:
        settings, step = self.settings, self.state.global_step
        is_end = step == settings.total_steps
        # Losses are recorded before each checkpoint, because a resumed run does not know earlier losses.
        borders = (STEPS_BETWEEN_RECORDS, settings.evaluate_every, settings.checkpoint_every)
        if is_end or any(step % border == 0 for border in borders):
            self._record_losses()
        if settings.metric and (step % settings.evaluate_every == 0 or is_end):
            self._evaluate(settings.metric)
        self.was_stopped = self.hooks.asked_to_stop()
        if step % settings.checkpoint_every == 0 or self._ends_here():
            if self._losses:
                self.state.unrecorded_losses = self._losses_so_far().tolist()
                self._losses.clear()
            if self.row_losses:
                self.row_losses.save(self.state)
            share_statistics(self.accelerator, self.model)
            self.hooks.save(self.state)

    def _losses_so_far(self) -> torch.Tensor:
        """Average the losses of each step since the last record over the processes, (steps,)."""
        known = torch.tensor(self.state.unrecorded_losses, device=self.accelerator.device)
        if not self._losses:
            return known
        return torch.cat([known, self.accelerator.reduce(torch.stack(self._losses), "mean")])

    def _record_losses(self) -> None:
        step, state = self.state.global_step, self.state
        started = time.perf_counter()
        value = self._losses_so_far().mean().item()
        # An accelerator runs behind: reading the value waits for the steps, so this time is training time.
        state.train_seconds += time.perf_counter() - started
        self._losses.clear()
        state.unrecorded_losses = []
        if self.row_losses:
            self.row_losses.settle()
        if not math.isfinite(value):
            raise DivergedError(
                f"the loss is {value} at step {step}; try a lower optimizer.lr, a longer schedule.warmup, "
                "or training.precision: fp32"
            )
        rates = rates_by_name(self.optimizer)
        phase, speed = state.phase + 1, state.train_examples / state.train_seconds
        self.hooks.record(
            {"step": step, "epoch": self._epoch(), "phase": phase, "loss": value, "learning_rates": rates}
        )
        self.progress.step(step, phase, value, rates, speed)
        self.unfreezer.on_loss(step, value)

    def _evaluate(self, metric: str) -> None:
        state, settings = self.state, self.settings
        share_statistics(self.accelerator, self.model)
        scores = self.hooks.evaluate()
        self.hooks.record({"step": state.global_step, "epoch": self._epoch(), "validation": scores})
        value = scores[metric]
        is_best, is_best_of_phase = state.note_score(metric, value, settings.min_delta)
        if is_best or (is_best_of_phase and settings.restore_best_of_phase):
            self.hooks.save_best(state.global_step)
        shown = {name: scores[name] for name in shown_first(metric, self.hooks.shown) if name in scores}
        self.progress.evaluated(state.global_step, shown, scores["loss"], is_best)
        self.unfreezer.on_scores(state.global_step, scores)
        out_of_patience = settings.patience is not None and state.evaluations_without_best >= settings.patience
        # If this evaluation has begun a phase, that phase has not trained yet; the patience was the earlier phase's.
        runs_last_phase = state.phase == self.unfreezer.phase and self.unfreezer.plan.is_last(state.unfreeze)
        if out_of_patience and runs_last_phase:
            state.stopped_early = True
            missed = (
                f"{settings.metric} that beats {_shown(state.value_to_beat)} by more than {settings.min_delta:g}"
                if settings.min_delta
                else f"better {settings.metric} than {_shown(state.value_to_beat)} at step {state.best_step_of_phase}"
            )
            self.progress.say(
                state.global_step, f"stopped early: {settings.patience} evaluation(s) in a row brought no {missed}"
            )

    def _epoch(self) -> float:
        return round(self.state.global_step / self.settings.steps_per_epoch, 4)


def step_seed(seed: int, step: int, process_index: int) -> int:
    """Compute the seed of one step's random numbers, such as dropout's, on one process."""
    return int(np.random.SeedSequence([seed, step, process_index]).generate_state(1, np.uint64)[0]) >> 1


def _shown(value: float | None) -> str:
    return "NaN" if value is None else f"{value:.4f}"
