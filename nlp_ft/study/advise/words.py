"""The words of the data, and how the tokenizer divides them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow
from transformers import PreTrainedTokenizerBase

from nlp_ft.tasks.task import Task

MOST_TEXTS = 1_000
"""Texts of train whose words are counted."""


@dataclass(frozen=True)
class Words:
    """How the tokenizer divides the words of the data: those of the texts of pretraining are mostly whole."""

    tokens_per_word: float
    split: float
    """Share of the words that become several tokens."""
    unknown: float
    """Share of the tokens that stand for something unknown."""


def words_of(task: Task) -> Words | None:
    """Count the tokens of the words of train; None where there are no words or no tokenizer."""
    if task.tokenizer is None:
        return None
    num_rows = task.data.windows("train").num_rows
    rows = np.linspace(0, num_rows - 1, min(num_rows, MOST_TEXTS)).round().astype(np.int64)
    words = words_in([text for of_row in texts_of(task.data.inputs("train", rows)) for text in of_row])
    return count_words(words, task.tokenizer) if words else None


def texts_of(inputs: pyarrow.Table) -> list[list[str]]:
    """Take the texts out of each row of inputs: columns of texts, and of lists of texts."""
    found = []
    for row in inputs.to_pylist():
        values = [part for value in row.values() for part in (value if isinstance(value, list) else [value])]
        found.append([part for part in values if isinstance(part, str)])
    return found


def words_in(texts: Sequence[str]) -> list[str]:
    """Divide texts into their words: letters, digits and underscores."""
    return [word for text in texts for word in re.findall(r"\w+", text)]


def count_words(words: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Words:
    """Count into how many tokens each word is divided, at least one word."""
    # A blank in front, because some tokenizers divide the first word of a text in another way.
    tokens = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    counts = np.array([len(ids) for ids in tokens])
    unknown = sum(ids.count(tokenizer.unk_token_id) for ids in tokens)
    return Words(float(counts.mean()), float((counts > 1).mean()), unknown / max(1, int(counts.sum())))
