"""What goes in and out of the training loop: its lengths and limits, its state, and what it calls."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from nlp_ft.layerwise import UnfreezeState
from nlp_ft.layerwise.unfreezing.triggers import is_better

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LoopSettings:
    """Lengths and limits of a run, in optimizer steps; `metric` names a score, None without validation."""

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
    evaluations_without_best: int = 0
    """Within the phase: what an earlier phase reached does not count against this one."""
    unfreeze: UnfreezeState = field(default_factory=UnfreezeState)
    stopped_early: bool = False
    train_seconds: float = 0.0
    train_examples: int = 0
    unrecorded_losses: list[float] = field(default_factory=list)
    """Means over the processes, of the steps since the last record; there are some where a signal ended the run."""

    def note_score(self, metric: str, value: float, min_delta: float) -> tuple[bool, bool]:
        """Note an evaluation; tell whether it is the best of the run, and whether it is the best of its phase."""
        is_best = is_better(metric, value, self.best_value, min_delta)
        is_best_of_phase = is_better(metric, value, self.best_value_of_phase, min_delta)
        if is_best:
            self.best_value, self.best_step = value, self.global_step
        if is_best_of_phase:
            self.best_value_of_phase, self.best_step_of_phase = value, self.global_step
        self.evaluations_without_best = 0 if is_best_of_phase else self.evaluations_without_best + 1
        return is_best, is_best_of_phase

    def begin_phase(self, phase: int) -> None:
        """Forget what the phase before reached."""
        self.phase = phase
        self.best_value_of_phase, self.best_step_of_phase, self.evaluations_without_best = None, 0, 0


class Loss(Protocol):
    """The loss of an effective batch that arrives in parts: the sum of `total` over the sum of `weight`."""

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum the loss over one part; logits and labels begin with (batch, ...)."""
        ...

    def weight(self, labels: torch.Tensor) -> torch.Tensor:
        """Compute what one part adds to the divisor."""
        ...


class EpochBatches(Protocol):
    """Gives the effective batches of an epoch, from a given one on, as this process's micro-batches."""

    def __call__(self, epoch: int, first_batch: int) -> Iterator[tuple[int, list[Batch]]]:
        """Yield (rows of the effective batch over all processes, micro-batches of this process)."""
        ...


@dataclass(frozen=True)
class LoopHooks:
    """What the loop calls: `evaluate` gives scores by name, `save` writes a checkpoint.

    `save_best` keeps the weights under their step, `load_best` puts those of a step back. `asked_to_stop` says after
    each step whether the run should end with it, the same on all processes.
    """

    evaluate: Callable[[], dict[str, float]] | None
    save_best: Callable[[int], None]
    load_best: Callable[[int], None]
    save: Callable[[LoopState], None]
    record: Callable[[dict[str, Any]], None]
    asked_to_stop: Callable[[], bool] = lambda: False
