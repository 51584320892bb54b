"""Tokenizes words, in windows if they are many, and finds the token and the window that decide the tag of each word.

The first token of a word gets its tag, and all others get `IGNORED_LABEL`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.columns import text_hash
from nlp_ft.data.tokens import ROWS_ENCODED_TOGETHER, in_arrays
from nlp_ft.data.windows import BEGINS_ROW, window_positions
from nlp_ft.data.words.plain_rows import TAGS, WORDS
from nlp_ft.data.workers import end_with_parent
from nlp_ft.errors import DataError
from nlp_ft.recipe.words import WordsDataSection


def encode_words(
    rows: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, data: WordsDataSection
) -> dict[str, list[Any]]:
    """Tokenize the words of rows.

    Args:
        rows: the words of each row.
        tokenizer: the encoder's tokenizer, from `word_tokenizer`.
        data: the section with `max_length` and `stride`.

    Returns:
        Lists with one entry a window: `input_ids`; `token_type_ids` if the tokenizer makes them; `words`, for each
        token the number of the word whose tag it decides, or -100; `num_tokens`, the tokens of the whole row;
        `window_tokens`; and `begins_row`, true for the first window of a row.
    """
    lead = " " if wants_leading_space(tokenizer) else ""
    encoded = tokenizer(
        [[lead + word for word in words] for words in rows],
        is_split_into_words=True,
        add_special_tokens=True,
        return_attention_mask=False,
        verbose=False,
    )
    keys = list(encoded)
    result: dict[str, list[Any]] = {key: [] for key in (*keys, "words", "num_tokens", "window_tokens", BEGINS_ROW)}
    for row in range(len(rows)):
        word_of = [IGNORED_LABEL if word is None else word for word in encoded.word_ids(row)]
        text = [position for position, word in enumerate(word_of) if word != IGNORED_LABEL]
        special = [position for position, word in enumerate(word_of) if word == IGNORED_LABEL]
        windows = window_positions(text, data.max_length - len(special), data.stride)
        for number, (window, deciding) in enumerate(zip(windows, _deciding(windows, word_of, len(text)))):
            kept = sorted([*special, *window])
            for key in keys:
                result[key].append([encoded[key][row][position] for position in kept])
            result["words"].append([deciding.get(position, IGNORED_LABEL) for position in kept])
            result["num_tokens"].append(len(word_of))
            result["window_tokens"].append(len(kept))
            result[BEGINS_ROW].append(number == 0)
    return result


def _deciding(windows: Sequence[Sequence[int]], word_of: Sequence[int], length: int) -> list[dict[int, int]]:
    """Choose the window of each word: the one with most tokens around the word on its poorer side.

    Args:
        windows: the positions of each window.
        word_of: the word of each position, -100 for special tokens.
        length: tokens of the text.

    Returns:
        For each window, position of the first token of a word -> number of the word.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for position, word in enumerate(word_of):
        if word != IGNORED_LABEL:
            first.setdefault(word, position)
            last[word] = position
    if len(windows) == 1:
        return [{position: word for word, position in first.items()}]
    begin = windows[0][0]
    found: list[dict[int, int]] = [{} for _ in windows]
    for word, position in first.items():
        around: list[float] = []
        for window in windows:
            left = position - window[0] if window[0] > begin else length
            right = window[-1] - last[word] if window[-1] < begin + length - 1 else length
            around.append(min(left, right) if window[0] <= position <= window[-1] else -np.inf)
        found[int(np.argmax(around))][position] = word
    return found


def encode_tagged(
    batch: Mapping[str, list[Any]],
    tokenizer: PreTrainedTokenizerBase,
    data: WordsDataSection,
    label_ids: Mapping[str, int],
) -> dict[str, list[Any]]:
    """Encode one batch of plain rows, for `Dataset.map`.

    Args:
        batch: the columns `words` and `tags`.
        tokenizer: the encoder's tokenizer, from `word_tokenizer`.
        data: the section with `max_length` and `stride`.
        label_ids: tag -> its id.

    Returns:
        The columns of `encode_words`; `labels`, for each token the id of the tag that it decides, or -100; `tags`, the
        ids of all tags of the row, in its first window alone; and `text_hash`.
    """
    end_with_parent()
    encoded = encode_words(batch[WORDS], tokenizer, data)
    tags = [[label_ids[tag] for tag in of_row] for of_row in batch[TAGS]]
    hashes = [text_hash([" ".join(words)]) for words in batch[WORDS]]
    rows = (np.cumsum(encoded[BEGINS_ROW]) - 1).tolist()
    encoded["labels"] = [
        [IGNORED_LABEL if word == IGNORED_LABEL else tags[row][word] for word in words]
        for row, words in zip(rows, encoded["words"])
    ]
    encoded["tags"] = [tags[row] if begins else [] for row, begins in zip(rows, encoded[BEGINS_ROW])]
    encoded["text_hash"] = [hashes[row] for row in rows]
    return encoded


def encode_for_tagging(
    rows: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, data: WordsDataSection
) -> dict[str, list[Any]]:
    """Tokenize words as `encode_words` does, in parts, into arrays that need little memory."""
    parts = (rows[start : start + ROWS_ENCODED_TOGETHER] for start in range(0, len(rows), ROWS_ENCODED_TOGETHER))
    return in_arrays(encode_words(part, tokenizer, data) for part in parts)


def word_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Make a tokenizer fit for words one at a time: one that knows leading spaces puts one before the first word too.

    Otherwise a word at the beginning of a text, as pipelines read it, would have other tokens than in training.

    Raises:
        DataError: the tokenizer does not say which word a token belongs to.
    """
    if not tokenizer.is_fast:
        raise DataError(
            f"model.name: the tokenizer ({type(tokenizer).__name__}) does not say which word a token belongs to; "
            "token_classification needs one with a tokenizer.json"
        )
    pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    if getattr(pre_tokenizer, "add_prefix_space", None) is False:
        pre_tokenizer.add_prefix_space = True
        tokenizer.init_kwargs["add_prefix_space"] = True
    return tokenizer


def wants_leading_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a word has other tokens behind a space, as in byte-level BPE (GPT-2, RoBERTa, ModernBERT)."""
    pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    return "ByteLevel" in repr(pre_tokenizer)
