"""The text splits of a recipe: read, labelled, tokenized once and cached, memory-mapped; and a report on them."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from sklearn.model_selection import train_test_split
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.labels import find_labels, labels_of_model
from nlp_ft.data.sources import check_columns, load_raw_splits, text_columns
from nlp_ft.data.tokens import encode_rows
from nlp_ft.errors import DataError
from nlp_ft.recipe_sections import is_share
from nlp_ft.recipe_text import TextDataSection

SPLIT_SEED = 0
"""Of a validation share: the same rows for every seed of a run, so that seeds can be compared."""
ROWS_WORTH_A_PROCESS = 20_000
PLACES = dict.fromkeys(("source", "config", "revision", "split_column", "train", "validation", "test"))


@dataclass(frozen=True)
class TextData:
    """The splits of a recipe, by name (`train`, `validation`, `test`), raw and encoded row by row alike."""

    raw: dict[str, Dataset]
    encoded: dict[str, Dataset]
    label_names: list[str]
    text_columns: list[str]
    max_length: int

    def lengths(self, split: str) -> np.ndarray:
        """Tokens of each row after truncation, (rows,)."""
        num_tokens = self.encoded[split].with_format("numpy")["num_tokens"][:]
        return np.minimum(np.asarray(num_tokens, np.int64), self.max_length)

    def labels(self, split: str) -> np.ndarray:
        """Label id of each row, (rows,)."""
        return np.asarray(self.encoded[split].with_format("numpy")["labels"][:])

    def texts(self, split: str) -> list[str]:
        """The text of each row; the two of a pair are joined."""
        rows = self.raw[split]
        columns = [["" if text is None else str(text) for text in rows[name][:]] for name in self.text_columns]
        return [" ".join(texts) for texts in zip(*columns, strict=True)]


def load_labelled_splits(data: TextDataSection) -> tuple[dict[str, Dataset], dict[str | int, str]]:
    """The raw splits, a validation share drawn, and label value -> label name. Raises: DataError."""
    raw = load_raw_splits(data)
    labels = find_labels(raw, data.label, data.label_names)
    if is_share(data.validation):
        raw = _draw_validation(raw, data)
    return raw, labels


def load_text_data(data: TextDataSection, tokenizer: PreTrainedTokenizerBase) -> TextData:
    """Read, label and tokenize the splits of a recipe.

    Raises:
        DataError: what is read cannot be trained on; see `load_raw_splits` and `find_labels`.
    """
    with progress_bars(False):
        raw, labels = load_labelled_splits(data)
    with progress_bars(sys.stderr.isatty()):
        encoded = {split: _encode(rows, split, tokenizer, data, labels) for split, rows in raw.items()}
    return TextData(raw, encoded, list(labels.values()), text_columns(data), data.max_length)


def encode_split(
    rows: Dataset,
    split: str,
    where: str,
    tokenizer: PreTrainedTokenizerBase,
    data: TextDataSection,
    label_names: Sequence[str],
) -> TextData:
    """Labelled rows for a model whose labels are known, as one split; errors call them `where`.

    Raises:
        DataError: columns or labels differ from those of the model.
    """
    check_columns(rows, data, where)
    labels = labels_of_model(rows, where, data.label, label_names)
    with progress_bars(sys.stderr.isatty()):
        encoded = _encode(rows, split, tokenizer, data, labels)
    return TextData({split: rows}, {split: encoded}, list(label_names), text_columns(data), data.max_length)


@contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """Show or hide the bars of `datasets`, and leave the setting as it was."""
    disabled_before = are_progress_bars_disabled()
    (enable_progress_bars if shown else disable_progress_bars)()
    try:
        yield
    finally:
        (disable_progress_bars if disabled_before else enable_progress_bars)()


def _draw_validation(raw: dict[str, Dataset], data: TextDataSection) -> dict[str, Dataset]:
    share = float(str(data.validation).rstrip("%")) / 100
    labels = raw["train"][data.label][:]
    try:
        train, validation = train_test_split(
            np.arange(len(labels)), test_size=share, stratify=labels, random_state=SPLIT_SEED
        )
    except ValueError as error:
        raise DataError(f"data.validation: {data.validation} of train cannot be drawn by class: {error}") from None
    rows = raw["train"]
    splits = {"train": rows.select(np.sort(train)), "validation": rows.select(np.sort(validation))}
    return {**splits, **{split: raw[split] for split in raw if split != "train"}}


def _encode(
    rows: Dataset, split: str, tokenizer: PreTrainedTokenizerBase, data: TextDataSection, labels: dict[str | int, str]
) -> Dataset:
    probe = tokenizer("a")
    features: dict[str, Any] = {"input_ids": List(Value("int32"))}
    if "token_type_ids" in probe:
        features["token_type_ids"] = List(Value("int8"))
    features |= {
        "num_tokens": Value("int32"),
        "labels": ClassLabel(names=list(labels.values())),
        "text_hash": Value("int64"),
        "is_empty": Value("bool"),
    }
    return rows.map(
        encode_rows,
        batched=True,
        fn_kwargs={
            "tokenizer": tokenizer,
            # Where the rows came from is no part of the cache's key: it has the rows themselves.
            "data": data.model_copy(update={**PLACES, "num_proc": None}),
            "label_ids": {value: i for i, value in enumerate(labels)},
        },
        remove_columns=rows.column_names,
        features=Features(features),
        num_proc=data.num_proc or _useful_processes(len(rows)),
        desc=f"Tokenizing {split}",
    )


def _useful_processes(num_rows: int) -> int | None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(cores, num_rows // ROWS_WORTH_A_PROCESS)
    return processes if processes > 1 else None
