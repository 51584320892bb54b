"""Batches of unlabelled texts by tokens: rows of like length go together, whatever their number."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.tokens import encode_texts
from nlp_ft.recipe_text import TextDataSection

ROWS_ENCODED_TOGETHER = 1000
"""The tokenizer's lists of Python integers take ten times the memory of an array."""


@dataclass(frozen=True)
class TokenRows:
    """Tokens of many rows, one row after the other.

    Args:
        values: `input_ids` and, where the tokenizer makes them, `token_type_ids`; each (all tokens,).
        lengths: tokens of each row, (rows,).
    """

    values: dict[str, np.ndarray]
    lengths: np.ndarray

    @cached_property
    def starts(self) -> np.ndarray:
        """Place of each row's first token, (rows,)."""
        starts: np.ndarray = np.cumsum(self.lengths) - self.lengths
        return starts

    def padded(self, rows: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
        """What `tokenizer.pad` makes of the rows, each (batch, seq_len), without its loop over them.

        Args:
            rows: their numbers, (batch,).
            tokenizer: tells side and values of the padding.
        """
        positions = np.arange(self.lengths[rows].max())
        is_token = positions < self.lengths[rows, None]
        tokens = (self.starts[rows, None] + positions)[is_token]
        places = is_token if tokenizer.padding_side == "right" else is_token[:, ::-1]
        fillers = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        batch = {}
        for key, values in self.values.items():
            filled = np.full(places.shape, fillers[key], np.int64)
            filled[places] = values[tokens]
            batch[key] = torch.from_numpy(filled)
        if "attention_mask" in tokenizer.model_input_names:
            batch["attention_mask"] = torch.from_numpy(places.astype(np.int64))
        return batch


def encode_token_rows(
    columns: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, data: TextDataSection
) -> TokenRows:
    """Texts or pairs of them, cut as `encode_texts` cuts them.

    Args:
        columns: one list of texts, or two of equal length; not empty.
        tokenizer: the encoder's tokenizer.
        data: says how to cut.
    """
    values: dict[str, list[np.ndarray]] = {}
    lengths: list[int] = []
    for start in range(0, len(columns[0]), ROWS_ENCODED_TOGETHER):
        encoded = encode_texts([column[start : start + ROWS_ENCODED_TOGETHER] for column in columns], tokenizer, data)
        lengths += map(len, encoded["input_ids"])
        for key in ("input_ids", "token_type_ids"):
            if key in encoded:
                values.setdefault(key, []).extend(np.asarray(row, np.int32) for row in encoded[key])
    return TokenRows({key: np.concatenate(rows) for key, rows in values.items()}, np.array(lengths))


def token_batches(lengths: np.ndarray, tokens_per_batch: int) -> list[np.ndarray]:
    """Every row in exactly one batch, the longest first, so that memory is short at once or never.

    Args:
        lengths: tokens of each row, (rows,).
        tokens_per_batch: most tokens of a batch with its padding; a row that is longer is one alone.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        num_rows = max(1, tokens_per_batch // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + num_rows])
        start += num_rows
    return batches
