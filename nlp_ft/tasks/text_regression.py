"""Text regression: a number, or several, for each text or pair of texts, such as how alike two sentences are."""

import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow
import torch
from transformers import PreTrainedModel

from nlp_ft.data.report import describe_data
from nlp_ft.data.sources import label_columns
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.text_labels import NumberLabels
from nlp_ft.errors import DataError, ModelError, printable
from nlp_ft.models.labels import label_names as label_names_of
from nlp_ft.models.scaling import in_float32, last_linear, scale_outputs
from nlp_ft.tables import terminal_width, text_table, wrapped
from nlp_ft.tasks.baselines import Scores, held_out, predict_by_words
from nlp_ft.tasks.losses import SquaredLoss
from nlp_ft.tasks.outputs import write_csv
from nlp_ft.tasks.row_outputs import RowOutputs
from nlp_ft.tasks.task import Card
from nlp_ft.tasks.text_inputs import TextInputs

METRICS = ("spearman", "pearson", "mse", "rmse", "mae")


@dataclass(frozen=True)
class NumberOutputs(RowOutputs):
    """Outputs of a regression: a number for each row, or several. See `Outputs`.

    While it trains, a model gives numbers less their mean, in units of their deviation. Predictions, references and
    scores are in the unit of the data; the loss is in units of the deviations.

    Args:
        names: the names of the numbers, in their order.
        means: of each number in train.
        deviations: of each number in train, above 0.
        is_scaled: whether the model itself gives numbers in the unit of the data, as a saved model does.
    """

    names: tuple[str, ...] = ("number",)
    means: tuple[float, ...] = (0.0,)
    deviations: tuple[float, ...] = (1.0,)
    is_scaled: bool = False
    shown_metrics: ClassVar[tuple[str, ...]] = ("spearman", "pearson", "rmse", "mae")
    correlation: ClassVar[str] = "spearman"
    progress_metrics: ClassVar[tuple[str, str]] = ("spearman", "pearson")
    without_probabilities: ClassVar[str] = "predicts numbers, which have no probabilities"
    without_confidence: ClassVar[str] = "predicts numbers, which have no probabilities"
    numbers_shown: ClassVar[str] = ""
    table_file: ClassVar[str] = "per_number.csv"

    def row_losses(self, logits: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """Compute the squared error of each row, in units of the deviation, as mean over its numbers."""
        errors = self.activate(logits) - references.view_as(logits)
        return (errors / torch.tensor(self.deviations)).square().mean(-1)

    def row_scores(self, logits: torch.Tensor) -> None:
        """Return None: a number comes without a probability."""

    def decode(self, logits: torch.Tensor) -> torch.Tensor:
        """Take the number, (batch,); or the numbers, (batch, numbers)."""
        numbers = self.activate(logits)
        return numbers.squeeze(-1) if len(self.names) == 1 else numbers

    def shown(self, decoded: np.ndarray) -> pyarrow.Array:
        """Keep the numbers; several form a list."""
        return pyarrow.array(decoded if decoded.ndim == 1 else decoded.tolist())

    def activate(self, logits: torch.Tensor) -> torch.Tensor:
        """Report the numbers in the unit of the data, (batch, numbers)."""
        if self.is_scaled:
            return logits
        scale = {"device": logits.device, "dtype": logits.dtype}
        return logits * torch.tensor(self.deviations, **scale) + torch.tensor(self.means, **scale)  # type: ignore[arg-type]

    def score(self, predicted: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Compute the scores of `scores_of_number`; of several numbers their means, a correlation's where it exists."""
        found = self._scores(predicted, references)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Mean of empty slice")
            return {metric: float(np.nanmean([scores[metric] for scores in found])) for metric in METRICS}

    def _scores(self, predicted: np.ndarray, references: np.ndarray) -> list[dict[str, float]]:
        columns = (values.reshape(len(values), -1).T for values in (predicted, references))
        return [scores_of_number(p, r) for p, r in zip(*columns, strict=True)]

    def write_to(self, model: PreTrainedModel) -> None:
        """Make the model give numbers in the unit of the data, and record means and deviations in its configuration."""
        scale_outputs(model, torch.tensor(self.deviations), torch.tensor(self.means))
        scales = zip(self.means, self.deviations, strict=True)
        model.config.label_scales = [{"mean": mean, "deviation": deviation} for mean, deviation in scales]

    def exact(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Compute the last layer in float32: its numbers are in the unit of the data, however large that makes them."""
        layer = last_linear(model, len(self.names))
        return nullcontext() if layer is None else in_float32(layer)

    def constant_loss(self, references: np.ndarray) -> float:
        """Compute the mean over the numbers of their variance, in units of the deviation in train."""
        variances = references.reshape(len(references), -1).var(0, dtype=np.float64)
        return float((variances / np.square(self.deviations)).mean())

    def margin(self, metric: str, value: float, num_rows: int) -> float:
        """Estimate it for a correlation, whose standard error is about (1 - r^2) / sqrt(rows)."""
        return 1.96 * (1 - value**2) / math.sqrt(num_rows) if metric in ("spearman", "pearson") else 0.0

    def table(self, predicted: np.ndarray, references: np.ndarray, most: int | None = None) -> str:
        """Show the scores of each number; an empty string for one number, whose scores say all."""
        if len(self.names) == 1:
            return ""
        scores = list(zip(self.names, self._scores(predicted, references), strict=True))[:most]
        cells = [[name, *(f"{of_name[metric]:.4f}" for metric in METRICS)] for name, of_name in scores]
        return text_table(["number", *METRICS], cells, range(1, 1 + len(METRICS)), terminal_width())

    def write_tables(self, folder: Path, split: str, predicted: np.ndarray, references: np.ndarray) -> None:
        """Write `<split>_per_number.csv` with the scores of each number, if there are several."""
        if len(self.names) == 1:
            return
        scores = zip(self.names, self._scores(predicted, references), strict=True)
        rows = ([name, *(of_name[metric] for metric in METRICS)] for name, of_name in scores)
        write_csv(folder / f"{split}_{self.table_file}", ["number", *METRICS], rows)

    def prediction(self, activated: np.ndarray) -> float | dict[str, float]:
        """Return the number predicted for one input, or the numbers by name."""
        numbers = [float(value) for value in activated]
        return numbers[0] if len(numbers) == 1 else dict(zip(self.names, numbers, strict=True))

    def columns(self, activated: np.ndarray, probabilities: bool = False) -> pyarrow.Table:
        """Make the column `predicted_number`, or `predicted_NAME` for each of several numbers.

        Raises:
            DataError: numbers have no probabilities.
        """
        if probabilities:
            raise DataError(f"--probabilities: this run {self.without_probabilities}")
        names = ("number",) if len(self.names) == 1 else self.names
        return pyarrow.table({f"predicted_{name}": activated[:, i] for i, name in enumerate(names)})

    def lines(self, prediction: float | dict[str, float], top_k: int) -> list[str]:
        """Write each number with four decimals, several with their names."""
        if not isinstance(prediction, dict):
            return [f"{prediction:.4f}"]
        return [f"{value:.4f}  {printable(name)}" for name, value in prediction.items()]


def scores_of_number(predicted: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Compute Spearman and Pearson correlation (NaN for one row or a constant side), and squared and absolute errors.

    Args:
        predicted: numbers, (rows,).
        references: numbers, (rows,).
    """
    errors = predicted.astype(np.float64) - references
    from scipy import stats  # takes seconds to import, and training can begin without it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # constant, or nearly so
        kinds = (stats.spearmanr, stats.pearsonr)
        spearman, pearson = (f(predicted, references).statistic if len(predicted) > 1 else math.nan for f in kinds)
    mse = float(np.square(errors).mean())
    return {
        "spearman": float(spearman),
        "pearson": float(pearson),
        "mse": mse,
        "rmse": math.sqrt(mse),
        "mae": float(np.abs(errors).mean()),
    }


class TextRegression(TextInputs):
    """Learns a number, or several, for each text or pair of texts. See `Task`."""

    label_kind = NumberLabels
    title = "Text regressor"
    _learns_mean = True
    """Whether the model's last layer has a bias, which takes up the means of the numbers when it is saved."""

    @staticmethod
    def outputs_of(model: PreTrainedModel) -> NumberOutputs:
        """Interpret the outputs of a trained model as numbers in the unit of the data. Raises: ModelError: damaged."""
        names = tuple(label_names_of(model))
        scales = getattr(model.config, "label_scales", [{"mean": 0.0, "deviation": 1.0}] * len(names))
        try:
            means, deviations = (tuple(float(of[key]) for of in scales) for key in ("mean", "deviation"))
        except (TypeError, KeyError, ValueError):
            means, deviations = (), ()
        if len(means) != len(names) or not all(0 < value < math.inf for value in deviations):
            raise ModelError("config.json: label_scales must have a mean and a deviation above 0 for each number")
        return NumberOutputs(names, means, deviations, is_scaled=True)

    @property
    def outputs(self) -> NumberOutputs:
        """Interpret the outputs of the model as numbers, in units of their deviation in train."""
        means, deviations = self._scales
        return NumberOutputs(tuple(self.label_names()), means if self._learns_mean else (0.0,) * len(means), deviations)

    @cached_property
    def _scales(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of each number in train; a number that is the same in all rows has the deviation 1."""
        if "data" in vars(self):
            numbers = self.data.labels("train")
        else:
            with progress_bars(False):
                raw, labels = NumberLabels.load(self.recipe.data, self.recipe.seed)
                numbers = np.array(labels.encode(raw["train"].select_columns(labels.columns)[:]), np.float32)
        columns = numbers.reshape(len(numbers), -1)
        deviations = [1.0 if same else float(d) for same, d in zip(np.ptp(columns, 0) == 0, columns.std(0, np.float64))]
        return tuple(columns.mean(0, np.float64).tolist()), tuple(deviations)

    def label_counts(self) -> dict[str, int]:
        """Count the rows of train, under the names of the label columns."""
        return dict.fromkeys(self.label_names(), self.num_rows())

    def num_rows(self) -> int:
        """Count the raw rows of train."""
        with progress_bars(False):
            return len(NumberLabels.load(self.recipe.data, self.recipe.seed)[0]["train"])

    def label_names(self) -> list[str]:
        """Return the names of the label columns, which name the outputs of the model."""
        return label_columns(self.recipe.data)

    def build_model(self, label_names: Sequence[str], pretrained: bool = True) -> PreTrainedModel:
        """Build the encoder with pooling and a head of a unit for each number. Raises: ModelError."""
        names = self.label_names()
        model = super().build_model(names, pretrained)
        model.config.problem_type = "regression"
        layer = last_linear(model, len(names))
        if layer is None:
            raise ModelError(
                f"model.name: {self.recipe.model.name} has no linear layer of {len(names)} unit(s) at its end"
            )
        self._learns_mean = layer.bias is not None
        if pretrained and self.recipe.model.keep_head:
            # The head that is kept gives numbers in the unit of the data; it learns in units of their deviation.
            outputs = self.outputs
            means, deviations = (
                torch.tensor(values, dtype=torch.float64) for values in (outputs.means, outputs.deviations)
            )
            scale_outputs(model, 1 / deviations, -means / deviations)
        return model

    def make_loss(self) -> SquaredLoss:
        """Make the squared-error loss, in units of the deviations in train."""
        outputs = self.outputs
        return SquaredLoss(torch.tensor(outputs.means), torch.tensor(outputs.deviations))

    def describe_data(self) -> dict[str, Any]:
        """Describe rows, numbers, token lengths and odd texts of each split."""
        return describe_data(self.data, self.label_names())

    def format_report(self, report: dict[str, Any]) -> str:
        """Write the data report as tables, and name a number that is the same in every row of train."""
        names, columns = self.label_names(), self.data.labels("train").reshape(report["train"]["rows"], -1).T
        lines = [
            f"look: every row of train has the number {column[0]:g} in column {name!r}: a model can learn nothing else "
            "from it; take the column out, or add other rows"
            for name, column in zip(names, columns, strict=True)
            if np.ptp(column) == 0
        ]
        return "\n".join([super().format_report(report), *map(wrapped, lines)])

    def score_baselines(self) -> Scores:
        """Score the mean of train, which has no correlation, and a ridge regression on TF-IDF."""
        from sklearn.linear_model import Ridge

        data = self.data
        mean = data.labels("train").mean(0)
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
        card = super().card(model)
        numbers = label_names_of(model)
        call = card.call if len(numbers) == 1 else f"{card.call}, top_k=None"
        return replace(card, labels=(), numbers=numbers, call=call)
