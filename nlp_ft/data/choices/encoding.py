"""Encodes each candidate as a pair with its prompt; a batch holds all candidates of its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import torch
from datasets import Dataset, List, Value
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.batch import IGNORED_LABEL, TOKEN_INPUTS
from nlp_ft.data.batch_loading import PaddingCollator
from nlp_ft.data.choices.rows import load_choice_splits
from nlp_ft.data.columns import numbered, numbers
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.tokenized import tokenized
from nlp_ft.data.windows import Windows
from nlp_ft.data.workers import end_with_parent
from nlp_ft.errors import DataError
from nlp_ft.recipe.choices import ChoiceDataSection

FOR_BATCHES = (*TOKEN_INPUTS, "sizes", "labels")
"""Columns of encoded rows that a batch needs: the tokens of all candidates, one candidate after the other; the number
of tokens of each; and for each candidate 1 if it is right and 0 if not."""


@dataclass(frozen=True)
class ChoiceWindows(Windows):
    """Rows that are read whole, with their candidates.

    Args:
        choices: rows of the whole split with the columns of `nlp_ft.data.choices.rows.SCHEMA`.
    """

    choices: Any = None


@dataclass(frozen=True)
class ChoiceData:
    """The splits of a recipe, by name (`train`, `validation`, `test`). See `Data`.

    Args:
        raw: split name -> rows with the columns of `nlp_ft.data.choices.rows.SCHEMA`.
        rows_of: split name -> the same rows with the columns of `encode_choices`.
    """

    raw: dict[str, Dataset]
    rows_of: dict[str, Dataset]

    @cached_property
    def encoded(self) -> dict[str, Dataset]:
        """The rows of each split, with the columns that a batch needs."""
        return {
            split: rows.select_columns([name for name in FOR_BATCHES if name in rows.column_names])
            for split, rows in self.rows_of.items()
        }

    @property
    def label_names(self) -> list[str]:
        """Return nothing: the candidates differ from row to row."""
        return []

    def lengths(self, split: str) -> np.ndarray:
        """Number of tokens of each row in a batch, (rows,): its longest candidate, as often as a row has candidates.

        A row with less candidates than another one is filled up, see `ChoiceCollator`.
        """
        counts = self.num_candidates(split)
        return np.asarray(numbers(self.rows_of[split], "num_tokens") // counts * counts.max())

    def num_candidates(self, split: str) -> np.ndarray:
        """Number of candidates of each row, (rows,)."""
        sizes = self.rows_of[split].select_columns(["sizes"]).with_format("arrow")[:]["sizes"]
        return np.asarray(pyarrow.compute.list_value_length(sizes).to_numpy())

    def windows(self, split: str) -> ChoiceWindows:
        """Each row is one."""
        return ChoiceWindows(np.arange(len(self.raw[split])), None, self.raw[split])

    def labels(self, split: str) -> np.ndarray:
        """Index of the right candidate of each row, (rows,)."""
        return numbers(self.raw[split], "label")

    def inputs(self, split: str, rows: np.ndarray) -> pyarrow.Table:
        """`row`, the number in the data that was read, the prompt and the candidates of some rows of a split."""
        return numbered(self.raw[split], ["prompt", "candidates"], rows)


class ChoiceCollator(PaddingCollator):
    """Pads all candidates of a batch to the longest of them, and every row to the most candidates.

    A batch holds `input_ids`, `attention_mask`, ..., (batch, candidates, seq_len); `labels`, (batch, candidates), with
    `IGNORED_LABEL` where a row has no candidate, in whose place the model reads the first one; and `row`, (batch,).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer, TOKEN_INPUTS)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        most = max(len(row["sizes"]) for row in rows)
        flat = [candidate for row in rows for candidate in _candidates(row, most)]
        batch = {key: values.view(len(rows), most, -1) for key, values in super().__call__(flat).items()}
        labels = [[*row["labels"], *[IGNORED_LABEL] * (most - len(row["labels"]))] for row in rows]
        batch["labels"] = torch.tensor(labels)
        if "row" in rows[0]:
            batch["row"] = torch.tensor([row["row"] for row in rows])
        return batch


def _candidates(row: Mapping[str, Any], most: int) -> list[dict[str, list[int]]]:
    """Divide the tokens of a row into its candidates; the first stands for those that it lacks."""
    ends = np.cumsum(row["sizes"]).tolist()
    found = [{key: row[key][start:end] for key in TOKEN_INPUTS if key in row} for start, end in zip([0, *ends], ends)]
    return found + found[:1] * (most - len(found))


