"""Batches of unlabelled texts by tokens: rows of like length go together, whatever their number."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.tokens import encode_texts
from nlp_ft.recipe.text import TextDataSection

ROWS_ENCODED_TOGETHER = 1000
"""The tokenizer's lists of Python integers take ten times the memory of an array."""


def encode_for_prediction(
    columns: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, data: TextDataSection
) -> dict[str, list[np.ndarray]]:
    """What `encode_texts` makes of texts or pairs of them, as arrays (tokens,), one a row.

    Args:
        columns: one list of texts, or two of equal length.
        tokenizer: the encoder's tokenizer.
        data: says how to cut.

    Returns:
        `input_ids` and, where the tokenizer makes them, `token_type_ids`.
    """
    rows: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(columns[0]), ROWS_ENCODED_TOGETHER):
        encoded = encode_texts([column[start : start + ROWS_ENCODED_TOGETHER] for column in columns], tokenizer, data)
        for key in encoded.keys() - {"num_tokens"}:
            rows.setdefault(key, []).extend(np.asarray(ids, np.int32) for ids in encoded[key])
    return rows


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
