"""Outputs of a model that tags words: the tags of each row, put together from its windows, and the spans in them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow
import torch
from torch.nn import functional as F

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.windows import Windows
from nlp_ft.data.words.spans import OUTSIDE, spans_of, types_of
from nlp_ft.errors import DataError, printable
from nlp_ft.recipe.words import TagScheme
from nlp_ft.tables import terminal_width, text_table
from nlp_ft.tasks.default_outputs import DefaultOutputs
from nlp_ft.tasks.entities import Entity, TaggedWords, record
from nlp_ft.tasks.metrics import confusion_matrix, margin_of_share
from nlp_ft.tasks.outputs import write_csv
from nlp_ft.tasks.tag_metrics import per_type, score_tags

NO_TAG = -1
"""Prediction for a word without tokens, where the tags have no `O`: it is shown as `O`, which is never right then."""
OF_ENTITIES = pyarrow.list_(
    pyarrow.struct(
        {
            "start": pyarrow.int64(),
            "end": pyarrow.int64(),
            "label": pyarrow.string(),
            "score": pyarrow.float64(),
            "text": pyarrow.string(),
        }
    )
)


@dataclass(frozen=True)
class TagOutputs(DefaultOutputs):
    """Outputs of a tagger: for each row the ids of its tags, (rows, most words), filled up with -100. See `Outputs`."""

    label_names: list[str]
    """The tags in the order of their ids."""
    scheme: TagScheme
    """How tags mark spans."""
    shown_metrics: ClassVar[tuple[str, ...]] = (
        "span_f1", "span_precision", "span_recall", "macro_f1", "accuracy", "loss",
    )  # fmt: skip
    progress_metrics: ClassVar[tuple[str, str]] = ("span_f1", "accuracy")
    correlation: ClassVar[str] = "span_f1"
    without_probabilities: ClassVar[str] = "tags words; each entity that it predicts has its score"
    without_confidence: ClassVar[str] = "tags words; each entity that it predicts has its score"
    numbers_shown: ClassVar[str] = "the mean probability of the tags of an entity"
    table_file: ClassVar[str] = "per_type.csv"

    def of_batch(
        self, logits: torch.Tensor, batch: dict[str, torch.Tensor], windows: Windows
    ) -> dict[str, torch.Tensor]:
        """Keep for each token the word that it decides, its tag, its loss and its probability; and the true tags."""
        losses = F.cross_entropy(logits.transpose(1, 2), batch["labels"], ignore_index=IGNORED_LABEL, reduction="none")
        return {
            "words": batch["words"],
            "predicted": logits.argmax(-1),
            "losses": losses.double(),
            "scores": logits.softmax(-1).amax(-1),
            "references": batch["tags"],
        }

    def of_rows(self, kept: dict[str, np.ndarray], windows: Windows) -> dict[str, np.ndarray]:
        """Put the tags of a row's windows together; a row's loss is the mean, its score the least of its words."""
        references = kept["references"][windows.starts]
        predicted = np.where(references == IGNORED_LABEL, IGNORED_LABEL, self._outside)
        decided = np.nonzero(kept["words"] != IGNORED_LABEL)
        words = kept["words"][decided]
        rows = (np.cumsum(np.diff(windows.rows, prepend=-1) != 0) - 1)[decided[0]]
        predicted[rows, words] = kept["predicted"][decided]
        counts = np.bincount(rows, minlength=len(references))
        losses = np.bincount(rows, kept["losses"][decided], minlength=len(references)) / np.maximum(counts, 1)
        scores = np.ones(len(references), kept["scores"].dtype)
        np.minimum.at(scores, rows, kept["scores"][decided])
        return {"predicted": predicted, "references": references, "losses": losses, "row_scores": scores}

    def shown(self, decoded: np.ndarray) -> pyarrow.Array:
        """Write the tags of each row as a list."""
        return pyarrow.array(self.tags(decoded), pyarrow.list_(pyarrow.string()))

    def tags(self, decoded: np.ndarray) -> list[list[str]]:
        """Write the ids of each row, (rows, most words), as tags."""
        names = {NO_TAG: OUTSIDE, **dict(enumerate(self.label_names))}
        return [[names[i] for i in row if i != IGNORED_LABEL] for row in decoded.tolist()]

    def activate(self, logits: torch.Tensor) -> torch.Tensor:
        """Compute the probabilities of all tags, (..., num_labels)."""
        return logits.float().softmax(-1)

    def score(self, predicted: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Compute the scores of `score_tags`."""
        return score_tags(self.tags(predicted), self.tags(references), self.scheme)

    def constant_loss(self, references: np.ndarray) -> float:
        """Compute the entropy of the tags in nats, where all rows count alike, as in the mean of their losses."""
        is_word = references != IGNORED_LABEL
        weights = np.broadcast_to(1 / (is_word.sum(1, keepdims=True) * len(references)), references.shape)
        shares = np.bincount(references[is_word], weights[is_word])
        shares = shares[shares > 0]
        return float(-(shares * np.log(shares)).sum())

    def counts(self, values: np.ndarray) -> dict[str, int]:
        """Count the rows that have a span of each type; of plain tags, those that have the tag."""
        found = Counter(
            label for tags in self.tags(values) for label in {span.label for span in spans_of(tags, self.scheme)}
        )
        return {name: found[name] for name in types_of(self.label_names, self.scheme)}

    def margin(self, metric: str, value: float, num_rows: int) -> float:
        """Estimate it for a score of spans as if each row held one; that is rough."""
        return 0.0 if metric == "loss" else margin_of_share(value, num_rows)

    def table(self, predicted: np.ndarray, references: np.ndarray, most: int | None = None) -> str:
        """Show precision, recall, F1 and support of each type; of too many types, those with most spans."""
        rows = per_type(self.tags(predicted), self.tags(references), self.scheme)
        note, num_types = "", len(rows)
        if not rows:
            return ""
        if most is not None and num_types > most:
            rows = sorted(rows, key=lambda row: -row["support"])[:most]
            note = f"\nthe {most} of {num_types} types with most spans"
        fields = ("precision", "recall", "f1")
        cells = [
            [
                printable(row["type"]),
                *(f"{row[field]:.4f}" for field in fields),
                str(row["support"]),
                str(row["predicted"]),
            ]
            for row in rows
        ]
        header = ["type", *fields, "support", "predicted"]
        return text_table(header, cells, range(1, len(header)), terminal_width()) + note

    def write_tables(self, folder: Path, split: str, predicted: np.ndarray, references: np.ndarray) -> None:
        """Write `<split>_per_type.csv`, and `<split>_confusion_matrix.csv` of words (a row for each true tag)."""
        rows = per_type(self.tags(predicted), self.tags(references), self.scheme)
        header = ["type", "precision", "recall", "f1", "support", "predicted"]
        write_csv(folder / f"{split}_{self.table_file}", header, (row.values() for row in rows))
        is_tagged = (references != IGNORED_LABEL) & (predicted != NO_TAG)
        matrix = confusion_matrix(predicted[is_tagged], references[is_tagged], len(self.label_names))
        counts = ([name, *row] for name, row in zip(self.label_names, matrix, strict=True))
        write_csv(folder / f"{split}_confusion_matrix.csv", ["true tag", *self.label_names], counts)

    def prediction(self, activated: TaggedWords) -> list[Entity]:
        """Read the entities of one input."""
        return activated.entities(self.label_names, self.scheme)

    def columns(self, activated: Sequence[TaggedWords], probabilities: bool = False) -> pyarrow.Table:
        """Make `predicted_entities`, a list of {start, end, label, score, text}, and `predicted_tags` of the words.

        Raises:
            DataError: probabilities are asked for; each entity has its score.
        """
        if probabilities:
            raise DataError(f"--probabilities: this run {self.without_probabilities}")
        entities = [[record(entity) for entity in self.prediction(one)] for one in activated]
        return pyarrow.table(
            {
                "predicted_entities": pyarrow.array(entities, OF_ENTITIES),
                "predicted_tags": [one.tags(self.label_names) for one in activated],
            }
        )

    def lines(self, prediction: Sequence[Entity], top_k: int) -> list[str]:
        """Write a line for each entity: its score, its type, its text and its place."""
        if not prediction:
            return ["no entity"]
        width = max(len(printable(entity.label)) for entity in prediction)
        return [
            f"{entity.score:.4f}  {printable(entity.label):{width}}  {printable(entity.text)}  "
            f"[{entity.start}:{entity.end}]"
            for entity in prediction
        ]

    @property
    def _outside(self) -> int:
        return self.label_names.index(OUTSIDE) if OUTSIDE in self.label_names else NO_TAG
