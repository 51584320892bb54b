"""Turns questions and contexts into windows of tokens, and knows which characters each token of a window stands for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow
from datasets import Dataset, List, Value
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.batch import IGNORED_LABEL, TOKEN_INPUTS
from nlp_ft.data.batch_loading import PaddingCollator
from nlp_ft.data.columns import numbered, numbers
from nlp_ft.data.questions import load_question_splits
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.tokenized import tokenized
from nlp_ft.data.windows import BEGINS_ROW, Windows, window_positions
from nlp_ft.data.workers import end_with_parent
from nlp_ft.errors import DataError
from nlp_ft.recipe.questions import QuestionDataSection

CANDIDATE, START, END = 0, 1, 2
"""Labels of a token: it may be in an answer; bits that it is the first and the last token of the answer. All other
tokens, such as those of the question, have `IGNORED_LABEL`."""
LEAST_CONTEXT = 4
"""A question is cut where it would leave less than one in this many tokens of a window for the context."""
PLACES = ("first_characters", "end_characters")
"""Columns of the windows: for each candidate token, in order, its first character in the context and the one after its
last; -1 for the token that stands for `no answer`."""


@dataclass(frozen=True)
class QuestionWindows(Windows):
    """The windows of questions, with what is needed to find the characters of an answer.

    Args:
        places: windows of the whole split with the columns `PLACES`.
        questions: rows of the whole split with the columns of `nlp_ft.data.answer_checks.SCHEMA`.
    """

    places: Any = None
    questions: Any = None


@dataclass(frozen=True)
class QuestionData:
    """The splits of a recipe, by name (`train`, `validation`, `test`). See `Data`.

    Args:
        raw: split name -> rows with the columns of `nlp_ft.data.answer_checks.SCHEMA`.
        windows_of: split name -> the windows of these rows, in the same order, with the columns of `encode_questions`.
    """

    raw: dict[str, Dataset]
    windows_of: dict[str, Dataset]

    @cached_property
    def encoded(self) -> dict[str, Dataset]:
        """The windows of each split, with the columns that a batch needs."""
        return {split: rows.remove_columns(list(PLACES)) for split, rows in self.windows_of.items()}

    @property
    def label_names(self) -> list[str]:
        """Return nothing: answers are no labels."""
        return []

    def lengths(self, split: str) -> np.ndarray:
        """Number of tokens of each window, (windows,)."""
        return numbers(self.windows_of[split], "num_tokens")

    def windows(self, split: str) -> QuestionWindows:
        """Which question each window belongs to."""
        rows = np.cumsum(numbers(self.windows_of[split], BEGINS_ROW)) - 1
        places = self.windows_of[split].select_columns(list(PLACES))
        return QuestionWindows(rows, None, places, self.raw[split])

    def labels(self, split: str) -> np.ndarray:
        """Whether the context answers the question, (rows,), 0 or 1."""
        return np.array([int(bool(answers)) for answers in self.raw[split]["answers"]])

    def inputs(self, split: str, rows: np.ndarray) -> pyarrow.Table:
        """`row`, the number in the data that was read, the question and the context of some rows of a split."""
        return numbered(self.raw[split], ["question", "context"], rows)


class QuestionCollator(PaddingCollator):
    """Pads the tokens of windows and their labels to the longest window of a batch. See `PaddingCollator`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer, [*TOKEN_INPUTS, "labels"])
        self._fill["labels"] = IGNORED_LABEL


