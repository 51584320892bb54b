"""The types that the training loop takes: lengths and limits, state, loss, batches and hooks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from nlp_ft.layerwise import UnfreezeState
from nlp_ft.layerwise.unfreezing.triggers import is_better

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LoopSettings:
    """Lengths and limits of a run; lengths are in optimizer steps.

    Args:
        total_steps: length of the run.
        steps_per_epoch: length of an epoch.
        evaluate_every: steps from one evaluation to the next.
        checkpoint_every: steps from one checkpoint to the next.
        max_grad_norm: norm to which gradients are clipped; None does not clip.
        seed: seed of all random numbers.
        metric: the score of validation that selects the best weights; None evaluates nothing.
        patience: evaluations without improvement after which the run stops; None never stops early.
        min_delta: change of the metric that an improvement must exceed to renew the patience.
        restore_best_of_phase: whether each phase begins with the best weights of the phase before.
    """

    total_steps: int
    steps_per_epoch: int
    evaluate_every: int
    checkpoint_every: int
    max_grad_norm: float | None = None
    seed: int = 0
    metric: str | None = None
    patience: int | None = None
    min_delta: float = 0.0
    restore_best_of_phase: bool = False


@dataclass
class LoopState:
    """The state of a run that changes from step to step; a checkpoint holds it."""

    global_step: int = 0
    best_step: int = 0
    best_value: float | None = None
    phase: int = 0
    best_step_of_phase: int = 0
    best_value_of_phase: float | None = None
    value_to_beat: float | None = None
    """The last score of this phase that was better than the one before it by more than `min_delta`."""
    evaluations_without_best: int = 0
    """Evaluations in this phase since that score; what an earlier phase reached does not count."""
    unfreeze: UnfreezeState = field(default_factory=UnfreezeState)
    stopped_early: bool = False
    train_seconds: float = 0.0
    train_examples: int = 0
    unrecorded_losses: list[float] = field(default_factory=list)
    """Losses of the steps since the last record, averaged over the processes; not empty if a signal ended the run."""

    layer_records: list[dict[str, Any]] = field(default_factory=list)
    """What the recorder has seen of the layers so far; a checkpoint holds it, so that a resumed run goes on with it."""
    row_losses: dict[str, list[float | None]] = field(default_factory=dict)
    """Epoch -> loss of each row of train that is kept; None for a row that has not been in it. See `RowLosses`."""
    probe: dict[str, Any] | None = None
    """What strategy probe has chosen, and the score of each layer; None under every other strategy."""

    def note_score(self, metric: str, value: float, min_delta: float) -> tuple[bool, bool]:
        """Note an evaluation; return whether it is the best of the run, and whether it is the best of its phase.

        `min_delta` decides on the patience alone: the weights that are kept are the best ones.
        """
        is_best = is_better(metric, value, self.best_value)
        is_best_of_phase = is_better(metric, value, self.best_value_of_phase)
        if is_best:
            self.best_value, self.best_step = value, self.global_step
        if is_best_of_phase:
            self.best_value_of_phase, self.best_step_of_phase = value, self.global_step
        self.evaluations_without_best += 1
        if is_better(metric, value, self.value_to_beat, min_delta):
            self.value_to_beat, self.evaluations_without_best = value, 0
        return is_best, is_best_of_phase

    def begin_phase(self, phase: int) -> None:
        """Begin a phase, and forget the best values of the phase before."""
        self.phase = phase
        self.best_value_of_phase, self.best_step_of_phase = None, 0
        self.value_to_beat, self.evaluations_without_best = None, 0


class Loss(Protocol):
    """The loss of an effective batch that arrives in parts: the sum of `total` over the sum of `weight`."""

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum the loss over one part; logits and labels begin with (batch, ...)."""
        ...

    def weight(self, labels: torch.Tensor) -> torch.Tensor:
        """Compute what one part adds to the divisor."""
        ...

    def of_rows(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the plain loss of each row of a part, (batch,); NaN where a row has none."""
        ...


class EpochBatches(Protocol):
    """Streams this process's micro-batches of an epoch, starting at any effective batch."""

    def __call__(self, epoch: int, first_batch: int) -> Iterator[tuple[int, list[Batch]]]:
        """Yield, for each effective batch, its number of rows over all processes and this process's micro-batches."""
        ...


@dataclass(frozen=True)
class LoopHooks:
    """The functions that the loop calls.

    Args:
        evaluate: returns metric -> value on validation.
        save_best: saves the current weights as the best, under a step.
        load_best: loads the best weights that were saved under a step.
        save: writes a checkpoint.
        record: writes a record of losses or scores.
        record_layers: takes a record of the recorder.
        shown: names of scores that the line of an evaluation shows.
        asked_to_stop: called after each step; returns whether the run should end, the same on all processes.
    """

    evaluate: Callable[[], dict[str, float]]
    save_best: Callable[[int], None]
    load_best: Callable[[int], None]
    save: Callable[[LoopState], None]
    record: Callable[[dict[str, Any]], None]
    record_layers: Callable[[dict[str, Any]], None] = lambda record: None
    shown: tuple[str, ...] = ()
    asked_to_stop: Callable[[], bool] = lambda: False
