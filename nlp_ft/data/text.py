"""Loads the text splits of a recipe: reads and labels them, tokenizes them once, and caches them on the disk."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow
from datasets import Dataset, Value
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.columns import numbered, numbers
from nlp_ft.data.row_writers import free_names
from nlp_ft.data.sources import check_columns, check_texts, columns_of_texts, text_columns
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.text_labels import ClassLabels, LabelKind, Labels
from nlp_ft.data.tokenized import tokenized
from nlp_ft.data.tokens import encode_rows
from nlp_ft.data.windows import BEGINS_ROW, Windows
from nlp_ft.recipe.text import TextDataSection, WindowPooling

ROWS_WORTH_A_PROCESS = 20_000
ROWS_ENCODED_TOGETHER = 2500
"""More would make fewer batches on the disk (see `ROWS_OF_A_BATCH`), but the tokenizer's lists take memory."""
NOT_IN_KEY = dict.fromkeys(
    ("source", "config", "revision", "split_column", "train", "validation", "test", "train_rows", "num_proc")
)
"""Resets the keys of the data section that say where the rows come from and how many are drawn, which their content in
the cache's key identifies, and by how many processes."""


@dataclass(frozen=True)
class TextData:
    """The splits of a recipe, by name (`train`, `validation`, `test`).

    Args:
        raw: split name -> rows as they were read.
        encoded: split name -> the same rows (or their windows), in the same order, with the columns of `encode_rows`.
        label_names: the label names in the order of the ids; empty where labels are numbers.
        text_columns: the text columns of the raw rows, one or two.
        max_length: most tokens of a row or window.
        window_pooling: how the logits of a row's windows become one.
    """

    raw: dict[str, Dataset]
    encoded: dict[str, Dataset]
    label_names: list[str]
    text_columns: list[str]
    max_length: int
    window_pooling: WindowPooling = "mean"

    def lengths(self, split: str) -> np.ndarray:
        """Number of tokens of each row after truncation, or of each window, (windows,)."""
        name = "window_tokens" if BEGINS_ROW in self.encoded[split].column_names else "num_tokens"
        return np.minimum(numbers(self.encoded[split], name).astype(np.int64), self.max_length)

    def windows(self, split: str) -> Windows:
        """Which row each encoded row belongs to."""
        return Windows.of(self.encoded[split], self.window_pooling)

    def by_row(self, split: str, column: str) -> np.ndarray:
        """Read a column of numbers of the encoded rows, once for each row, (rows,)."""
        values = numbers(self.encoded[split], column)
        return values[self.windows(split).starts] if BEGINS_ROW in self.encoded[split].column_names else values

    def labels(self, split: str) -> np.ndarray:
        """Label of each row, (rows,): an id, or a number to learn; see `Labels.feature` for labels that are lists."""
        return self.by_row(split, "labels")

    def texts(self, split: str) -> list[str]:
        """Text of each row; the two texts of a pair are joined with a blank."""
        rows = self.raw[split]
        columns = [["" if text is None else text for text in rows[name][:]] for name in self.text_columns]
        return [" ".join(texts) for texts in zip(*columns, strict=True)]

    def inputs(self, split: str, rows: np.ndarray) -> pyarrow.Table:
        """`row`, the number in the data that was read, and the text column(s) of some rows of a split."""
        [name] = free_names(["row"], self.text_columns)
        return numbered(self.raw[split], self.text_columns, rows, name)


def load_text_data(
    data: TextDataSection,
    tokenizer: PreTrainedTokenizerBase,
    kind: LabelKind = ClassLabels,
    only: str | None = None,
    seed: int = 0,
) -> TextData:
    """Read, label and tokenize the splits of a recipe.

    Args:
        data: the data section of the recipe.
        tokenizer: the encoder's tokenizer.
        kind: what the labels are.
        only: the one split to tokenize; None tokenizes all.
        seed: the seed of the recipe, which draws rows of train.

    Raises:
        DataError: the data cannot be trained on; see `load_raw_splits` and `LabelKind.load`.
    """
    with progress_bars(False):
        raw, labels = kind.load(data, seed)
    encoded = {
        split: _encode(rows, split, tokenizer, data, labels) for split, rows in raw.items() if only in (None, split)
    }
    return TextData(raw, encoded, labels.names, text_columns(data), data.max_length, data.window_pooling)


def encode_split(
    rows: Dataset,
    split: str,
    where: str,
    tokenizer: PreTrainedTokenizerBase,
    data: TextDataSection,
    label_names: Sequence[str],
    kind: LabelKind = ClassLabels,
) -> TextData:
    """Encode labelled rows for a trained model, as data of one split.

    Args:
        rows: the rows.
        split: name of the split in the result.
        where: name of the rows in error messages.
        tokenizer: the encoder's tokenizer.
        data: the section that names the columns and says how to cut.
        label_names: the model's label names in the order of the ids.
        kind: what the labels are.

    Raises:
        DataError: a column is missing, or a label is not one of the model's.
    """
    check_columns(rows.column_names, columns_of_texts(data), where)
    check_texts(rows.features, text_columns(data), where)
    labels = kind.of_model(rows, where, data, label_names)
    encoded = _encode(rows, split, tokenizer, data, labels)
    columns = text_columns(data)
    return TextData({split: rows}, {split: encoded}, labels.names, columns, data.max_length, data.window_pooling)


def _encode(
    rows: Dataset,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    data: TextDataSection,
    labels: Labels,
) -> Dataset:
    columns = {
        "num_tokens": Value("int32"),
        "labels": labels.feature,
        "text_hash": Value("int64"),
        "is_empty": Value("bool"),
    }
    if data.truncation == "windows":
        columns |= {"window_tokens": Value("int32"), BEGINS_ROW: Value("bool")}
    # The names are in the key as a list, because the hash of a dict leaves its order out, which is that of the ids.
    section = data.model_copy(update={**NOT_IN_KEY, "label_names": labels.names})
    kept = {"tokenizer": tokenizer, "data": section, "labels": labels}
    return tokenized(
        rows, split, encode_rows, kept, columns, data.num_proc, ROWS_ENCODED_TOGETHER, ROWS_WORTH_A_PROCESS
    )
