"""Text regression: a number for each text or pair of texts, such as how alike two sentences are."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow
import torch
from transformers import PreTrainedModel

from nlp_ft.data.splits import progress_bars
from nlp_ft.data.text import TextData, load_numbered_splits, load_text_data
from nlp_ft.errors import DataError
from nlp_ft.tasks.baselines import Scores, held_out, predict_by_words
from nlp_ft.tasks.losses import SquaredLoss
from nlp_ft.tasks.task import Card
from nlp_ft.tasks.text_inputs import TextInputs


class NumberOutputs:
    """Outputs of a regression: one number for each row. See `Outputs`."""

    shown_metrics: ClassVar[tuple[str, ...]] = ("spearman", "pearson", "mse", "mae")
    correlation: ClassVar[str] = "spearman"
    progress_metrics: ClassVar[tuple[str, str]] = ("spearman", "pearson")
    table_file: ClassVar[str] = "predictions.csv"

    def row_losses(self, logits: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """Compute the squared error of each row."""
        return (logits.squeeze(-1) - references).square()

    def row_scores(self, logits: torch.Tensor) -> None:
        """Return None: a number comes without a probability."""

    def decode(self, logits: torch.Tensor) -> torch.Tensor:
        """Take the number itself."""
        return logits.squeeze(-1)

    def shown(self, decoded: np.ndarray) -> pyarrow.Array:
        """Keep the numbers."""
        return pyarrow.array(decoded)

    def activate(self, logits: torch.Tensor) -> torch.Tensor:
        """Report the number itself, (batch, 1)."""
        return logits

    def score(self, predicted: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Compute Spearman and Pearson correlation (NaN if a side is constant), mean squared and absolute error."""
        from scipy import stats  # takes seconds to import, and training can begin without it

        errors = predicted.astype(np.float64) - references
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            spearman, pearson = (f(predicted, references).statistic for f in (stats.spearmanr, stats.pearsonr))
        return {
            "spearman": float(spearman),
            "pearson": float(pearson),
            "mse": float(np.square(errors).mean()),
            "mae": float(np.abs(errors).mean()),
        }

    def constant_loss(self, references: np.ndarray) -> float:
        """Compute the variance of the numbers."""
        return float(references.var())

    def counts(self, values: np.ndarray) -> dict[str, int]:
        """Return nothing: numbers have no labels."""
        return {}

    def margin(self, metric: str, value: float, num_rows: int) -> float:
        """Estimate it for a correlation, whose standard error is about (1 - r^2) / sqrt(rows)."""
        return 1.96 * (1 - value**2) / math.sqrt(num_rows) if metric in ("spearman", "pearson") else 0.0

    def table(self, predicted: np.ndarray, references: np.ndarray, most: int | None = None) -> str:
        """Return an empty string: the scores say all."""
        return ""

    def write_tables(self, folder: Path, split: str, predicted: np.ndarray, references: np.ndarray) -> None:
        """Write nothing: the scores and the predictions say all."""

    def prediction(self, activated: np.ndarray) -> float:
        """Return the number predicted for one input."""
        return float(activated[0])

    def columns(self, activated: np.ndarray, probabilities: bool = False) -> pyarrow.Table:
        """Make the column `predicted_number`. Raises: DataError: numbers have no probabilities."""
        if probabilities:
            raise DataError("--probabilities: this run predicts numbers, which have no probabilities")
        return pyarrow.table({"predicted_number": activated[:, 0]})

    def lines(self, prediction: float, top_k: int) -> list[str]:
        """Write the number with four decimals."""
        return [f"{prediction:.4f}"]


class TextRegression(TextInputs):
    """Learns a number for each text or pair of texts. See `Task`."""

    has_numbers = True
    title = "Text regressor"

    @staticmethod
    def outputs_of(model: PreTrainedModel) -> NumberOutputs:
        """Interpret the outputs of a trained model as numbers."""
        return NumberOutputs()

    @property
    def outputs(self) -> NumberOutputs:
        """Interpret the outputs of the model as numbers."""
        return NumberOutputs()

    @cached_property
    def data(self) -> TextData:
        """The tokenized splits, whose labels are numbers. Raises: NlpFtError."""
        return load_text_data(self.recipe.data, self.tokenizer, has_numbers=True)

    def label_counts(self) -> dict[str, int]:
        """Count the rows of train, under the name of the label column."""
        with progress_bars(False):
            rows = load_numbered_splits(self.recipe.data)["train"]
        return {self.recipe.data.label: len(rows)}

    def label_names(self) -> list[str]:
        """Return the name of the label column, which names the model's one output."""
        return [self.recipe.data.label]

    def build_model(self, label_names: Sequence[str], pretrained: bool = True) -> PreTrainedModel:
        """Build the encoder with pooling and a head of one number. Raises: ModelError."""
        model = super().build_model(self.label_names(), pretrained)
        model.config.problem_type = "regression"
        return model

    def make_loss(self) -> SquaredLoss:
        """Make the squared-error loss."""
        return SquaredLoss()

    def score_baselines(self) -> Scores:
        """Score the mean of train, which has no correlation, and a ridge regression on TF-IDF."""
        from sklearn.linear_model import Ridge

        data = self.data
        mean = data.labels("train").mean()
        by_words = predict_by_words(data, Ridge(), held_out(data.encoded))
        return {
            split: {
                "mean": self._finite_scores(np.full_like(predicted, mean), data.labels(split)),
                "tfidf_ridge": self._finite_scores(predicted, data.labels(split)),
            }
            for split, predicted in by_words.items()
        }

    def _finite_scores(self, predicted: np.ndarray, references: np.ndarray) -> dict[str, float]:
        scores = self.outputs.score(predicted, references)
        return {name: value for name, value in scores.items() if not math.isnan(value)}

    def card(self, model: PreTrainedModel) -> Card:
        """Describe the model for the model card, without labels."""
        return replace(super().card(model), labels=())
