"""Tokenizes texts with any tokenizer, cuts them by `head`, `tail` or `head_tail`, and records their full lengths."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.sources import text_columns
from nlp_ft.data.workers import end_with_parent
from nlp_ft.recipe.text import TextDataSection

ROWS_ENCODED_TOGETHER = 1000
"""Texts to predict are tokenized in parts, because the tokenizer's lists take ten times the memory of arrays."""


def encode_texts(
    columns: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, data: TextDataSection
) -> dict[str, list[Any]]:
    """Tokenize texts or text pairs, and cut them to `data.max_length`.

    Args:
        columns: one list of texts, or two lists of equal length for pairs.
        tokenizer: the encoder's tokenizer.
        data: the section with `max_length`, `truncation` and `head_tokens`.

    Returns:
        Lists with one entry a row: `input_ids`; `token_type_ids` if the tokenizer makes them; and `num_tokens`, the
        number of tokens before the cut.
    """
    encoded = tokenizer(
        *columns, add_special_tokens=True, return_attention_mask=False, return_special_tokens_mask=True, verbose=False
    )
    keys = [key for key in encoded if key != "special_tokens_mask"]
    result: dict[str, list[Any]] = {key: list(encoded[key]) for key in keys}
    for row in [row for row, ids in enumerate(result["input_ids"]) if not ids]:
        _fill_empty(result, keys, row, tokenizer)
    result["num_tokens"] = [len(ids) for ids in result["input_ids"]]
    too_long = [row for row, length in enumerate(result["num_tokens"]) if length > data.max_length]
    if too_long and len(columns) == 2:
        _cut_pairs(result, keys, columns, too_long, tokenizer, data)
        return result
    for row in too_long:
        kept = kept_positions(encoded["special_tokens_mask"][row], data)
        for key in keys:
            result[key][row] = [result[key][row][position] for position in kept]
    return result


def encode_for_prediction(
    columns: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, data: TextDataSection
) -> dict[str, list[np.ndarray]]:
    """Tokenize and cut texts as `encode_texts` does, into arrays that need little memory.

    Args:
        columns: one list of texts, or two lists of equal length for pairs.
        tokenizer: the encoder's tokenizer.
        data: the section with `max_length`, `truncation` and `head_tokens`.

    Returns:
        `input_ids` and, if the tokenizer makes them, `token_type_ids`: one array for each row, (tokens,), int32.
    """
    rows: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(columns[0]), ROWS_ENCODED_TOGETHER):
        encoded = encode_texts([column[start : start + ROWS_ENCODED_TOGETHER] for column in columns], tokenizer, data)
        for key in encoded.keys() - {"num_tokens"}:
            rows.setdefault(key, []).extend(np.asarray(ids, np.int32) for ids in encoded[key])
    return rows


def kept_positions(special_tokens_mask: Sequence[int], data: TextDataSection) -> list[int]:
    """Choose which tokens of a single text to keep when it is too long.

    Args:
        special_tokens_mask: 1 for each special token and 0 for each token of the text.
        data: the section with `max_length`, `truncation` and `head_tokens`.

    Returns:
        The positions to keep, in order; special tokens are always kept.
    """
    text = [position for position, special in enumerate(special_tokens_mask) if not special]
    room = data.max_length - (len(special_tokens_mask) - len(text))
    heads = {"head": room, "tail": 0, "head_tail": data.head_tokens}[data.truncation]
    kept = {*text[:heads], *text[len(text) - (room - heads) :]}
    return [position for position, special in enumerate(special_tokens_mask) if special or position in kept]


def encode_rows(
    batch: Mapping[str, list[Any]],
    tokenizer: PreTrainedTokenizerBase,
    data: TextDataSection,
    label_ids: Mapping[str | int, int] | None,
) -> dict[str, list[Any]]:
    """Encode one batch of raw rows, for `Dataset.map`.

    Args:
        batch: column -> values.
        tokenizer: the encoder's tokenizer.
        data: the section that names the columns and says how to cut.
        label_ids: value in the label column -> label id; None where the labels are numbers to learn.

    Returns:
        The columns of `encode_texts`, `labels`, `text_hash` and `is_empty`, each with one entry a row.
    """
    end_with_parent()
    columns = [["" if text is None else text for text in batch[name]] for name in text_columns(data)]
    encoded = encode_texts(columns, tokenizer, data)
    values = batch[data.label]
    encoded["labels"] = [float(v) for v in values] if label_ids is None else [label_ids[v] for v in values]
    encoded["text_hash"] = [text_hash(texts) for texts in zip(*columns)]
    encoded["is_empty"] = [not any(text.strip() for text in texts) for texts in zip(*columns)]
    return encoded


def text_hash(texts: Sequence[str]) -> int:
    """Hash the texts of a row to 64 bits; texts that differ only in case or white space have the same hash."""
    plain = "\x1f".join(" ".join(text.lower().split()) for text in texts)
    return int(np.frombuffer(blake2b(plain.encode("utf-8", "replace"), digest_size=8).digest(), np.int64)[0])


def _fill_empty(
    result: dict[str, list[Any]], keys: Sequence[str], row: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Give an empty text one token in place: tokenizers of decoders may add none, and a model needs one to read."""
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, 0)
    for key in keys:
        result[key][row] = [next(i for i in ids if i is not None)] if key == "input_ids" else [0]


def _cut_pairs(
    result: dict[str, list[Any]],
    keys: Sequence[str],
    columns: Sequence[Sequence[str]],
    rows: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    data: TextDataSection,
) -> None:
    """Cut the pairs of `rows` in place: the longer text first, at its end or (under `tail`) at its beginning."""
    side_before = tokenizer.truncation_side
    tokenizer.truncation_side = "left" if data.truncation == "tail" else "right"
    pairs = [[column[row] for row in rows] for column in columns]
    cut = tokenizer(*pairs, truncation="longest_first", max_length=data.max_length, return_attention_mask=False)
    tokenizer.truncation_side = side_before
    for key in keys:
        for position, row in enumerate(rows):
            result[key][row] = cut[key][position]
