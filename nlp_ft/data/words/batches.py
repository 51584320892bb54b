"""Makes batches of words: pads the tokens, and beside them the labels of tokens, their words, and the tags of rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.batch_loading import PaddingCollator

TOKEN_INPUTS = ("input_ids", "token_type_ids")


class WordCollator:
    """Pads rows of `encode_tagged` to the longest of their batch.

    A batch holds `input_ids`, `attention_mask`, ..., `labels` and `words`, (batch, seq_len), and `tags`, (batch, most
    words), all three filled up with -100.

    Args:
        tokenizer: the encoder's tokenizer.
        columns: the columns that the rows have.

    Raises:
        DataError: the tokenizer has no padding token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, columns: Sequence[str]) -> None:
        self._inputs = PaddingCollator(tokenizer, [key for key in TOKEN_INPUTS if key in columns])
        self._of_tokens = [key for key in ("labels", "words") if key in columns]
        self._has_tags = "tags" in columns
        self._is_left = tokenizer.padding_side == "left"

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self._inputs(rows)
        length = batch["input_ids"].shape[1]
        for key in self._of_tokens:
            # A row that fills up a batch has one label, which is left out.
            values = [row[key] if not isinstance(row[key], int) else [] for row in rows]
            batch[key] = padded(values, length, self._is_left)
        if self._has_tags:
            tags = [row["tags"] for row in rows]
            batch["tags"] = padded(tags, max(1, *map(len, tags)))
        return batch

    def at_epoch(self, epoch: int) -> "WordCollator":
        """Return the same collator: padding is not random."""
        return self


def padded(values: Sequence[Sequence[int]], length: int, is_left: bool = False) -> torch.Tensor:
    """Fill lists up with -100 to (rows, length), at their beginning if `is_left`."""
    filled = np.full((len(values), length), IGNORED_LABEL, np.int64)
    for target, row in zip(filled, values):
        target[length - len(row) if is_left else 0 :][: len(row)] = row
    return torch.from_numpy(filled)
