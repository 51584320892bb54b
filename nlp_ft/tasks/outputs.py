"""What the outputs of a model mean: predictions, losses of rows, scores, tables, and how a prediction is shown.

The loop, the evaluation, the run folder and `predict` know `Outputs` alone; each kind of task has its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from nlp_ft.tables import text_table


class Outputs(Protocol):
    """One row of a model's logits is one prediction."""

    shown_metrics: ClassVar[tuple[str, ...]]
    """Names of the scores that tables show, in their order."""
    columns: ClassVar[Mapping[str, type]]
    """What `predict` writes beside the input: name -> `str` or `float`."""

    def row_losses(self, logits: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """The loss of each row, (batch,), of logits (batch, outputs) in float32 and references (batch,)."""
        ...

    def decode(self, logits: torch.Tensor) -> torch.Tensor:
        """The prediction of each row, (batch,): a label id or a number."""
        ...

    def activate(self, logits: torch.Tensor) -> torch.Tensor:
        """What `predict` reports of each row, (batch, outputs): probabilities or numbers."""
        ...

    def score(self, predicted: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Every score by name, but for the loss; each array (rows,)."""
        ...

    def table(self, predicted: np.ndarray, references: np.ndarray) -> str:
        """What `eval` prints above the scores; empty for nothing."""
        ...

    def write_tables(self, folder: Path, split: str, predicted: np.ndarray, references: np.ndarray) -> None:
        """Files of the run folder that people open, their names beginning with the split's."""
        ...

    def prediction(self, activated: np.ndarray) -> Any:
        """What `predict` gives for one input, from its row of `activate`, (outputs,)."""
        ...

    def values(self, activated: np.ndarray) -> tuple[Sequence[Any], ...]:
        """The values of each of `columns`, from rows of `activate`, (rows, outputs)."""
        ...

    def lines(self, prediction: Any, top_k: int) -> list[str]:
        """A prediction as the command line prints it."""
        ...


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for every row of a split, in the order of the rows; each array (rows,)."""

    outputs: Outputs
    predicted: np.ndarray
    references: np.ndarray
    losses: np.ndarray

    def scores(self) -> dict[str, float]:
        """Every metric by name, `loss` among them."""
        return {"loss": float(self.losses.mean()), **self.outputs.score(self.predicted, self.references)}

    def table(self) -> str:
        """See `Outputs.table`."""
        return self.outputs.table(self.predicted, self.references)

    def write_tables(self, folder: Path, split: str) -> None:
        """See `Outputs.write_tables`."""
        self.outputs.write_tables(folder, split, self.predicted, self.references)


def score_table(scores: Mapping[str, Mapping[str, float]], shown: Sequence[str]) -> str:
    """A row for each scored thing (`validation`, `test`, a baseline), a column for each metric of `shown`."""
    names = [name for name in shown if any(name in values for values in scores.values())]
    rows = [
        [title, *(f"{values[name]:.4f}" if name in values else "-" for name in names)]
        for title, values in scores.items()
    ]
    return text_table(["", *(name.replace("_", " ") for name in names)], rows, right=range(1, len(names) + 1))
