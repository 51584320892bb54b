"""What texts and images do alike with the splits of a recipe."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from datasets import Dataset
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from sklearn.model_selection import train_test_split

from nlp_ft.data.columns import unique_values, value_codes
from nlp_ft.errors import DataError

SPLIT_SEED = 0
"""Of a validation share: the same rows for every seed of a run, so that seeds can be compared."""


def draw_validation(splits: dict[str, Dataset], column: str | None, validation: Any) -> dict[str, Dataset]:
    """The splits with a share of train, such as `10%`, as validation, drawn by the classes in a column, if any.

    Raises:
        DataError: a class has too few rows to be in both.
    """
    share = float(str(validation).rstrip("%")) / 100
    rows = splits["train"]
    problem, codes = f"data.validation: {validation} of train cannot be drawn", None
    if column is not None:
        values = sorted(unique_values(rows, column))
        codes = value_codes(rows, column, values)
        lonely = [values[code] for code in np.flatnonzero(np.bincount(codes) < 2)]
        problem += " by class"
        if lonely:
            raise DataError(f"{problem}: a class of one row cannot be in both: {lonely[:5]}")
    try:
        train, held_out = _drawn(len(rows), codes, share)
    except ValueError as error:
        raise DataError(f"{problem}: {error}") from None
    drawn = {"train": rows.select(np.sort(train)), "validation": rows.select(np.sort(held_out))}
    return {**drawn, **{split: splits[split] for split in splits if split != "train"}}


def _drawn(num_rows: int, labels: np.ndarray | None, share: float) -> list[np.ndarray]:
    """Rows that stay and rows that are held out."""
    numbers = np.arange(num_rows)
    drawn: list[np.ndarray] = train_test_split(numbers, test_size=share, stratify=labels, random_state=SPLIT_SEED)
    return drawn


def useful_processes(num_rows: int, rows_worth_a_process: int) -> int | None:
    """How many processes to map rows with; None for this one alone."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(cores, num_rows // rows_worth_a_process)
    return processes if processes > 1 else None


@contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """Show or hide the bars of `datasets`, and leave the setting as it was."""
    disabled_before = are_progress_bars_disabled()
    (enable_progress_bars if shown else disable_progress_bars)()
    try:
        yield
    finally:
        (disable_progress_bars if disabled_before else enable_progress_bars)()
