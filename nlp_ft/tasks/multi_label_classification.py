"""Multi-label classification: any number of labels, also none, for each text or pair of texts."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from torch.nn import functional as F
from transformers import PreTrainedModel

from nlp_ft.data.label_sets import SEPARATORS, LabelSets
from nlp_ft.data.labels import label_counts
from nlp_ft.data.splits import progress_bars
from nlp_ft.errors import ModelError, printable
from nlp_ft.models.labels import label_names as label_names_of
from nlp_ft.recipe import MultiLabelRecipe
from nlp_ft.recipe.derived import threshold_of
from nlp_ft.tables import terminal_width, text_table
from nlp_ft.tasks.baselines import Scores, held_out, predict_by_words
from nlp_ft.tasks.classes import given_weights, refuse_absent
from nlp_ft.tasks.label_set_metrics import Thresholds, most_frequent_set, per_label, score, tuned
from nlp_ft.tasks.losses import BinaryLoss
from nlp_ft.tasks.metrics import margin_of_share, worst
from nlp_ft.tasks.outputs import write_csv
from nlp_ft.tasks.row_outputs import RowOutputs
from nlp_ft.tasks.task import Card
from nlp_ft.tasks.text_inputs import TextInputs


@dataclass(frozen=True)
class MultiLabelPrediction:
    """The labels that are predicted for an input, the most likely one first, and the probability of every label."""

    labels: list[str]
    scores: dict[str, float]


@dataclass(frozen=True)
class LabelSetOutputs(RowOutputs):
    """Outputs of a classifier that gives each row a set of labels; what it decodes are probabilities. See `Outputs`.

    Args:
        label_names: the label names in the order of their ids.
        thresholds: probability from which on each label is predicted, in the order of the ids.
        tuning: how thresholds are tuned on validation; None keeps them.
        separator: between the labels of a row in columns.
    """

    label_names: list[str]
    thresholds: tuple[float, ...]
    tuning: Thresholds | None = None
    separator: str = SEPARATORS[0]
    numbers_shown: ClassVar[str] = "the probability of each label, by itself"
    shown_metrics: ClassVar[tuple[str, ...]] = (
        "macro_f1",
        "micro_f1",
        "average_precision",
        "subset_accuracy",
        "loss",
    )
    progress_metrics: ClassVar[tuple[str, str]] = ("macro_f1", "micro_f1")
    correlation: ClassVar[str] = "matthews"
    without_confidence: ClassVar[str] = (
        "predicts each label from a threshold of its own on, which training.threshold sets"
    )
    table_file: ClassVar[str] = "per_label.csv"

    def row_losses(self, logits: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """Compute the binary cross-entropy of each row, its mean over the labels, without weights or smoothing."""
        return F.binary_cross_entropy_with_logits(logits, references.float(), reduction="none").mean(-1)

    def row_scores(self, logits: torch.Tensor) -> None:
        """Return None: each label has a probability of its own."""

    def decode(self, logits: torch.Tensor) -> torch.Tensor:
        """Compute the probabilities of all labels, (batch, labels); thresholds make sets of them."""
        return self.activate(logits)

    def activate(self, logits: torch.Tensor) -> torch.Tensor:
        """Compute the probabilities of all labels, (batch, labels)."""
        return logits.float().sigmoid()

    def chosen(self, values: np.ndarray) -> np.ndarray:
        """Mark the labels whose probability is at or above the threshold, as 0 and 1; references stay as they are."""
        return (values >= np.array(self.thresholds)).astype(np.int64)

    def shown(self, decoded: np.ndarray) -> pyarrow.Array:
        """Write the labels of each row with the separator between them."""
        rows = [np.flatnonzero(row) for row in self.chosen(decoded)]
        return pyarrow.array([self.separator.join(self.label_names[i] for i in row) for row in rows], pyarrow.string())

    def score(self, predicted: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Compute the scores of `label_set_metrics.score`."""
        return score(predicted, self.chosen(predicted), references)

    def tuned(self, predicted: np.ndarray, references: np.ndarray) -> "LabelSetOutputs":
        """Tune the thresholds on rows of validation, if the recipe says so."""
        if self.tuning is None:
            return self
        return replace(self, thresholds=tuple(tuned(self.tuning, predicted, references).tolist()))

    def write_to(self, model: PreTrainedModel) -> None:
        """Write the threshold of each label into the configuration, under its name; and the separator."""
        model.config.label_thresholds = dict(zip(self.label_names, self.thresholds, strict=True))
        model.config.label_separator = self.separator

    def constant_loss(self, references: np.ndarray) -> float:
        """Compute the mean over the labels of the entropy of having the label or not, in nats."""
        shares = np.stack([references.mean(0), 1 - references.mean(0)])
        return float(-(shares * np.log(np.where(shares > 0, shares, 1))).sum(0).mean())

    def counts(self, values: np.ndarray) -> dict[str, int]:
        """Count the rows of each label."""
        return label_counts(self.chosen(values), self.label_names)

    def margin(self, metric: str, value: float, num_rows: int) -> float:
        """Estimate it for subset accuracy; for the other metrics that is rough. That of `matthews` is the one at 0."""
        if metric in ("loss", "hamming_loss"):
            return 0.0
        if metric == "matthews":
            return 1.96 / math.sqrt(num_rows * len(self.label_names))
        return margin_of_share(value, num_rows)

    def table(self, predicted: np.ndarray, references: np.ndarray, most: int | None = None) -> str:
        """Show a line for each label; of too many labels, those that occur and do worst."""
        rows, note = worst(self._rows(predicted, references), most)
        fields = ("precision", "recall", "f1", "support", "threshold")
        cells = [
            [row["label"], *(f"{row[field]:.0f}" if field == "support" else f"{row[field]:.4f}" for field in fields)]
            for row in rows
        ]
        return text_table(["label", *fields], cells, range(1, 6), terminal_width()) + note

    def write_tables(self, folder: Path, split: str, predicted: np.ndarray, references: np.ndarray) -> None:
        """Write `<split>_per_label.csv`."""
        rows = self._rows(predicted, references)
        write_csv(folder / f"{split}_{self.table_file}", rows[0], (row.values() for row in rows))

    def _rows(self, predicted: np.ndarray, references: np.ndarray) -> list[dict[str, Any]]:
        return per_label(self.chosen(predicted), references, self.label_names, self.thresholds)

    def prediction(self, activated: np.ndarray) -> MultiLabelPrediction:
        """Make the prediction: the labels at or above their threshold, and the probability of each label."""
        scores = {name: float(p) for name, p in zip(self.label_names, activated, strict=True)}
        labels = [self.label_names[i] for i in np.flatnonzero(self.chosen(activated))]
        return MultiLabelPrediction(sorted(labels, key=lambda name: -scores[name]), scores)

    def columns(self, activated: np.ndarray, probabilities: bool = False) -> pyarrow.Table:
        """Make `predicted_labels`, in the order of their ids; and `probability_LABEL` of each label."""
        columns = {"predicted_labels": self.shown(activated)}
        if probabilities:
            columns |= {f"probability_{name}": activated[:, i] for i, name in enumerate(self.label_names)}
        return pyarrow.table(columns)

    def lines(self, prediction: MultiLabelPrediction, top_k: int) -> list[str]:
        """Write a line for each label predicted, and for further ones up to `top_k`, with the threshold they miss."""
        thresholds = dict(zip(self.label_names, self.thresholds, strict=True))
        likeliest = sorted(prediction.scores, key=lambda name: -prediction.scores[name])
        others = [name for name in likeliest if name not in prediction.labels]
        missed = others[: max(0, top_k - len(prediction.labels))]
        return [
            *(f"{prediction.scores[name]:.4f}  {printable(name)}" for name in prediction.labels),
            *(f"{prediction.scores[n]:.4f}  not {printable(n)} (below {thresholds[n]:.4f})" for n in missed),
        ]


