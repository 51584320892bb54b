"""Tokenizes texts with any tokenizer, cuts them by `head`, `tail` or `head_tail`, and records their full lengths."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.columns import text_hash
from nlp_ft.data.sources import text_columns
from nlp_ft.data.text_labels import Labels
from nlp_ft.data.windows import BEGINS_ROW, window_positions
from nlp_ft.data.workers import end_with_parent
from nlp_ft.errors import DataError
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
        number of tokens before the cut. Under truncation `windows`, one entry a window, with `window_tokens`, its
        length, and `begins_row`, true for the first window of a row.

    Raises:
        DataError: `data.max_length` has no room for a token of each text of a pair.
    """
    encoded = tokenizer(
        *columns, add_special_tokens=True, return_attention_mask=False, return_special_tokens_mask=True, verbose=False
    )
    keys = [key for key in encoded if key != "special_tokens_mask"]
    result: dict[str, list[Any]] = {key: list(encoded[key]) for key in keys}
    for row in [row for row, ids in enumerate(result["input_ids"]) if not ids]:
        _fill_empty(result, keys, row, tokenizer)
        encoded["special_tokens_mask"][row] = [1]
    result["num_tokens"] = [len(ids) for ids in result["input_ids"]]
    if data.truncation == "windows":
        return _in_windows(result, keys, encoded["special_tokens_mask"], data)
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
) -> dict[str, list[Any]]:
    """Tokenize and cut texts as `encode_texts` does, into arrays that need little memory.

    Args:
        columns: one list of texts, or two lists of equal length for pairs.
        tokenizer: the encoder's tokenizer.
        data: the section with `max_length`, `truncation` and `head_tokens`.

    Returns:
        `input_ids` and, if the tokenizer makes them, `token_type_ids`: one array for each row or window, (tokens,),
        int32; and under truncation `windows` a list `begins_row`, see `encode_texts`.
    """
    starts = range(0, len(columns[0]), ROWS_ENCODED_TOGETHER)
    parts = ([column[start : start + ROWS_ENCODED_TOGETHER] for column in columns] for start in starts)
    return in_arrays(encode_texts(part, tokenizer, data) for part in parts)


def in_arrays(parts: Iterable[Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """Join the columns of encoded rows, but the lengths; token ids, and what else there is of tokens, become arrays."""
    rows: dict[str, list[Any]] = {}
    for encoded in parts:
        for key in encoded.keys() - {"num_tokens", "window_tokens"}:
            values = encoded[key] if key == BEGINS_ROW else [np.asarray(ids, np.int32) for ids in encoded[key]]
            rows.setdefault(key, []).extend(values)
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
    labels: Labels,
) -> dict[str, list[Any]]:
    """Encode one batch of raw rows, for `Dataset.map`.

    Args:
        batch: column -> values.
        tokenizer: the encoder's tokenizer.
        data: the section that names the columns and says how to cut.
        labels: encodes the labels of the rows.

    Returns:
        The columns of `encode_texts`, `labels`, `text_hash` and `is_empty`, each with one entry a row or window.
    """
    end_with_parent()
    columns = [["" if text is None else text for text in batch[name]] for name in text_columns(data)]
    encoded = encode_texts(columns, tokenizer, data)
    of_rows: dict[str, list[Any]] = {
        "labels": labels.encode(batch),
        "text_hash": [text_hash(texts) for texts in zip(*columns)],
        "is_empty": [not any(text.strip() for text in texts) for texts in zip(*columns)],
    }
    if BEGINS_ROW in encoded:
        rows = (np.cumsum(encoded[BEGINS_ROW]) - 1).tolist()
        of_rows = {key: [column[row] for row in rows] for key, column in of_rows.items()}
    return {**encoded, **of_rows}


def _in_windows(
    encoded: Mapping[str, list[Any]],
    keys: Sequence[str],
    special_tokens: Sequence[Sequence[int]],
    data: TextDataSection,
) -> dict[str, list[Any]]:
    """Divide the rows into windows, each with all special tokens; the result has one entry a window."""
    result: dict[str, list[Any]] = {key: [] for key in (*keys, "num_tokens", "window_tokens", BEGINS_ROW)}
    for row, mask in enumerate(special_tokens):
        text = [position for position, special in enumerate(mask) if not special]
        special = [position for position, special in enumerate(mask) if special]
        for number, window in enumerate(window_positions(text, data.max_length - len(special), data.stride)):
            kept = sorted([*special, *window])
            for key in keys:
                result[key].append([encoded[key][row][position] for position in kept])
            result["num_tokens"].append(len(mask))
            result["window_tokens"].append(len(kept))
            result[BEGINS_ROW].append(number == 0)
    return result


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
    """Cut the pairs of `rows` in place: the longer text first, at its end or (under `tail`) at its beginning.

    Raises:
        DataError: there is no room for a token of each text.
    """
    specials = tokenizer.num_special_tokens_to_add(pair=True)
    if data.max_length < specials + 2:
        raise DataError(
            f"data.max_length must be at least {specials + 2} for pairs, which have {specials} special tokens, got "
            f"{data.max_length}"
        )
    side_before = tokenizer.truncation_side
    tokenizer.truncation_side = "left" if data.truncation == "tail" else "right"
    pairs = [[column[row] for row in rows] for column in columns]
    cut = tokenizer(*pairs, truncation="longest_first", max_length=data.max_length, return_attention_mask=False)
    tokenizer.truncation_side = side_before
    for key in keys:
        for position, row in enumerate(rows):
            result[key][row] = cut[key][position]
