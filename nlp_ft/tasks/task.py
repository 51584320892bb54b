"""A task: everything that differs between kinds of inputs and of outputs, on the way from a recipe to a run folder.

A new task is one class and its line in registry.py, and one class of recipes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nlp_ft.data.batch_loading import Collator
from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise import LayerMap
from nlp_ft.layerwise.layer_map import Rule
from nlp_ft.patterns import SECONDS, endless_pattern
from nlp_ft.recipe import Recipe
from nlp_ft.tasks.losses import Loss
from nlp_ft.tasks.outputs import Outputs


class Data(Protocol):
    """The splits of a recipe, by name (`train`, `validation`, `test`), as rows that a collator takes."""

    @property
    def encoded(self) -> dict[str, Dataset]:
        """Split name -> rows."""
        ...

    @property
    def label_names(self) -> list[str]:
        """In the order of their ids."""
        ...

    def lengths(self, split: str) -> np.ndarray:
        """What rows are grouped by, (rows,): tokens of a text, 0 for an image."""
        ...

    def labels(self, split: str) -> np.ndarray:
        """Label id of each row, (rows,)."""
        ...


@dataclass(frozen=True)
class Card:
    """What a model card says of the task."""

    title: str
    pipeline_tag: str
    needs_import: bool
    """Whether the saved class is one of ours, which `import nlp_ft` makes known."""
    call: str
    """Arguments of the pipeline in the example."""
    labels: Sequence[str]
    """In the order of their ids; empty where the model gives numbers."""


class Task(Protocol):
    """The recipe's input and model."""

    inputs: str
    """`texts` or `images`: what a trained run reads."""
    drop_last: bool
    """Whether training leaves out the batch of an epoch that is not full."""
    example_input: str
    """What may be typed behind `nlp-ft predict RUN`."""
    libraries: tuple[str, ...]
    """Distributions, beside the common ones, whose versions a result depends on."""

    @property
    def data(self) -> Data:
        """The splits, read at first use. Raises: NlpFtError."""
        ...

    @staticmethod
    def outputs_of(model: PreTrainedModel) -> Outputs:
        """What the outputs of a trained model mean."""
        ...

    @property
    def outputs(self) -> Outputs:
        """What the outputs of the model mean."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer whose ids the model reads; None where it reads no texts."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What should be said before training, a sentence each."""
        ...

    @property
    def group_by_length(self) -> bool:
        """Whether rows of like length go together."""
        ...

    @property
    def num_workers(self) -> int:
        """Processes that make batches; 0 for the one that trains."""
        ...

    def label_counts(self) -> dict[str, int]:
        """Label name -> rows of train, in the order of the ids; a validation share may be among them or not."""
        ...

    def label_names(self) -> list[str]:
        """The labels in the order of their ids, with no more work than they take. Raises: DataError."""
        ...

    def build_model(self, label_names: Sequence[str], pretrained: bool = True) -> PreTrainedModel:
        """The classifier; without its weights on whichever device is the default. Raises: ModelError."""
        ...

    def map_layers(self, model: PreTrainedModel) -> LayerMap:
        """The layer map at the grain of the recipe. Raises: LayerMapError."""
        ...

    def make_loss(self) -> Loss:
        """The loss of the recipe. Raises: TrainingError: it does not fit the labels."""
        ...

    def collator(self, training: bool) -> Collator:
        """Makes batches of the labelled rows; with what is drawn for training, or without."""
        ...

    def describe_data(self) -> dict[str, Any]:
        """The data report, as JSON holds it: split name -> `rows`, `labels`, ..."""
        ...

    def format_report(self, report: dict[str, Any]) -> str:
        """The data report, as people read it."""
        ...

    def identity(self) -> dict[str, str]:
        """What the data are, to the bit: a fingerprint by the words that an error uses, such as `labels of train`."""
        ...

    def score_baselines(self) -> dict[str, dict[str, float]]:
        """Baseline -> metric -> value, on test or else validation."""
        ...

    def save_preprocessor(self, folder: Path) -> None:
        """What turns new inputs into the model's, in the form that Transformers' pipelines read."""
        ...

    def card(self, model: PreTrainedModel) -> Card:
        """For README.md of the run folder."""
        ...


def map_layers(recipe: Recipe, model: PreTrainedModel, rules: Sequence[Rule] = (), example: Any = None) -> LayerMap:
    """The layer map at the grain of the recipe, whose own rules go before the given ones. Raises: LayerMapError."""
    names = [name for name, _ in model.named_parameters()]
    endless = endless_pattern([pattern for pattern, _ in recipe.model.layer_rules], names)
    if endless is not None:
        raise LayerMapError(
            f"model.layer_rules: the search for {endless!r} in the names of the parameters takes more than {SECONDS} "
            "seconds; a repetition inside a repetition, as in (a+)+, does that"
        )
    rules = [*recipe.model.layer_rules, *rules]
    try:
        return LayerMap.from_model(model, rules, recipe.strategy.grain, example)
    except LayerMapError as error:
        raise LayerMapError(f"model.layer_rules: {error}") from None
