"""Tokenizes all rows of a split, cached on the disk for the next run; what becomes of a row, another function says."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from datasets import Dataset, Features, List, Value

from nlp_ft.data.splits import progress_bars, useful_processes
from nlp_ft.data.stored import stored_map


def tokenized(
    rows: Dataset,
    name: str,
    function: Callable[..., Any],
    kept: Mapping[str, Any],
    columns: Mapping[str, Any],
    num_proc: int | None,
    rows_together: int = 1000,
    rows_worth_a_process: int = 10_000,
) -> Dataset:
    """Return the columns that a function makes of batches of rows, and no others.

    Args:
        rows: the rows.
        name: their name on a progress bar.
        function: makes `TOKEN_INPUTS`, those that the tokenizer gives, and other columns.
        kept: keyword arguments of the function, `tokenizer` among them; they are part of the cache's key.
        columns: name -> type of the other columns.
        num_proc: number of processes; None chooses it.
        rows_together: rows of a batch.
        rows_worth_a_process: see `useful_processes`.

    Raises:
        DataError: the rows cannot be written.
    """
    features: dict[str, Any] = {"input_ids": List(Value("int32"))}
    if "token_type_ids" in kept["tokenizer"]("a"):
        features["token_type_ids"] = List(Value("int8"))
    with progress_bars(sys.stderr.isatty()):
        return stored_map(
            rows,
            function,
            kept,
            remove_columns=rows.column_names,
            features=Features({**features, **columns}),
            batch_size=rows_together,
            writer_batch_size=rows_together,
            num_proc=num_proc or useful_processes(len(rows), rows_worth_a_process),
            desc=f"Tokenizing {name}",
        )
