"""The range test of learning rates: the rate rises at each step, and the loss shows where learning begins and breaks.

Smith 2017, https://arxiv.org/abs/1506.01186. The head is tested first, over the frozen encoder. Then the rate of the
encoder rises, while the head learns at the rate that was found for it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm

from nlp_ft.data.batch_loading import EpochStream
from nlp_ft.environment import num_launched
from nlp_ft.errors import TrainingError
from nlp_ft.layerwise.freezing import set_trainable_layers
from nlp_ft.recipe import Recipe
from nlp_ft.screen import shows_bar
from nlp_ft.tables import terminal_width, text_table, wrapped
from nlp_ft.tasks.losses import Loss
from nlp_ft.tasks.registry import task_of
from nlp_ft.training import build
from nlp_ft.training.accelerator import start_accelerator
from nlp_ft.training.features.cache import logits_of
from nlp_ft.training.loop import step_seed
from nlp_ft.training.loop_state import Batch

HEAD_RATES = (1e-5, 1e1)
ENCODER_RATES = (1e-7, 1e-1)
"""The lowest and the highest rate that are tried."""
WINDOW = 9
"""Steps over which the losses are averaged."""
BROKEN = 2.0
"""A mean of so many times that of the first steps ends the test."""
LEAST_STEPS, DEFAULT_STEPS = 20, 100
HEAD_MARGIN, ENCODER_MARGIN = 10.0, 1.0
"""The suggestion is so many times below the rate with the least mean.

