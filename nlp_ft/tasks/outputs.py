"""The protocol of a model's outputs: how logits become predictions, losses, scores, tables and text.

The loop, the evaluation, the run folder and `predict` know `Outputs` alone; each kind of task has its own.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow
import torch
from transformers import PreTrainedModel

from nlp_ft.data.row_writers import CsvWriter
from nlp_ft.data.windows import Windows
from nlp_ft.tables import text_table

ROWS_TOGETHER = 1000
"""Rows whose inputs are read together: a row may be an image."""


class Outputs(Protocol):
    """Interprets the logits of a model, for one batch and then for whole rows."""

    shown_metrics: ClassVar[tuple[str, ...]]
    """Scores that tables show, in this order."""
    correlation: ClassVar[str]
    """The score that is near 0 for answers without any knowledge."""
    progress_metrics: ClassVar[tuple[str, str]]
    """Scores that the line of an evaluation shows; the first gives way to the metric that selects the weights."""
    without_probabilities: ClassVar[str]
    """Why an input has no probability for each label, after "this run"; empty where it has."""
    without_confidence: ClassVar[str]
    """Why a prediction has no probability that it is right, after "this run"; empty where it has."""
    numbers_shown: ClassVar[str]
    """What the numbers in `lines` are, in words; empty where they are the prediction itself."""
    table_file: ClassVar[str]
    """Ending of the file, after the split and an underscore, that `write_tables` writes for the rows of `table`."""

    def of_batch(
        self, logits: torch.Tensor, batch: dict[str, torch.Tensor], windows: Windows
    ) -> dict[str, torch.Tensor]:
        """Take from the logits what the evaluation keeps of a batch of encoded rows.

        Args:
            logits: (batch, ...), in float32.
            batch: the batch, with `labels`, (batch, ...).
            windows: which row each encoded row of the split belongs to.

        Returns:
            Tensors that begin with (batch, ...). If the second axis differs between batches, shorter ones are filled up
            with -100.
        """
        ...

    def of_rows(self, kept: dict[str, np.ndarray], windows: Windows) -> dict[str, np.ndarray]:
        """Put what `of_batch` kept of all batches together to one value for each row.

        Args:
            kept: the arrays of `of_batch`, (encoded rows, ...), in the order of the encoded rows.
            windows: which row each of them belongs to.

        Returns:
            `predicted`, `references`, `losses` and, where the outputs say how sure they are, `row_scores`; all (rows,
            ...).
        """
        ...

    def shown(self, decoded: np.ndarray) -> pyarrow.Array:
        """Write predictions or references, (rows,), as people read them: label names or numbers.

        Predictions may have several fields: a struct array, each field of which becomes a column.
        """
        ...

    def activate(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits into what `predict` reports, (batch, outputs): probabilities or numbers."""
        ...

    def score(self, predicted: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Compute every score except the loss, by name; both arrays are (rows,)."""
        ...

    def tuned(self, predicted: np.ndarray, references: np.ndarray) -> "Outputs":
        """Return the outputs with what they leave to tuning tuned on rows of validation, such as thresholds.

        Args:
            predicted: predictions for these rows, (rows, ...); they do not depend on what is tuned.
            references: labels of these rows, (rows, ...).
        """
        ...

    def undecided(self) -> "Outputs | None":
        """Return outputs whose predictions are still logits, (rows, labels), and whose references are label ids.

        They are what a temperature is fitted on; None where a prediction is not one label of several.
        """
        ...

    def write_to(self, model: PreTrainedModel) -> None:
        """Prepare a trained model for saving: put into it, and its configuration, what `Task.outputs_of` relies on."""
        ...

    def exact(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Make a saved model compute in float32, inside the block, what half precision would round too far."""
        ...

    def constant_loss(self, references: np.ndarray) -> float:
        """Compute the least mean loss of a model that gives every row the same answer; references are (rows,)."""
        ...

    def counts(self, values: np.ndarray) -> dict[str, int]:
        """Count the rows of each label among predictions or references, (rows,); empty for numbers."""
        ...

    def margin(self, metric: str, value: float, num_rows: int) -> float:
        """Estimate half the width of the 95 % interval around a score of `num_rows` rows; 0 if that is not known."""
        ...

    def table(self, predicted: np.ndarray, references: np.ndarray, most: int | None = None) -> str:
        """Make the table that stands above the scores on the screen; an empty string prints none.

        Args:
            predicted: predictions, (rows,).
            references: labels or numbers, (rows,).
            most: rows that the table may have; None shows all.
        """
        ...

    def write_tables(self, folder: Path, split: str, predicted: np.ndarray, references: np.ndarray) -> None:
        """Write tables for people to open; each file name begins with the name of the split."""
        ...

    def prediction(self, activated: np.ndarray) -> Any:
        """Make the prediction for one input from its row of `activate`, (outputs,)."""
        ...

    def columns(self, activated: np.ndarray, probabilities: bool = False) -> pyarrow.Table:
        """Make the columns that `predict` writes beside the input.

        Args:
            activated: rows of `activate`, (rows, outputs).
            probabilities: whether to add a column `probability_LABEL` for each label.

        Raises:
            DataError: the outputs have no probabilities.
        """
        ...

    def lines(self, prediction: Any, top_k: int) -> list[str]:
        """Write a prediction as lines for the command line."""
        ...


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for every row of a split, in the order of the rows; each array (rows,) or (rows, labels).

    Args:
        outputs: the meaning of the values.
        predicted: what `Outputs.decode` gives.
        references: the same of the data.
        losses: the loss of each row.
        row_scores: how sure the model is of each prediction; None where it does not say.
        inputs: reads the inputs of rows, see `Data.inputs`.
    """

    outputs: Outputs
    predicted: np.ndarray
    references: np.ndarray
    losses: np.ndarray
    row_scores: np.ndarray | None
    inputs: Callable[[np.ndarray], pyarrow.Table]

    @property
    def confidences(self) -> np.ndarray | None:
        """The probability of each prediction, (rows,); None where `Outputs.without_confidence` says why."""
        if self.outputs.without_confidence or self.row_scores is not None:
            return self.row_scores
        found: np.ndarray = self.outputs.shown(self.predicted).field("score").to_numpy()
        return found

    def kept(self, rows: np.ndarray) -> "Predictions":
        """Keep some rows, given by their numbers, (kept,)."""
        return Predictions(
            self.outputs,
            self.predicted[rows],
            self.references[rows],
            self.losses[rows],
            None if self.row_scores is None else self.row_scores[rows],
            lambda places: self.inputs(rows[places]),
        )

    def scores(self) -> dict[str, float]:
        """Compute every metric by name, the loss included; they are computed once."""
        return dict(self._scores)

    def scores_with_confidence(self) -> dict[str, float]:
        """Compute every metric, and `confidence`: the mean probability of the predictions, where they have one."""
        confidences = None if self.outputs.without_confidence else self.confidences
        return self.scores() | ({} if confidences is None else {"confidence": float(confidences.mean())})

    @cached_property
    def _scores(self) -> dict[str, float]:
        return {"loss": float(self.losses.mean()), **self.outputs.score(self.predicted, self.references)}

    def margins(self, metric: str = "") -> dict[str, float]:
        """Estimate half the width of the 95 % interval of `metric` and of `progress_metrics`, where it is known."""
        names = [name for name in dict.fromkeys((metric, *self.outputs.progress_metrics)) if name in self._scores]
        values = {name: min(max(self._scores[name], -1.0), 1.0) for name in names}
        margins = {name: self.outputs.margin(name, value, len(self.losses)) for name, value in values.items()}
        return {name: margin for name, margin in margins.items() if margin > 0}

    def intervals(self, margins: Mapping[str, float]) -> str:
        """Say how far the scores of so few rows can be from those of many, given `margins`."""
        rows = f"{len(self.losses):,} rows"
        said = [f"{name.replace('_', ' ')} {self._scores[name]:.4f} ± {width:.4f}" for name, width in margins.items()]
        return f"{', '.join(said)} (95 % interval for {rows})" if said else rows

    def table(self, most: int | None = None) -> str:
        """Make the table of `Outputs.table` for these predictions."""
        return self.outputs.table(self.predicted, self.references, most)

    def by_loss(self) -> Iterator[tuple[pyarrow.Table, pyarrow.Table]]:
        """Read all rows, the highest loss first, so that the mistakes come first; `ROWS_TOGETHER` at a time.

        Yields:
            A table of `row` (its number in the data that was read, from 0) and the inputs; and a table of `reference`,
            `predicted`, `score` (if the model says how sure it is) and `loss`.
        """
        # A loss that is no number comes first too.
        order = np.argsort(-np.nan_to_num(self.losses, nan=np.inf), kind="stable")
        for start in range(0, len(order), ROWS_TOGETHER):
            rows = order[start : start + ROWS_TOGETHER]
            columns = {"reference": self.outputs.shown(self.references[rows])}
            predicted = self.outputs.shown(self.predicted[rows])
            if pyarrow.types.is_struct(predicted.type):
                columns |= {f"predicted_{name}": predicted.field(name) for name in predicted.type.names}
            else:
                columns["predicted"] = predicted
            if self.row_scores is not None:
                columns["score"] = pyarrow.array(self.row_scores[rows], pyarrow.float32())
            columns["loss"] = pyarrow.array(self.losses[rows], pyarrow.float32())
            yield self.inputs(rows), pyarrow.table(columns)

    def write_tables(self, folder: Path, split: str) -> None:
        """Write `<split>_predictions.csv`, see `by_loss`, and the tables of `Outputs.write_tables`."""
        self.write_rows(folder / f"{split}_predictions.csv")
        self.outputs.write_tables(folder, split, self.predicted, self.references)

    def write_rows(self, file: Path) -> None:
        """Write the rows of `by_loss` to a CSV file."""
        with file.open("wb") as stream:
            writer = CsvWriter(stream)
            for inputs, predicted in self.by_loss():
                writer.write(inputs, predicted)
            writer.finish()


def write_csv(file: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table to a CSV file."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def score_table(scores: Mapping[str, Mapping[str, float]], shown: Sequence[str], width: int | None = None) -> str:
    """Make a table with a row for each split or baseline and a column for each metric of `shown`.

    Args:
        scores: split or baseline -> metric -> value.
        shown: names of metrics, in the order of the columns.
        width: columns of the screen; None, as for a file, shows every title in full.
    """
    names = [name for name in shown if any(name in values for values in scores.values())]
    rows = [
        [title, *(f"{values[name]:.4f}" if name in values else "-" for name in names)]
        for title, values in scores.items()
    ]
    return text_table(["", *(name.replace("_", " ") for name in names)], rows, range(1, len(names) + 1), width)
