"""A trained model for question answering, which finds the answers to questions in their contexts."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from datasets import Dataset, Features
from transformers import AutoModelForQuestionAnswering

from nlp_ft.data.answer_checks import SCHEMA
from nlp_ft.data.question_windows import (
    QuestionCollator,
    QuestionData,
    check_tokenizer,
    encode_questions,
    in_windows,
    load_question_data,
)
from nlp_ft.data.questions import has_form_of_squad, read_questions, squad_inputs
from nlp_ft.data.row_files import Rows
from nlp_ft.data.sources import expand
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.streaming import CHUNK_ROWS, stream_texts
from nlp_ft.errors import DataError
from nlp_ft.prediction.tokens import TokenRun, parsed_lines, predicted_rows
from nlp_ft.prediction.trained_run import Source, chunked, damage_named
from nlp_ft.recipe import QuestionRecipe

SPLIT = "questions"
"""The name of the split that questions to answer are in."""


class QuestionRun(TokenRun):
    """A trained run that answers questions. See `TokenRun`."""

    input_name = "question"
    auto_class = AutoModelForQuestionAnswering
    recipe: QuestionRecipe

    def __init__(self, folder: Path, recipe: QuestionRecipe, trust_remote_code: bool = False) -> None:
        super().__init__(folder, recipe, trust_remote_code)
        with damage_named(folder, "tokenizer"):
            check_tokenizer(self.tokenizer, recipe.data.max_length)

    def is_single(self, inputs: Any) -> bool:
        """Whether this is a tuple of question and context; a text is one input, too, which is refused."""
        return isinstance(inputs, str | tuple)

    def activated(
        self, inputs: Sequence[tuple[str, str]], done: Callable[[int], object] = lambda count: None
    ) -> np.ndarray:
        """Find the best answers of each pair of question and context, as `Candidates`, (inputs,)."""
        return predicted_rows(self, self._encoded(inputs), SPLIT, done)

    def _encoded(self, inputs: Sequence[tuple[str, str]]) -> QuestionData:
        _check_inputs(inputs)
        rows: dict[str, list[Any]] = {
            "article": [""] * len(inputs),
            "question": [question.strip() for question, _ in inputs],
            "context": [context for _, context in inputs],
            "answers": [[] for _ in inputs],
            "starts": [[] for _ in inputs],
            "is_respaced": [False] * len(inputs),
            "is_moved": [False] * len(inputs),
        }
        questions = Dataset.from_dict(rows, Features.from_arrow_schema(SCHEMA))
        section = self.recipe.data
        encoded = encode_questions(rows, self.tokenizer, section.max_length, section.stride)
        return QuestionData({SPLIT: questions}, {SPLIT: Dataset.from_dict(encoded)})

    def read(self, source: Source) -> Iterator[tuple[Sequence[tuple[str, str]], Rows]]:
        """Read the columns of questions and contexts of a file, or take words or lines, two texts for each question."""
        names = [self.recipe.data.question, self.recipe.data.context]
        if source.file and all(map(has_form_of_squad, files := expand(source.file, "--file"))):
            for part in squad_inputs(files, "--file", CHUNK_ROWS):
                yield [(row["question"], row["context"]) for row in part], pyarrow.Table.from_pylist(part)
            return
        if source.file:
            with progress_bars(False):
                for (questions, contexts), rows in stream_texts(source.file, "--file", names):
                    yield list(zip(questions, contexts, strict=True)), rows
            return
        for pairs in self._typed(source):
            _check_inputs(pairs)
            yield pairs, pyarrow.table(dict(zip(names, [list(side) for side in zip(*pairs, strict=True)], strict=True)))

    def _typed(self, source: Source) -> Iterator[Sequence[tuple[str, str]]]:
        """Take words or lines, in chunks. Raises: DataError: a question has no context."""
        if source.lines is None:
            words = source.words
            if len(words) % 2:
                raise DataError(
                    f"this model takes a question and a context for each answer, so an even number of texts, got "
                    f"{len(words)}"
                )
            yield from chunked(list(zip(words[::2], words[1::2], strict=True)))
            return
        yield from parsed_lines(source.lines, _pair)

    def num_inputs(self, words: Sequence[str]) -> int:
        """Count the given pairs."""
        return len(words) // 2

    def shown(self, item: tuple[str, str]) -> str:
        """Return the question."""
        return item[0]

    def labelled(self, data: str | list[str] | None, split: str) -> QuestionData:
        """Read questions with answers. Raises: DataError."""
        section = self.recipe.data
        if data is None:
            return load_question_data(section, self.tokenizer, self.recipe.seed)
        with progress_bars(False):
            rows = read_questions(data, "--data", section)
        return QuestionData({split: rows}, {split: in_windows(rows, split, self.tokenizer, section)})

    def collator(self) -> QuestionCollator:
        """Make the collator that pads windows to the longest of their batch."""
        return QuestionCollator(self.tokenizer)


def _pair(line: str, number: int) -> tuple[str, str]:
    question, _, context = line.partition("\t")
    if not question.strip() or not context.strip():
        raise DataError(
            f"standard input: line {number} must be a question and a context with a tab between them; got {line!r:.60}"
        )
    return question, context


def _check_inputs(inputs: Sequence[Any]) -> None:
    """Check inputs. Raises: DataError: one is not a pair of question and context, or cannot be encoded as UTF-8."""
    for number, item in enumerate(inputs):
        is_pair = isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(text, str) for text in item)
        if not is_pair:
            raise DataError(f"input {number} (from 0) must be a pair (question, context), got {repr(item)[:60]}")
        for name, text in zip(("question", "context"), item):
            if not text.strip():
                raise DataError(f"input {number} (from 0) has an empty {name}")
            try:
                text.encode()
            except UnicodeEncodeError:
                raise DataError(f"input {number} (from 0): its {name} cannot be encoded as UTF-8") from None