A head, which learns from nothing, still gains at rates that are too high for a whole run; see docs/find-lr.md.
"""
LEAST_FALL = 0.02
"""The share by which the mean must fall for a suggestion."""
SHOWN = 2.0
"""The standard errors by which it must fall."""
ROWS_SHOWN = 13
BAR_WIDTH = 40


@dataclass(frozen=True)
class RangeTest:
    """The losses of one range test."""

    rates: list[float]
    """The rate of each step, rising by the same factor."""
    losses: list[float]
    """The training loss before the update of each step."""

    margin: float
    """The suggestion is so many times below the rate with the least mean loss."""

    @property
    def smoothed(self) -> list[float]:
        """The mean of the losses around each step; fewer of them at both ends."""
        half = WINDOW // 2
        around = [self.losses[max(0, step - half) : step + half + 1] for step in range(len(self.losses))]
        return [sum(losses) / len(losses) for losses in around]

    @property
    def best(self) -> int:
        """The step with the least mean loss."""
        smoothed = [value if math.isfinite(value) else math.inf for value in self.smoothed]
        return min(range(len(smoothed)), key=smoothed.__getitem__)

    @property
    def suggestion(self) -> float | None:
        """A rate below that of the least mean, to two digits; None if the loss falls no more than by chance."""
        first, least = self.smoothed[0], self.smoothed[self.best]
        # Not `less`: a loss that is no number shows no fall.
        if not first - least >= max(LEAST_FALL * first, SHOWN * self._error):
            return None
        return float(f"{self.rates[self.best] / self.margin:.1e}")

    @property
    def _error(self) -> float:
        """The standard error of the difference of two means, by how much the losses differ from batch to batch."""
        losses = self.losses[: self.best + WINDOW // 2 + 1]
        steps = [(after - before) ** 2 for before, after in pairwise(losses)]
        variance = sum(steps) / max(1, len(steps)) / 2
        return math.sqrt(variance * (1 / (WINDOW // 2 + 1) + 1 / WINDOW))

    @property
    def is_broken(self) -> bool:
        """Whether the loss has left all sense, so that higher rates need not be tried."""
        first, last = self.losses[:WINDOW], self.losses[-WINDOW:]
        return not math.isfinite(self.losses[-1]) or sum(last) / len(last) > BROKEN * sum(first) / len(first)


@dataclass(frozen=True)
class FoundRates:
    """What the range tests of a recipe have found."""

    head: RangeTest
    encoder: RangeTest | None
    """None if the strategy trains the head alone."""

    @property
    def is_head_too_high(self) -> bool:
        """Whether the loss breaks once the head keeps its rate, which it had for a step alone in its own test."""
        return self.encoder is not None and not self.encoder.smoothed[0] <= BROKEN * self.head.smoothed[0]

    @property
    def settings(self) -> list[str]:
        """The suggestions as settings, `key=value`."""
        if self.is_head_too_high:
            return []
        if self.encoder is None:
            named = [("optimizer.lr", self.head.suggestion)]
        else:
            named = [("optimizer.lr", self.encoder.suggestion), ("optimizer.head_lr", self.head.suggestion)]
        return [f"{name}={value:g}" for name, value in named if value is not None]

    def __str__(self) -> str:
        parts = [f"head, over the frozen encoder\n\n{_chart(self.head)}"]
        if self.encoder is not None:
            rate = self.head.suggestion or HEAD_RATES[0]
            parts.append(f"encoder, while the head learns at {rate:g}\n\n{_chart(self.encoder)}")
        if self.is_head_too_high:
            parts.append(
                wrapped("look: that rate of the head breaks the loss, so nothing is suggested; try more --steps")
            )
        return "\n\n".join(parts)


def range_test(
    step: Callable[[float], float], lowest: float, highest: float, steps: int, margin: float = HEAD_MARGIN
) -> RangeTest:
    """Raise the rate from `lowest` to `highest` in so many steps; stop where the loss breaks.

    Args:
        step: updates the weights once at the given rate, and returns the loss before the update.
        lowest: the first rate, above 0.
        highest: the last rate.
        steps: number of steps, at least 2.
        margin: see `RangeTest`.
    """
    factor = (highest / lowest) ** (1 / (steps - 1))
    test = RangeTest([], [], margin)
    for number in tqdm(range(steps), ncols=terminal_width(), leave=False, disable=not shows_bar()):
        test.rates.append(lowest * factor**number)
        test.losses.append(step(test.rates[-1]))
        if test.is_broken:
            break
    return test


def find_rates(recipe: Recipe, steps: int = DEFAULT_STEPS) -> FoundRates:
    """Run the range tests of a recipe: of the head, then of the layers below it that the strategy ever trains.

    The layers keep the ratios of their rates. Nothing is written.

    Args:
        recipe: the recipe; its batches, optimizer and loss are used.
        steps: steps of each test, at least 20.

    Raises:
        NlpFtError: data or model cannot be loaded, or several processes were launched.
    """
    if num_launched() > 1:
        raise TrainingError("find-lr runs in one process; start it without a launcher")
    if recipe.strategy.probe is not None:
        raise TrainingError("strategy probe takes no steps, so it has no learning rate to find")
    if steps < LEAST_STEPS:
        raise TrainingError(f"--steps must be at least {LEAST_STEPS}, got {steps}")
    accelerator = _accelerator(recipe)
    task = task_of(recipe)
    layered = build.layered_model(recipe, task, task.data.label_names, build.example_inputs(task))
    model, layer_map = layered.model.to(accelerator.device), layered.layer_map
    recipe, _ = build.with_derived(recipe, task, layered, task.data.lengths("train"), num_processes=1)
    updates = _Updates(accelerator, model, task.make_loss(), build.stream(recipe, task, accelerator), recipe)
    below = [layer for layer in layered.schedule.phases[-1].layers if layer != layer_map.head_layer]

    def training(layers: Sequence[int]) -> torch.optim.Optimizer:
        set_trainable_layers(model, layer_map, layers, layered.frozen)
        return build.optimizer(recipe.optimizer, model, layer_map)

    head = layer_map.head_layer
    with restored(model):
        of_head = range_test(partial(updates, training([head])), *HEAD_RATES, steps)
    if not below:
        return FoundRates(of_head, None)
    with restored(model):
        step = partial(updates, training([head, *below]), head=(head, of_head.suggestion or HEAD_RATES[0]))
        return FoundRates(of_head, range_test(step, *ENCODER_RATES, steps, ENCODER_MARGIN))


def _accelerator(recipe: Recipe) -> Accelerator:
    """Make the accelerator; fp16 would need its loss scaled, so float32 takes its place."""
    training = recipe.training
    if training.precision == "fp16":
        training = training.model_copy(update={"precision": "fp32"})
    recipe = recipe.model_copy(update={"training": training, "trackers": ()})
    return start_accelerator(recipe, Path(recipe.output_dir))


class _Updates:
    """Updates a model, a batch at a time, at the rate that it is given."""

    def __init__(
        self, accelerator: Accelerator, model: torch.nn.Module, loss: Loss, stream: EpochStream, recipe: Recipe
    ) -> None:
        self.accelerator, self.model, self.loss = accelerator, model.train(), loss
        self.max_grad_norm, self.seed = recipe.training.max_grad_norm, recipe.seed
        self.batches = _without_end(stream)
        self.count = 0

    def __call__(self, optimizer: torch.optim.Optimizer, rate: float, head: tuple[int, float] | None = None) -> float:
        """Update all layers once at the rate; or the layer of `head` at its own, and the others by their scales.

        Returns:
            The loss before the update.
        """
        for group in optimizer.param_groups:
            if head is not None:
                group["lr"] = head[1] if group["layer_id"] == head[0] else rate * group["lr_scale"]
            else:
                group["lr"] = rate
        torch.manual_seed(step_seed(self.seed, self.count, 0))
        self.count += 1
        device = self.accelerator.device
        parts = [{key: value.to(device) for key, value in batch.items()} for batch in next(self.batches)]
        divisor = torch.stack([self.loss.weight(batch["labels"]) for batch in parts]).sum()
        # As in a run, a batch that has nothing to learn has the loss 0.
        divisor = torch.where(divisor > 0, divisor, 1.0)
        total = 0.0
        for batch in parts:
            with self.accelerator.autocast():
                loss = self.loss.total(logits_of(self.model, batch, "train", None), batch["labels"]) / divisor
            self.accelerator.backward(loss)
            total += loss.item()
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return total


def _without_end(stream: EpochStream) -> Iterator[list[Batch]]:
    for epoch in count():
        for _, micro_batches in stream(epoch, 0):
            yield micro_batches


@contextmanager
def restored(model: torch.nn.Module) -> Iterator[None]:
    """Put weights, buffers, `requires_grad` and the random numbers back to the bit at the end of the block."""
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with torch.random.fork_rng():
        try:
            yield
        finally:
            model.load_state_dict(weights)
            for parameter, requires_grad in flags:
                parameter.requires_grad_(requires_grad)


def _chart(test: RangeTest) -> str:
    """Draw the smoothed losses as bars, and write the suggestion below."""
    smoothed = test.smoothed
    shown = sorted({round(i * (len(smoothed) - 1) / (ROWS_SHOWN - 1)) for i in range(ROWS_SHOWN)})
    top = max((value for value in smoothed if math.isfinite(value)), default=0.0)
    rows = [
        [f"{test.rates[i]:.1e}", f"{smoothed[i]:.4f}", "#" * round(BAR_WIDTH * min(smoothed[i] / top, 1.0))]
        for i in shown
        if math.isfinite(smoothed[i])
    ]
    least = f"{test.rates[test.best]:.1e}, where the mean is least"
    if test.suggestion is None:
        found = "no suggestion: at no rate does the loss fall more than by chance"
    elif test.margin > 1:
        found = f"suggestion {test.suggestion:g}: {test.margin:g} times below {least}"
    else:
        found = f"suggestion {least}"
    return f"{text_table(['rate', 'mean loss', ''], rows, right={1})}\n{found}"
