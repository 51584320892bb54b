"""The outputs of multiple choice: from a score for each candidate to the chosen one."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow
import torch

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.choices.encoding import ChoiceWindows
from nlp_ft.data.windows import Windows
from nlp_ft.errors import printable
from nlp_ft.tables import terminal_width, text_table
from nlp_ft.tasks.choice_metrics import Gold, grouped, length_of_right, num_candidates, score_choices
from nlp_ft.tasks.default_outputs import DefaultOutputs
from nlp_ft.tasks.losses import choice_log_shares, choice_losses
from nlp_ft.tasks.metrics import margin_of_share
from nlp_ft.tasks.outputs import write_csv


@dataclass(frozen=True, order=True)
class Choice:
    """The chosen candidate of a row; two of them are equal if they choose the same place.

    Args:
        index: its place among the candidates, from 0.
        candidate: its text.
        score: its probability.
        candidates: the texts of all candidates.
        scores: their probabilities, in the same order.
    """

    index: int
    candidate: str = field(compare=False)
    score: float = field(compare=False)
    candidates: tuple[str, ...] = field(compare=False)
    scores: tuple[float, ...] = field(compare=False)


@dataclass(frozen=True)
class ChoiceOutputs(DefaultOutputs):
    """Outputs of multiple choice: a predicted value is a `Choice`, a reference is `Gold`. See `Outputs`."""

    shown_metrics: ClassVar[tuple[str, ...]] = ("accuracy", "above_chance", "loss")
    correlation: ClassVar[str] = "above_chance"
    progress_metrics: ClassVar[tuple[str, str]] = ("accuracy", "above_chance")
    table_file: ClassVar[str] = "by_length.csv"
    without_probabilities: ClassVar[str] = "chooses among the candidates of each row; each choice has their scores"
    numbers_shown: ClassVar[str] = "the probability of each candidate"

    def of_batch(
        self, logits: torch.Tensor, batch: dict[str, torch.Tensor], windows: Windows
    ) -> dict[str, torch.Tensor]:
        """Compute the probabilities of all candidates, `scores`, (batch, candidates), and the `losses`, (batch,)."""
        labels = batch["labels"]
        return {
            "scores": choice_log_shares(logits.double(), labels).exp(),
            "labels": labels,
            "losses": choice_losses(logits.double(), labels),
        }

    def of_rows(self, kept: dict[str, np.ndarray], windows: Windows) -> dict[str, np.ndarray]:
        """Choose the candidate with the highest probability; in a row of new inputs, no candidate is the right one."""
        assert isinstance(windows, ChoiceWindows)
        texts = windows.choices[windows.rows.tolist()]["candidates"]
        predicted, references = (np.empty(len(texts), object) for _ in range(2))
        for row, candidates in enumerate(map(tuple, texts)):
            scores = kept["scores"][row, : len(candidates)]
            best = int(scores.argmax())
            predicted[row] = Choice(best, candidates[best], float(scores[best]), candidates, tuple(scores.tolist()))
            references[row] = Gold(candidates, int(kept["labels"][row].argmax()))
        return {"predicted": predicted, "references": references, "losses": kept["losses"]}

    def shown(self, decoded: np.ndarray) -> pyarrow.Array:
        """Write the text of the right candidate; of predictions, write `candidate`, `index` and `score`."""
        if len(decoded) and isinstance(decoded[0], Gold):
            return pyarrow.array([gold.candidates[gold.index] for gold in decoded], pyarrow.string())
        return pyarrow.StructArray.from_arrays(
            [
                pyarrow.array([choice.candidate for choice in decoded], pyarrow.string()),
                pyarrow.array([choice.index for choice in decoded], pyarrow.int64()),
                pyarrow.array([choice.score for choice in decoded], pyarrow.float32()),
            ],
            names=["candidate", "index", "score"],
        )

    def activate(self, logits: torch.Tensor) -> torch.Tensor:
        """Keep the logits: choices need the candidates, too, see `of_rows`."""
        return logits

    def score(self, predicted: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Compute `accuracy` and `above_chance`, see `score_choices`."""
        return score_choices(_indices(predicted), list(references))

    def undecided(self) -> "UndecidedChoices":
        """Return outputs whose predictions are the logarithms of the probabilities."""
        return UndecidedChoices()

    def constant_loss(self, references: np.ndarray) -> float:
        """Compute the loss of a model that finds all candidates of a row equally likely."""
        return float(np.mean([math.log(len(gold.candidates)) for gold in references]))

    def margin(self, metric: str, value: float, num_rows: int) -> float:
        """Estimate it for accuracy; that of `above_chance` is the one at 0, for two candidates, which is the widest."""
        if metric == "loss":
            return 0.0
        return 1.96 / math.sqrt(num_rows) if metric == "above_chance" else margin_of_share(value, num_rows)

    def table(self, predicted: np.ndarray, references: np.ndarray, most: int | None = None) -> str:
        """Show the accuracy by the length of the right candidate: a model may have learned lengths."""
        rows = grouped(_indices(predicted), list(references), length_of_right)
        cells = [[name, f"{rows:,}", f"{accuracy:.4f}", f"{above:.4f}"] for name, rows, accuracy, above in rows]
        header = ["right candidate is", "rows", "accuracy", "above chance"]
        return text_table(header, cells, range(1, 4), terminal_width())

    def write_tables(self, folder: Path, split: str, predicted: np.ndarray, references: np.ndarray) -> None:
        """Write `<split>_by_length.csv` and `<split>_by_candidates.csv`, the number of candidates."""
        for name, group in (("length", length_of_right), ("candidates", num_candidates)):
            rows = grouped(_indices(predicted), list(references), group)
            write_csv(folder / f"{split}_by_{name}.csv", [name, "rows", "accuracy", "above_chance"], rows)

    def prediction(self, activated: Choice) -> Choice:
        """Return the choice for one input from its row of `of_rows`."""
        return activated

    def columns(self, activated: np.ndarray, probabilities: bool = False) -> pyarrow.Table:
        """Make `predicted_candidate`, `predicted_index` and `predicted_score`; and `probabilities`, a list."""
        shown = self.shown(activated)
        columns = {f"predicted_{name}": shown.field(name) for name in shown.type.names}
        if probabilities:
            lists = [[round(score, 6) for score in choice.scores] for choice in activated]
            columns["probabilities"] = pyarrow.array(lists, pyarrow.list_(pyarrow.float64()))
        return pyarrow.table(columns)

    def lines(self, prediction: Choice, top_k: int) -> list[str]:
        """Write a line for each of the `top_k` most likely candidates."""
        order = sorted(range(len(prediction.scores)), key=lambda index: -prediction.scores[index])
        return [f"{prediction.scores[i]:.4f}  {printable(prediction.candidates[i])}" for i in order[:top_k]]


class UndecidedChoices(ChoiceOutputs):
    """Outputs of multiple choice whose predictions are logits, (rows, candidates), and references are indices."""

    def of_rows(self, kept: dict[str, np.ndarray], windows: Windows) -> dict[str, np.ndarray]:
        """Take the logarithms of the probabilities; a candidate that a row lacks has one that is minus infinity."""
        with np.errstate(divide="ignore"):
            logits = np.log(np.where(kept["labels"] == IGNORED_LABEL, 0, kept["scores"]))
        return {"predicted": logits, "references": kept["labels"].argmax(-1), "losses": kept["losses"]}


def _indices(predicted: np.ndarray) -> np.ndarray:
    return np.array([choice.index for choice in predicted])