def load_choice_data(data: ChoiceDataSection, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> ChoiceData:
    """Read and tokenize the splits of a recipe. Raises: DataError: see `load_choice_splits` and `encoded_split`."""
    with progress_bars(False):
        raw = load_choice_splits(data, seed)
    return ChoiceData(raw, {split: encoded_split(rows, split, tokenizer, data) for split, rows in raw.items()})


def encoded_split(choices: Dataset, name: str, tokenizer: PreTrainedTokenizerBase, data: ChoiceDataSection) -> Dataset:
    """Encode the rows of a split, cached for the next run.

    Args:
        choices: rows with the columns of `nlp_ft.data.choices.rows.SCHEMA`.
        name: the name of the rows on a progress bar.
        tokenizer: the encoder's tokenizer.
        data: the section with `max_length`.

    Raises:
        DataError: see `check_tokenizer`.
    """
    check_tokenizer(tokenizer, data.max_length)
    columns = {
        "sizes": List(Value("int32")),
        "labels": List(Value("int8")),
        "num_tokens": Value("int32"),
        "cut_candidates": Value("int32"),
        "is_prompt_cut": Value("bool"),
    }
    kept = {"tokenizer": tokenizer, "max_length": data.max_length}
    return tokenized(choices, name, encode_choices, kept, columns, data.num_proc)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Check a tokenizer. Raises: DataError: it does not tell prompt and candidate apart, or `max_length` is too low."""
    if not tokenizer.is_fast:
        raise DataError(
            f"model.name: its tokenizer ({type(tokenizer).__name__}) does not say which text a token is from; name a "
            "model with a fast tokenizer (tokenizer.json)"
        )
    specials = tokenizer.num_special_tokens_to_add(pair=True)
    if max_length < specials + 2:
        raise DataError(
            f"data.max_length must be at least {specials + 2}, because prompt and candidate have {specials} special "
            f"tokens, got {max_length}"
        )


def encode_choices(
    batch: Mapping[str, list[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> dict[str, list[Any]]:
    """Encode one batch of rows, for `Dataset.map`.

    Args:
        batch: the columns of `nlp_ft.data.choices.rows.SCHEMA`; a label of -1 is not known.
        tokenizer: the encoder's tokenizer, a fast one.
        max_length: most tokens of the prompt with one candidate.

    Returns:
        Lists with one entry a row: the columns `FOR_BATCHES`; `num_tokens`, all candidates padded to the longest;
        `cut_candidates`, the number of candidates that were cut; and `is_prompt_cut`.
    """
    end_with_parent()
    counts = [len(candidates) for candidates in batch["candidates"]]
    prompts = [prompt for prompt, count in zip(batch["prompt"], counts) for _ in range(count)]
    texts = [candidate for candidates in batch["candidates"] for candidate in candidates]
    encoded = tokenizer(prompts, texts, return_attention_mask=False, verbose=False)
    inputs = [key for key in TOKEN_INPUTS if key in encoded]
    result: dict[str, list[Any]] = {key: [] for key in (*inputs, "sizes", "labels", "num_tokens")}
    result |= {"cut_candidates": [], "is_prompt_cut": []}
    starts = np.cumsum([0, *counts]).tolist()
    for start, count, label in zip(starts, counts, batch["label"]):
        pairs = [_kept(encoded.sequence_ids(start + number), max_length) for number in range(count)]
        for key in inputs:
            result[key].append(
                [encoded[key][start + number][i] for number, (kept, _, _) in enumerate(pairs) for i in kept]
            )
        sizes = [len(kept) for kept, _, _ in pairs]
        result["sizes"].append(sizes)
        result["labels"].append([int(number == label) for number in range(count)])
        result["num_tokens"].append(max(sizes) * count)
        result["cut_candidates"].append(sum(is_cut for _, _, is_cut in pairs))
        result["is_prompt_cut"].append(any(is_cut for _, is_cut, _ in pairs))
    return result


def _kept(parts: Sequence[int | None], max_length: int) -> tuple[Sequence[int], bool, bool]:
    """Choose the tokens of a pair to keep: the prompt loses its beginning, and then the candidate its end.

    Args:
        parts: for each token, None if it is special, 0 in the prompt and 1 in the candidate.
        max_length: most tokens to keep.

    Returns:
        The positions to keep, in order; whether the prompt was cut; and whether the candidate was. One token of the
        prompt stays.
    """
    if len(parts) <= max_length:
        return range(len(parts)), False, False
    special, prompt, candidate = ([i for i, part in enumerate(parts) if part == wanted] for wanted in (None, 0, 1))
    room = max_length - len(special)
    chosen = candidate[: room - min(1, len(prompt))]
    left = prompt[len(prompt) - min(len(prompt), room - len(chosen)) :]
    return sorted([*special, *left, *chosen]), len(left) < len(prompt), len(chosen) < len(candidate)
