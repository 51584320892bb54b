"""The facts that advice rests on: rows, labels, lengths, words of the data, and what each strategy would train.

Everything is read from train, but the number of rows of validation; test is not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nlp_ft.data.windows import BEGINS_ROW
from nlp_ft.layerwise.freezing import count_parameters, set_trainable_layers
from nlp_ft.recipe import Recipe
from nlp_ft.study.advise.domain import Domain
from nlp_ft.study.advise.words import Words
from nlp_ft.tasks.registry import task_of
from nlp_ft.tasks.task import Task
from nlp_ft.training import build

UNLIMITED = 100_000
"""A tokenizer that allows more tokens knows no limit."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of the rows of train, special ones included, before anything is cut."""

    median: int
    p95: int
    p99: int
    longest: int
    max_length: int | None
    """The setting; None where the task has none, or reads longer rows in windows."""
    limit: int | None
    """The most that the model reads; None where that is not known."""
    values: np.ndarray
    """The length of each row, (rows,)."""

    def cut(self, at: int) -> float:
        """Return the share of the rows that are longer."""
        return float((self.values > at).mean())


@dataclass(frozen=True)
class Evidence:
    """The facts of the data.

    Args:
        rows: rows of train.
        validation_rows: rows of validation.
        label_counts: rows of train for each label; empty for numbers.
        lengths: lengths in tokens; None for images.
        words: None for images.
        domain: how far the texts are from general English; None for images.
        trainable: strategy -> parameters that it ever trains.
        is_cached: whether a run keeps what the blocks give for each text, where they stay frozen.
    """

    rows: int
    validation_rows: int
    label_counts: Mapping[str, int]
    lengths: Lengths | None
    words: Words | None
    domain: Domain | None
    trainable: Mapping[str, int]
    is_cached: bool

    @property
    def smallest(self) -> int | None:
        """Rows of the smallest class; None for numbers."""
        return min(self.label_counts.values(), default=None)

    @property
    def imbalance(self) -> float | None:
        """Rows of the largest class / rows of the smallest; None for numbers, infinite where a class has no row."""
        if self.smallest is None:
            return None
        return max(self.label_counts.values()) / self.smallest if self.smallest else float("inf")


def gather(task: Task, recipes: Mapping[str, Recipe], words: Words | None, domain: Domain | None) -> Evidence:
    """Collect the facts of the data, and of what each strategy would train.

    Args:
        task: the task, whose recipe has no test split.
        recipes: strategy -> its recipe.
        words: what `words_of` gives.
        domain: what `domain_of` gives.

    Raises:
        NlpFtError: data or model cannot be read.
    """
    trainable = {}
    for strategy, recipe in recipes.items():
        layered = build.structure(recipe, task_of(recipe), task.data.label_names)
        set_trainable_layers(layered.model, layered.layer_map, layered.schedule.phases[-1].layers, layered.frozen)
        _, trainable[strategy] = count_parameters(layered.model)
    return Evidence(
        rows=task.data.windows("train").num_rows,
        validation_rows=task.data.windows("validation").num_rows,
        label_counts=task.label_counts() if task.data.label_names else {},
        lengths=lengths_of(task, next(iter(recipes.values()))),
        words=words,
        domain=domain,
        trainable=trainable,
        is_cached=_is_cached(task, next(iter(recipes.values()))),
    )


def _is_cached(task: Task, recipe: Recipe) -> bool:
    """Whether there can be a feature cache, as far as recipe and inputs tell; see `training.features.decide`."""
    if task.tokenizer is None or recipe.training.feature_cache == "off":
        return False
    return build.example_inputs(task)["input_ids"].ndim == 2


def lengths_of(task: Task, recipe: Recipe) -> Lengths | None:
    """Describe the lengths of train in tokens; None where rows have no length."""
    encoded = task.data.encoded["train"]
    whole, in_windows = (name in encoded.column_names for name in ("num_tokens", BEGINS_ROW))
    starts = task.data.windows("train").starts
    values = np.asarray(encoded["num_tokens"])[starts] if whole else task.data.lengths("train")
    if not values.any():
        return None
    limit = None if task.tokenizer is None else task.tokenizer.model_max_length
    return Lengths(
        median=int(np.median(values)),
        p95=int(np.percentile(values, 95)),
        p99=int(np.percentile(values, 99)),
        longest=int(values.max()),
        # Without the lengths before cutting, nothing can be said about cutting; what is read in windows is not cut.
        max_length=getattr(recipe.data, "max_length", None) if whole and not in_windows else None,
        limit=limit if limit is not None and limit < UNLIMITED else None,
        values=values,
    )