def load_question_data(data: QuestionDataSection, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> QuestionData:
    """Read and tokenize the splits of a recipe. Raises: DataError: see `load_question_splits` and `in_windows`."""
    with progress_bars(False):
        raw = load_question_splits(data, seed)
    return QuestionData(raw, {split: in_windows(rows, split, tokenizer, data) for split, rows in raw.items()})


def in_windows(questions: Dataset, name: str, tokenizer: PreTrainedTokenizerBase, data: QuestionDataSection) -> Dataset:
    """Divide questions and contexts into windows, cached for the next run.

    Args:
        questions: rows with the columns of `nlp_ft.data.answer_checks.SCHEMA`.
        name: the name of the rows on a progress bar.
        tokenizer: the encoder's tokenizer.
        data: the section with `max_length` and `stride`.

    Raises:
        DataError: the tokenizer does not know which characters its tokens stand for, or a window is too short.
    """
    check_tokenizer(tokenizer, data.max_length)
    columns = {
        "labels": List(Value("int8")),
        **{key: List(Value("int32")) for key in PLACES},
        "num_tokens": Value("int32"),
        BEGINS_ROW: Value("bool"),
        "is_question_cut": Value("bool"),
    }
    # Of the section, only these two keys change the windows.
    kept = {"tokenizer": tokenizer, "max_length": data.max_length, "stride": data.stride}
    return tokenized(questions, name, encode_questions, kept, columns, data.num_proc)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Check that a tokenizer can be used. Raises: DataError: see `in_windows`."""
    if not tokenizer.is_fast:
        raise DataError(
            f"model.name: its tokenizer ({type(tokenizer).__name__}) does not say which characters a token stands for; "
            "name a model with a fast tokenizer (tokenizer.json)"
        )
    specials = tokenizer.num_special_tokens_to_add(pair=True)
    if max_length < specials + LEAST_CONTEXT:
        raise DataError(
            f"data.max_length must be at least {specials + LEAST_CONTEXT}, because each window has {specials} special "
            f"tokens, got {max_length}"
        )


def encode_questions(
    batch: Mapping[str, list[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int
) -> dict[str, list[Any]]:
    """Encode one batch of questions, for `Dataset.map`.

    Args:
        batch: the columns of `nlp_ft.data.answer_checks.SCHEMA`.
        tokenizer: the encoder's tokenizer, a fast one.
        max_length: most tokens of a window.
        stride: tokens that neighbouring windows share; at most half of the context's part of a window is used.

    Returns:
        Lists with one entry a window: `input_ids`; `token_type_ids` if the tokenizer makes them; `labels`, see
        `CANDIDATE`; the columns `PLACES`; `num_tokens`; `begins_row`, true for the first window of a question; and
        `is_question_cut`.
    """
    end_with_parent()
    encoded = tokenizer(
        batch["question"], batch["context"], return_attention_mask=False, return_offsets_mapping=True, verbose=False
    )
    inputs = [key for key in TOKEN_INPUTS if key in encoded]
    result: dict[str, list[Any]] = {
        key: [] for key in (*inputs, "labels", *PLACES, "num_tokens", BEGINS_ROW, "is_question_cut")
    }
    for row in range(len(batch["question"])):
        ids, parts, offsets = encoded["input_ids"][row], encoded.sequence_ids(row), encoded["offset_mapping"][row]
        frame, windows, is_cut = _divided(parts, max_length, stride)
        null = _null_position(ids, parts, tokenizer)
        answer = _answer_tokens(batch["answers"][row], batch["starts"][row], parts, offsets)
        spans = [(null, null)] * len(windows) if answer is None else _spans(answer, windows, null)
        for number, (window, span) in enumerate(zip(windows, spans)):
            kept = sorted([*frame, *window])
            candidates = [position for position in kept if position == null or parts[position] == 1]
            for key in inputs:
                result[key].append([encoded[key][row][position] for position in kept])
            result["labels"].append([_label(position, parts, null, span) for position in kept])
            for side, key in enumerate(PLACES):
                result[key].append([-1 if position == null else offsets[position][side] for position in candidates])
            result["num_tokens"].append(len(kept))
            result[BEGINS_ROW].append(number == 0)
            result["is_question_cut"].append(is_cut)
    return result


def _divided(parts: Sequence[int | None], max_length: int, stride: int) -> tuple[list[int], list[Sequence[int]], bool]:
    """Divide the context into windows.

    Args:
        parts: for each token, None if it is special, 0 in the question and 1 in the context.
        max_length: most tokens of a window.
        stride: tokens of the context that neighbouring windows share, if their room allows it.

    Returns:
        The positions that every window has, those of the context in each window, and whether the question was cut.
    """
    special, question, context = ([i for i, part in enumerate(parts) if part == wanted] for wanted in (None, 0, 1))
    room = max_length - len(special)
    most = room - min(len(context), max_length // LEAST_CONTEXT)
    frame = [*special, *question[:most]]
    room = max_length - len(frame)
    return frame, window_positions(context, room, min(stride, room // 2)), len(question) > most


def _null_position(ids: Sequence[int], parts: Sequence[int | None], tokenizer: PreTrainedTokenizerBase) -> int:
    """Find the token that stands for `no answer`: the CLS token, or else the first."""
    return next((i for i, part in enumerate(parts) if part is None and ids[i] == tokenizer.cls_token_id), 0)


def _answer_tokens(
    answers: Sequence[str], starts: Sequence[int], parts: Sequence[int | None], offsets: Sequence[tuple[int, int]]
) -> tuple[int, int] | None:
    """Find the first and last token of the first answer; None if there is no answer.

    A token that holds the blank before the answer begins it, too. Of an answer in characters that the tokenizer drops,
    the last token comes before the first.
    """
    if not answers:
        return None
    start, end = starts[0], starts[0] + len(answers[0])
    inside = [i for i, part in enumerate(parts) if part == 1 and offsets[i][0] < offsets[i][1]]
    first = next((i for i in inside if offsets[i][1] > start), len(parts))
    last = next((i for i in reversed(inside) if offsets[i][0] < end), -1)
    return first, last


def _spans(answer: tuple[int, int], windows: Sequence[Sequence[int]], null: int) -> list[tuple[int, int] | None]:
    """Decide what each window of an answered question is to learn: the first and last token of the answer there.

    A window without any of the answer learns `null`. One with a part of it learns nothing (None), because another
    window has all of it; where none has, each part is learned.
    """
    first, last = answer
    if first > last:
        return [None] * len(windows)
    parts = [(max(first, window[0]), min(last, window[-1])) for window in windows]
    is_whole = [part == answer for part in parts]
    return [
        (null, null) if part[0] > part[1] else part if whole or not any(is_whole) else None
        for part, whole in zip(parts, is_whole)
    ]


def _label(position: int, parts: Sequence[int | None], null: int, span: tuple[int, int] | None) -> int:
    if parts[position] != 1 and position != null:
        return IGNORED_LABEL
    if span is None:
        return CANDIDATE
    return CANDIDATE + START * (position == span[0]) + END * (position == span[1])