class MultiLabelClassification(TextInputs):
    """Learns a set of labels for each text or pair of texts. See `Task`."""

    recipe: MultiLabelRecipe
    label_kind = LabelSets
    title = "Multi-label text classifier"

    @staticmethod
    def outputs_of(model: PreTrainedModel) -> LabelSetOutputs:
        """Interpret the outputs of a trained model by its labels and its thresholds. Raises: ModelError: damaged."""
        names, found = label_names_of(model), getattr(model.config, "label_thresholds", None)
        thresholds: dict[str, Any] = found if isinstance(found, dict) else {}
        are_shares = all(isinstance(value, float) and 0 < value < 1 for value in thresholds.values())
        if thresholds.keys() != set(names) or not are_shares:
            raise ModelError(
                "config.json: label_thresholds must have a number between 0 and 1 for each label; copy the file from "
                "where the run was made, or train again"
            )
        separator = getattr(model.config, "label_separator", None) or SEPARATORS[0]
        return LabelSetOutputs(names, tuple(thresholds[name] for name in names), separator=separator)

    @property
    def outputs(self) -> LabelSetOutputs:
        """Interpret the outputs of the model by the labels of the data; thresholds to be tuned begin at 0.5."""
        names, setting = self.data.label_names, threshold_of(self.recipe)
        tuning, start = (setting, 0.5) if isinstance(setting, str) else (None, setting)
        unused = (sign for sign in SEPARATORS if not any(sign in name for name in names))
        separator = self.recipe.data.label_separator or next(unused, SEPARATORS[0])
        return LabelSetOutputs(names, (start,) * len(names), tuning, separator)

    @cached_property
    def _train(self) -> tuple[list[str], np.ndarray]:
        """The label names, and the labels of the raw rows of train as 0 and 1, (rows, labels)."""
        with progress_bars(False):
            raw, labels = LabelSets.load(self.recipe.data, self.recipe.seed)
            return labels.names, labels.indicators(raw["train"])

    def label_names(self) -> list[str]:
        """Read the labels of the raw rows."""
        return self._train[0]

    def label_counts(self) -> dict[str, int]:
        """Count the rows of train for each label."""
        names, indicators = self._train
        return label_counts(indicators, names)

    def num_rows(self) -> int:
        """Count the raw rows of train."""
        return len(self._train[1])

    def build_model(self, label_names: Sequence[str], pretrained: bool = True) -> PreTrainedModel:
        """Build the encoder with pooling and a head; Transformers then computes a sigmoid for each label."""
        model = super().build_model(label_names, pretrained)
        model.config.problem_type = "multi_label_classification"
        return model

    def make_loss(self) -> BinaryLoss:
        """Make the binary cross-entropy with the class weights of the recipe.

        Raises:
            TrainingError: the weights do not name exactly the labels, or a balanced one would be infinite.
        """
        section, counts = self.recipe.loss, self.label_counts()
        if section.class_weights is None:
            return BinaryLoss(None, section.label_smoothing)
        if section.class_weights == "balanced":
            refuse_absent(counts)
            num_rows = len(self._train[1])
            # A label that every row has would weigh nothing.
            weights = [max(num_rows - count, 1) / count for count in counts.values()]
        else:
            weights = given_weights(section.class_weights, list(counts))
        return BinaryLoss(torch.tensor(weights, dtype=torch.float32), section.label_smoothing)

    def describe_data(self) -> dict[str, Any]:
        """Describe the splits as for every text; also `labels_per_row`, and `without_label`, a number of rows."""
        report = super().describe_data()
        for split, described in report.items():
            counts = self.data.labels(split).sum(-1)
            described |= {"labels_per_row": float(counts.mean()), "without_label": int((counts == 0).sum())}
        return report

    def format_report(self, report: dict[str, Any]) -> str:
        """Write the data report as tables, and a line about the sizes of the label sets."""
        parts = [
            f"{of['labels_per_row']:.2f} in {split} ({of['without_label']:,} row(s) without a label)"
            for split, of in report.items()
        ]
        return f"{super().format_report(report)}\nlabels of a row: {', '.join(parts)}"

    def score_baselines(self) -> Scores:
        """Score no label, the most frequent set of labels, and a logistic regression on TF-IDF for each label."""
        data, splits = self.data, held_out(self.data.encoded)
        references = {split: data.labels(split) for split in splits}
        linear = LogisticRegression(C=10, solver="liblinear")
        with warnings.catch_warnings():
            # A label that all rows of train have, or none, gets a constant answer.
            warnings.filterwarnings("ignore", message="Label .* is present in all training examples")
            words = predict_by_words(data, OneVsRestClassifier(linear), splits, probabilities=True)
        outputs = self.outputs
        if "validation" in words:
            outputs = outputs.tuned(words["validation"], references["validation"])
        fixed = replace(outputs, thresholds=(0.5,) * len(data.label_names))
        most = most_frequent_set(data.labels("train"))
        return {
            split: {
                "no_label": fixed.score(np.zeros(of.shape), of),
                "majority_set": fixed.score(np.tile(most.astype(float), (len(of), 1)), of),
                "tfidf_logistic_regression": outputs.score(words[split], of),
            }
            for split, of in references.items()
        }

    def card(self, model: PreTrainedModel) -> Card:
        """Describe the model for the model card; its pipeline call gives the probabilities of all labels."""
        card = super().card(model)
        return replace(card, call=f"{card.call}, top_k=None")
