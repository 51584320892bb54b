"""A trained model for multiple choice, which chooses among the candidates of prompts."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from datasets import Dataset, Features
from transformers import AutoModelForMultipleChoice

from nlp_ft.data.choices.encoding import (
    ChoiceCollator,
    ChoiceData,
    check_tokenizer,
    encode_choices,
    encoded_split,
    load_choice_data,
)
from nlp_ft.data.choices.rows import (
    SCHEMA,
    as_choices,
    checked_choice,
    input_columns,
    named_columns,
    prompt_and_candidates,
)
from nlp_ft.data.row_files import Rows
from nlp_ft.data.row_writers import names_of
from nlp_ft.data.sources import check_columns, load_files
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.streaming import stream_texts
from nlp_ft.errors import DataError
from nlp_ft.prediction.tokens import TokenRun, parsed_lines, predicted_rows
from nlp_ft.prediction.trained_run import Source, damage_named
from nlp_ft.recipe import ChoiceRecipe

Input = tuple[str, Sequence[str]]
"""A prompt and its candidates."""
SPLIT = "choices"
"""The name of the split that new inputs are in."""
UNKNOWN = -1
"""The label of new inputs."""


class ChoiceRun(TokenRun):
    """A trained run that chooses among candidates. See `TokenRun`."""

    input_name = "prompt"
    auto_class = AutoModelForMultipleChoice
    recipe: ChoiceRecipe

    def __init__(self, folder: Path, recipe: ChoiceRecipe, trust_remote_code: bool = False) -> None:
        super().__init__(folder, recipe, trust_remote_code)
        with damage_named(folder, "tokenizer"):
            check_tokenizer(self.tokenizer, recipe.data.max_length)

    def is_single(self, inputs: Any) -> bool:
        """Whether this is a tuple of prompt and candidates; a text is one input, too, which is refused."""
        return isinstance(inputs, str | tuple)

    def activated(self, inputs: Sequence[Input], done: Callable[[int], object] = lambda count: None) -> np.ndarray:
        """Choose a candidate for each input, as `Choice`, (inputs,)."""
        return predicted_rows(self, self._encoded(inputs), SPLIT, done)

    def _encoded(self, inputs: Sequence[Any]) -> ChoiceData:
        checked = [_checked(item, f"input {number} (from 0)") for number, item in enumerate(inputs)]
        rows: dict[str, list[Any]] = {
            "prompt": [prompt for prompt, _ in checked],
            "candidates": [candidates for _, candidates in checked],
            "label": [UNKNOWN] * len(checked),
        }
        encoded = encode_choices(rows, self.tokenizer, self.recipe.data.max_length)
        choices = Dataset.from_dict(rows, Features.from_arrow_schema(SCHEMA))
        return ChoiceData({SPLIT: choices}, {SPLIT: Dataset.from_dict(encoded)})

    def read(self, source: Source) -> Iterator[tuple[Sequence[Input], Rows]]:
        """Read prompts and candidates of a file; or take words, which are one input, or lines, which are one each."""
        if source.file:
            with progress_bars(False):
                yield from self._of_file(source.file)
            return
        for inputs in self._typed(source):
            prompts, candidates = [prompt for prompt, _ in inputs], [list(of_one) for _, of_one in inputs]
            yield inputs, pyarrow.table({"prompt": prompts, "candidates": candidates})

    def _of_file(self, file: str) -> Iterator[tuple[Sequence[Input], Rows]]:
        section, number = self.recipe.data, 0
        columns = input_columns(section)
        for _, rows in stream_texts(file, "--file", section.text_columns):
            check_columns(names_of(rows), columns, f"--file ({file})")
            table = rows if isinstance(rows, list) else rows.select([column for _, column in columns]).to_pylist()
            yield (
                [
                    prompt_and_candidates(
                        {column: row.get(column) for _, column in columns},
                        f"--file ({file}): row {number + i} (from 0)",
                        section,
                    )
                    for i, row in enumerate(table)
                ],
                rows,
            )
            number += len(rows)

    def _typed(self, source: Source) -> Iterator[Sequence[Input]]:
        """Take words or lines. Raises: DataError: a prompt has less than two candidates."""
        if source.lines is None:
            prompt, *candidates = source.words
            yield [checked_choice([prompt], candidates, "the input")]
            return
        yield from parsed_lines(source.lines, _of_line)

    def num_inputs(self, words: Sequence[str]) -> int:
        """Return 1: the words are one prompt with its candidates."""
        return 1

    def shown(self, item: Input) -> str:
        """Return the prompt."""
        return item[0]

    def labelled(self, data: str | list[str] | None, split: str) -> ChoiceData:
        """Read prompts with candidates and labels. Raises: DataError."""
        section = self.recipe.data
        if data is None:
            return load_choice_data(section, self.tokenizer, self.recipe.seed)
        with progress_bars(False):
            rows = as_choices(load_files(data, "--data", named_columns(section)), f"--data ({data})", section)
        return ChoiceData({split: rows}, {split: encoded_split(rows, split, self.tokenizer, section)})

    def collator(self) -> ChoiceCollator:
        """Make the collator that pads candidates to the longest of their batch."""
        return ChoiceCollator(self.tokenizer)


def _of_line(line: str, number: int) -> Input:
    prompt, *candidates = line.split("\t")
    return checked_choice([prompt], candidates, f"standard input: line {number} (prompt and candidates between tabs)")


def _checked(item: Any, where: str) -> tuple[str, list[str]]:
    """Check an input. Raises: DataError: it is no pair of a prompt and its candidates, or see `checked_choice`."""
    is_pair = isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], str)
    if not is_pair or isinstance(item[1], str):
        raise DataError(f"{where} must be a prompt with its candidates, (text, [text, text, ...]), got {item!r:.60}")
    return checked_choice([item[0]], item[1], where)
