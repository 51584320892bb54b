"""The protocol of a task: what differs between kinds of inputs and of outputs, from a recipe to a run folder.

A new task is one class and its line in registry.py, and one class of recipes; inputs of a new kind need a trained run
in prediction/, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nlp_ft.data.batch_loading import Collator
from nlp_ft.data.windows import Windows
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
        """The rows of each split, or the windows of its rows, by its name."""
        ...

    @property
    def label_names(self) -> list[str]:
        """The labels in the order of their ids; empty where the model learns numbers."""
        ...

    def lengths(self, split: str) -> np.ndarray:
        """The length of each encoded row, by which they are grouped: tokens of a text, 0 for an image."""
        ...

    def windows(self, split: str) -> Windows:
        """Which row each encoded row belongs to: a long text may be several encoded rows."""
        ...

    def labels(self, split: str) -> np.ndarray:
        """The label id or number of each row, (rows,)."""
        ...

    def inputs(self, split: str, rows: np.ndarray) -> pyarrow.Table:
        """The inputs of some rows as people know them: texts, or names of image files.

        Args:
            split: name of the split.
            rows: numbers of rows in the split, in any order.

        Returns:
            A row each: `row`, its number in the data that was read (from 0), and its inputs.
        """
        ...


@dataclass(frozen=True)
class Card:
    """The lines of a model card that depend on the task."""

    title: str
    pipeline_tag: str
    needs_import: bool = False
    """Whether the saved class belongs to nlp_ft, so that loading it needs `import nlp_ft`."""
    call: str = ""
    """Arguments of the pipeline call in the card's example."""
    labels: Sequence[str] = ()
    """The labels in the order of their ids; empty for a model that predicts numbers."""
    gives: str = ""
    """What the model gives, in Markdown; an empty text describes its labels, or numbers."""
    example: str = ""
    """A program that uses the model; an empty text calls a pipeline."""
    numbers: Sequence[str] = ()
    """The names of the numbers that the model predicts, in their order."""


class Task(Protocol):
    """What a recipe learns: its data, its model, and the meaning of the model's outputs."""

    inputs: str
    """What a trained run reads, such as `texts`: a key of `prediction.predict.RUNS`."""
    drop_last: bool
    """Whether training leaves out the last batch of an epoch if it is not full."""
    example_input: str
    """An input as one would type it after `nlp-ft predict RUN`."""
    libraries: tuple[str, ...]
    """Packages of this task on which a result depends; the summary records their versions and those of all tasks."""

    @property
    def data(self) -> Data:
        """The splits, read at first use. Raises: NlpFtError."""
        ...

    @staticmethod
    def outputs_of(model: PreTrainedModel) -> Outputs:
        """Interpret the outputs of a trained model."""
        ...

    @property
    def outputs(self) -> Outputs:
        """How to interpret the outputs of the model."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer of the model; None if it does not read texts."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Remarks to print before training, one sentence each."""
        ...

    @property
    def group_by_length(self) -> bool:
        """Whether rows of similar length form a batch."""
        ...

    @property
    def num_workers(self) -> int:
        """Number of worker processes that make batches; 0 makes them in the training process."""
        ...

    def label_counts(self) -> dict[str, int]:
        """Count the rows of train for each label, in the order of the ids; a validation share may be counted or not."""
        ...

    def num_rows(self) -> int:
        """Count the raw rows of train, without encoding them; a validation share may be counted or not."""
        ...

    def label_names(self) -> list[str]:
        """Read the labels in the order of their ids, without encoding the rows. Raises: DataError."""
        ...

    def build_model(self, label_names: Sequence[str], pretrained: bool = True) -> PreTrainedModel:
        """Build the model with an output for each label; a task that learns numbers has one output.

        Args:
            label_names: label names in the order of their ids.
            pretrained: whether to load the weights; False builds the structure alone, on the default device.

        Raises:
            ModelError: the model cannot be found or loaded.
        """
        ...

    def map_layers(self, model: PreTrainedModel) -> LayerMap:
        """Map the layers at the grain of the recipe. Raises: LayerMapError."""
        ...

    def hidden_size(self, model: PreTrainedModel) -> int | None:
        """Return the width of the encoder, which derived learning rates depend on; None for a network without one."""
        ...

    def make_loss(self) -> Loss:
        """Make the loss of the recipe. Raises: TrainingError: it does not fit the labels."""
        ...

    def collator(self, training: bool) -> Collator:
        """Make the collator of labelled rows; `training` adds random changes such as augmentation."""
        ...

    def describe_data(self) -> dict[str, Any]:
        """Describe the data in values that JSON can hold: split name -> `rows`, `labels`, ..."""
        ...

    def format_report(self, report: dict[str, Any]) -> str:
        """Write the data report for people to read."""
        ...

    def identity(self) -> dict[str, str]:
        """Fingerprint the data; the keys are words for an error message, such as `labels of train`."""
        ...

    def score_baselines(self) -> dict[str, dict[str, dict[str, float]]]:
        """Score the baselines on every split but train: split -> baseline -> metric -> value."""
        ...

    def save_preprocessor(self, folder: Path) -> None:
        """Save the tokenizer or image processor, so that Transformers' pipelines can read new inputs."""
        ...

    def card(self, model: PreTrainedModel) -> Card:
        """Describe the model for the README.md of the run folder."""
        ...


def map_layers(recipe: Recipe, model: PreTrainedModel, rules: Sequence[Rule] = (), example: Any = None) -> LayerMap:
    """Map the layers at the grain of the recipe; its rules come before the given ones. Raises: LayerMapError."""
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
