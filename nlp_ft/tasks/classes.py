"""Classification of texts or images: its outputs and its loss."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from nlp_ft.data.labels import label_counts
from nlp_ft.errors import TrainingError, listed, printable
from nlp_ft.models.labels import label_names as label_names_of
from nlp_ft.recipe import Recipe
from nlp_ft.tables import shortened, terminal_width, text_table, wrapped
from nlp_ft.tasks.losses import ClassificationLoss
from nlp_ft.tasks.metrics import confusion_matrix, margin_of_share, most_confused, per_class, score, worst
from nlp_ft.tasks.outputs import write_csv
from nlp_ft.tasks.row_outputs import RowOutputs
from nlp_ft.tasks.task import Data

NAME_WIDTH = 26
"""Most columns of a label in a sentence."""


@dataclass(frozen=True)
class Prediction:
    """The most likely label of an input, its probability, and the probabilities of all labels."""

    label: str
    score: float
    scores: dict[str, float]


@dataclass(frozen=True)
class ClassOutputs(RowOutputs):
    """Outputs of a classifier: one of several labels for each row. See `Outputs`."""

    label_names: list[str]
    """The label names in the order of their ids."""
    numbers_shown: ClassVar[str] = "the probability of each label"
    shown_metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "matthews", "loss")
    progress_metrics: ClassVar[tuple[str, str]] = ("accuracy", "macro_f1")
    correlation: ClassVar[str] = "matthews"
    table_file: ClassVar[str] = "per_class.csv"

    def row_losses(self, logits: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """Compute the cross-entropy of each row, without class weights or label smoothing."""
        return F.cross_entropy(logits, references, reduction="none")

    def row_scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Compute the probability of the most likely label of each row."""
        return self.activate(logits).amax(-1)

    def decode(self, logits: torch.Tensor) -> torch.Tensor:
        """Take the id of the most likely label."""
        return logits.argmax(-1)

    def undecided(self) -> "UndecidedClasses":
        """Return outputs whose predictions are the logits."""
        return UndecidedClasses(self.label_names)

    def shown(self, decoded: np.ndarray) -> pyarrow.Array:
        """Write label ids as names."""
        return pyarrow.array(self.label_names, pyarrow.string()).take(pyarrow.array(decoded))

    def activate(self, logits: torch.Tensor) -> torch.Tensor:
        """Compute the probabilities of all labels, (batch, num_labels)."""
        return logits.float().softmax(-1)

    def score(self, predicted: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Compute accuracy, F1 as macro, micro and weighted mean, and Matthews correlation."""
        return score(predicted, references)

    def constant_loss(self, references: np.ndarray) -> float:
        """Compute the entropy of the labels in nats."""
        shares = np.unique(references, return_counts=True)[1] / len(references)
        return float(-(shares * np.log(shares)).sum())

    def counts(self, values: np.ndarray) -> dict[str, int]:
        """Count the rows of each label."""
        return label_counts(values, self.label_names)

    def margin(self, metric: str, value: float, num_rows: int) -> float:
        """Estimate it for accuracy; for the other metrics that is rough. That of `matthews` is the one at 0."""
        if metric == "loss":
            return 0.0
        if metric == "matthews":
            return 1.96 / math.sqrt(num_rows * (len(self.label_names) - 1))
        return margin_of_share(value, num_rows)

    def table(self, predicted: np.ndarray, references: np.ndarray, most: int | None = None) -> str:
        """Show precision, recall, F1 and support of each label, and which labels the model confuses most.

        Of too many labels, it shows those that occur and do worst.
        """
        rows, note = worst(per_class(predicted, references, self.label_names), most)
        fields = ("precision", "recall", "f1")
        cells = [[row["label"], *(f"{row[field]:.4f}" for field in fields), f"{row['support']:.0f}"] for row in rows]
        confused = [
            f"{shortened(true, NAME_WIDTH)} taken for {shortened(taken, NAME_WIDTH)} ({count} rows)"
            for true, taken, count in most_confused(predicted, references, self.label_names)
        ]
        if confused:
            note += "\n" + wrapped(f"most often confused: {'; '.join(confused)}")
        return text_table(["label", *fields, "support"], cells, range(1, 5), terminal_width()) + note

    def write_tables(self, folder: Path, split: str, predicted: np.ndarray, references: np.ndarray) -> None:
        """Write `<split>_per_class.csv` and `<split>_confusion_matrix.csv` (a row for each true label)."""
        rows = per_class(predicted, references, self.label_names)
        matrix = confusion_matrix(predicted, references, len(self.label_names))
        write_csv(folder / f"{split}_{self.table_file}", rows[0], (row.values() for row in rows))
        counts = ([name, *row] for name, row in zip(self.label_names, matrix, strict=True))
        write_csv(folder / f"{split}_confusion_matrix.csv", ["true label", *self.label_names], counts)

    def prediction(self, activated: np.ndarray) -> Prediction:
        """Make the prediction: the most likely label, and the probability of each label."""
        best = int(activated.argmax())
        scores = {name: float(p) for name, p in zip(self.label_names, activated, strict=True)}
        return Prediction(self.label_names[best], float(activated[best]), scores)

    def columns(self, activated: np.ndarray, probabilities: bool = False) -> pyarrow.Table:
        """Make `predicted_label` and `predicted_score`, its probability; and `probability_LABEL` of each label."""
        columns = {"predicted_label": self.shown(activated.argmax(-1)), "predicted_score": activated.max(-1)}
        if probabilities:
            columns |= {f"probability_{name}": activated[:, i] for i, name in enumerate(self.label_names)}
        return pyarrow.table(columns)

    def lines(self, prediction: Prediction, top_k: int) -> list[str]:
        """Write a line for each of the `top_k` most likely labels."""
        likeliest = sorted(prediction.scores, key=lambda name: -prediction.scores[name])[:top_k]
        return [f"{prediction.scores[label]:.4f}  {printable(label)}" for label in likeliest]


class UndecidedClasses(ClassOutputs):
    """Outputs of a classifier whose predictions are the logits, (rows, num_labels)."""

    def decode(self, logits: torch.Tensor) -> torch.Tensor:
        """Keep the logits."""
        return logits


class Classification(ABC):
    """A task that learns labels, whatever its inputs are. See `Task`."""

    recipe: Recipe

    @property
    @abstractmethod
    def data(self) -> Data:
        """The splits of the recipe."""

    @abstractmethod
    def label_counts(self) -> dict[str, int]:
        """Count the rows of train for each label."""

    def num_rows(self) -> int:
        """Count the raw rows of train."""
        return sum(self.label_counts().values())

    @staticmethod
    def outputs_of(model: PreTrainedModel) -> ClassOutputs:
        """Interpret the outputs of a trained model by its labels."""
        return ClassOutputs(label_names_of(model))

    @property
    def outputs(self) -> ClassOutputs:
        """Interpret the outputs of the model by the labels of the data."""
        return ClassOutputs(self.data.label_names)

    def make_loss(self) -> ClassificationLoss:
        """Make the cross-entropy with the class weights of the recipe.

        Raises:
            TrainingError: the weights do not name exactly the labels, or a balanced one would be infinite.
        """
        section = self.recipe.loss
        if section.class_weights is None:
            return ClassificationLoss(None, section.label_smoothing)
        weights = class_weights(section.class_weights, self.label_counts())
        return ClassificationLoss(torch.tensor(weights, dtype=torch.float32), section.label_smoothing)


def class_weights(setting: Literal["balanced"] | Mapping[str, float], train_rows: Mapping[str, int]) -> list[float]:
    """List the class weight of each label in the order of the ids.

    Args:
        setting: `loss.class_weights` of the recipe.
        train_rows: label name -> rows of train, in the order of the ids.

    Raises:
        TrainingError: the setting does not name exactly the labels, or is `balanced` and train lacks a label.
    """
    if setting == "balanced":
        refuse_absent(train_rows)
        total = sum(train_rows.values())
        return [total / (len(train_rows) * count) for count in train_rows.values()]
    return given_weights(setting, list(train_rows))


def refuse_absent(train_rows: Mapping[str, int]) -> None:
    """Check that balanced weights are finite. Raises: TrainingError: a label has no row in train."""
    absent = [name for name, count in train_rows.items() if count == 0]
    if absent:
        raise TrainingError(
            f"loss.class_weights: balanced needs rows of every label in train; none of: {listed(absent)}"
        )


def given_weights(setting: Mapping[str, float], label_names: Sequence[str]) -> list[float]:
    """List given weights in the order of the names. Raises: TrainingError: they do not name exactly the labels."""
    if set(setting) != set(label_names):
        different = sorted(set(setting) ^ set(label_names))
        raise TrainingError(
            f"loss.class_weights must name exactly the labels of the data; different: {listed(different, 5)}"
        )
    return [setting[name] for name in label_names]
