"""What a verdict is based on, as plain values. Knows no torch, no task and no recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nlp_ft.durations import Duration

WEAK = 0.5
"""Share of the loss of a constant answer; a model that has removed less of it has not learned much."""
FITTED = 0.9
"""The same share; a model that has removed more of it has nothing more to learn from train."""


@dataclass(frozen=True)
class Remark:
    """One finding of a verdict.

    Args:
        code: a fixed word for programs, such as `rate_too_high`.
        says: what was seen, as a sentence.
        do: what to change; empty if there is nothing to do.
    """

    code: str
    says: str
    do: str = ""


@dataclass(frozen=True)
class SplitFacts:
    """What the model answered on a split.

    Args:
        rows: rows that were scored.
        scores: metric -> value, the loss included.
        constant_loss: the least loss of a model that gives every row the same answer.
        is_constant: whether the model gave all rows nearly the same answer.
        references: label -> rows that have it; empty for numbers.
        predicted: label -> rows for which it was predicted; empty for numbers.
    """

    rows: int
    scores: Mapping[str, float]
    constant_loss: float
    is_constant: bool = False
    references: Mapping[str, int] = field(default_factory=dict)
    predicted: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Rate:
    """The highest learning rate of the run, beside the usual ones.

    Args:
        setting: the key of the recipe that sets it.
        value: the rate.
        low: lowest usual rate.
        high: highest usual rate.
        suggested: a rate to try.
        layers: the layers that have it, for people.
    """

    setting: str
    value: float
    low: float
    high: float
    suggested: float
    layers: str = "pretrained layers"

    def __str__(self) -> str:
        place = "above" if self.value > self.high else "below" if self.value < self.low else "among"
        usual = f"{self.low:g} to {self.high:g}"
        return f"{self.setting} {self.value:.3g} is {place} the usual rates of {self.layers}, {usual}"


@dataclass(frozen=True)
class Facts:
    """A finished run.

    Args:
        metric: the metric of the run.
        plain_metric: the metric that people ask for first: accuracy, or the correlation of numbers.
        correlation: the metric that is near 0 for answers without any knowledge.
        lower_is_better: whether a lower value of `metric` is better.
        splits: split -> what the model answered; `train` is a sample.
        margins: split -> metric -> half the width of the 95 % interval around the score.
        baselines: name for people -> metric -> value, on `spoken`; empty if none was computed.
        losses: (step, mean training loss since the last record), in order.
        evaluations: (step, scores on validation), in order.
        steps_per_epoch: optimizer steps of an epoch.
        duration: `training.duration`.
        stopped_early: whether early stopping ended the run.
        rate: the highest rate of the run.
        random_layers: names of frozen layers that hold random weights.
        report: split -> the data report on it.
        inputs: the word for what the model reads, such as `texts`.
        max_length: most tokens of a text; None for other inputs.
        class_weights: whether the loss weights the labels.
    """

    metric: str
    plain_metric: str
    correlation: str
    lower_is_better: bool
    splits: Mapping[str, SplitFacts]
    margins: Mapping[str, Mapping[str, float]]
    baselines: Mapping[str, Mapping[str, float]]
    losses: Sequence[tuple[int, float]]
    evaluations: Sequence[tuple[int, Mapping[str, float]]]
    steps_per_epoch: int
    duration: Duration
    stopped_early: bool
    rate: Rate
    random_layers: Sequence[str]
    report: Mapping[str, Mapping[str, Any]]
    inputs: str = "texts"
    max_length: int | None = None
    class_weights: bool = False

    @property
    def spoken(self) -> str:
        """The split that the verdict speaks of: test, else validation, else train."""
        return next(split for split in ("test", "validation", "train") if split in self.splits)

    @property
    def is_solved(self) -> bool:
        """Whether the head was solved for, without steps that could be too few or too large."""
        return not self.losses

    @property
    def learned(self) -> float:
        """How much of the loss of a constant answer is gone on train: 0 is nothing, 1 is all."""
        train = self.splits["train"]
        return 1 - train.scores["loss"] / train.constant_loss if train.constant_loss > 0 else 1.0

    def margin(self, split: str, metric: str) -> float:
        """Half the width of the 95 % interval around a score; 0 if it is not known."""
        return self.margins.get(split, {}).get(metric, 0.0)

    def gain(self, metric: str, value: float, other: float) -> float:
        """By how much a value of a metric is better than another one."""
        is_lower = self.lower_is_better if metric == self.metric else metric == "loss"
        return other - value if is_lower else value - other

    def at_chance(self, split: str) -> bool:
        """Whether the answers on a split have nothing to do with the references, as far as its rows can tell."""
        return self.splits[split].scores[self.correlation] <= self.margin(split, self.correlation)


def shown(metric: str, value: float) -> str:
    """Write a score: shares and correlations as points of 100, losses and errors as they are."""
    return f"{value:.4g}" if metric.endswith(("loss", "mse", "mae")) else f"{100 * value:.1f}"


def points(metric: str, difference: float) -> str:
    """Write a difference between two scores, with its unit."""
    return shown(metric, difference) + ("" if metric.endswith(("loss", "mse", "mae")) else " points")
