"""Steps that texts and images share: draw rows, choose the number of processes, show progress bars."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow
from datasets import ClassLabel, Dataset
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from nlp_ft.data.columns import input_hashes, selected, unique_values, value_codes
from nlp_ft.data.workers import available_cores
from nlp_ft.errors import DataError, listed
from nlp_ft.recipe.sections import DataSection, is_share, percent_of
from nlp_ft.recipe.values import rows_per_class
from nlp_ft.screen import is_quiet

SPLIT_SEED = 0
"""Seed of the draw of validation rows: every run draws the same ones, whatever its own seed, so runs compare."""


def draw_rows(
    splits: dict[str, Dataset], column: str | None, inputs: Sequence[str], data: DataSection, seed: int
) -> dict[str, Dataset]:
    """Draw what the recipe asks for: a share of `train` for validation, then the rows of `train` that stay.

    Args:
        splits: split name -> rows, `train` among them.
        column: column of the classes; None draws from all rows alike.
        inputs: columns of what the model reads: rows that are equal there are drawn together.
        data: the data section of the recipe.
        seed: the seed of the recipe, which draws the rows that stay, and not those of validation.

    Raises:
        DataError: see `draw_validation` and `draw_train_rows`.
    """
    if is_share(data.validation):
        splits = draw_validation(splits, column, inputs, data.validation)
    return draw_train_rows(splits, column, data.train_rows, seed)


def draw_train_rows(
    splits: dict[str, Dataset], column: str | None, train_rows: int | str | None, seed: int
) -> dict[str, Dataset]:
    """Draw the rows of `train` that stay; they keep their order.

    Args:
        splits: split name -> rows, `train` among them.
        column: column of the classes, each of which keeps its share of the rows; None draws from all rows alike.
        train_rows: how many, or how many of each class, such as `10/class`; None keeps all.
        seed: the seed of the draw.

    Raises:
        DataError: there are not so many rows, or not so many of a class.
    """
    if train_rows is None:
        return splits
    rows = splits["train"]
    values, codes = ([None], np.zeros(len(rows), int)) if column is None else _classes(rows, column)
    counts = np.bincount(codes, minlength=len(values))
    generator = np.random.default_rng(seed)
    if isinstance(train_rows, int):
        if train_rows > len(rows):
            raise DataError(f"data.train_rows: train has {len(rows)} rows to draw from, got {train_rows}; lower it")
        wanted = _in_proportion(counts, train_rows, generator)
    else:
        wanted = np.full(len(values), rows_per_class(train_rows))
        few = [f"{_name(rows, column, values[i])!r} ({counts[i]})" for i in np.flatnonzero(counts < wanted)]
        if few:
            raise DataError(
                f"data.train_rows: {train_rows} cannot be drawn; train has fewer rows of {listed(few, 5)}; lower it, "
                "or add rows of these classes"
            )
    order = generator.permutation(len(rows))
    by_class = order[np.argsort(codes[order], kind="stable")]
    place_in_class = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = by_class[place_in_class < np.repeat(wanted, counts)]
    return {**splits, "train": selected(rows, np.sort(chosen))}


def draw_validation(
    splits: dict[str, Dataset], column: str | None, inputs: Sequence[str], validation: Any
) -> dict[str, Dataset]:
    """Move a share of the rows of `train` to a new split `validation`.

    Rows with equal inputs go together, so that no input of validation has been learned; the share is that of the
    different inputs. The input of a class that has no other one stays. Where too few inputs differ, as in a toy set,
    rows are drawn without regard to them; the data report counts those that stand in both splits.

    Args:
        splits: split name -> rows, `train` among them.
        column: column of the classes, whose shares are the same in both splits; None draws from all rows alike.
        inputs: columns of what the model reads.
        validation: the share, such as `10%`.

    Raises:
        DataError: there are too few rows for both splits to hold each class.
    """
    share = percent_of(validation) / 100
    rows = splits["train"]
    classes = np.zeros(len(rows), int) if column is None else _classes(rows, column)[1]
    for first_rows, input_of_row in _groupings(rows, inputs):
        codes = classes[first_rows]
        is_lonely = (np.bincount(codes) == 1)[codes]
        numbers = np.flatnonzero(~is_lonely)
        try:
            _, held_out = _drawn(numbers, None if column is None else codes[numbers], share)
        except ValueError as error:
            reason = str(error) if len(numbers) else "no class has two rows"
        else:
            return _parted(splits, np.isin(input_of_row, held_out))
    by_class = "" if column is None else " by class"
    raise DataError(f"data.validation: {validation} of train cannot be drawn{by_class}: {reason}")


def draw_validation_by_labels(
    splits: dict[str, Dataset], indicators: np.ndarray, inputs: Sequence[str], validation: Any
) -> dict[str, Dataset]:
    """Move a share of the rows of `train` to a new split `validation`, where rows have any number of labels.

    Rows with equal inputs go together where enough of them differ, as in `draw_validation`.

    Each label keeps its share of the rows as far as that goes (Sechidis et al. 2011,
    https://doi.org/10.1007/978-3-642-23808-6_10); the number of rows drawn may differ a little from the share.

    Args:
        splits: split name -> rows, `train` among them.
        indicators: 1 for each label that a row of train has and 0 for the others, (rows, labels).
        inputs: columns of what the model reads.
        validation: the share, such as `10%`.

    Raises:
        DataError: one of the two splits would have no rows.
    """
    share = percent_of(validation) / 100
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit  # imports scikit-learn

    drawing = MultilabelStratifiedShuffleSplit(1, test_size=share, random_state=SPLIT_SEED)
    for first_rows, input_of_row in _groupings(splits["train"], inputs):
        try:
            train, held_out = next(drawing.split(np.zeros(len(first_rows)), indicators[first_rows]))
        except ValueError as error:
            reason = str(error)
        else:
            if len(train) and len(held_out):
                return _parted(splits, np.isin(input_of_row, held_out))
            reason = "every label has too few rows to be in both splits"
    raise DataError(
        f"data.validation: {validation} of train cannot be drawn by label: {reason}; draw a larger share, or give "
        "validation rows in a file of their own"
    )


def _groupings(rows: Dataset, inputs: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give what is drawn as one, see `_different`: first rows with equal inputs, then each row."""
    yield _different(input_hashes(rows, inputs))
    yield np.arange(len(rows)), np.arange(len(rows))


def _different(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the different hashes in the order of their first rows.

    Args:
        hashes: the hash of each row, (rows,).

    Returns:
        The first row of each different hash, (different,), ascending, and the number of the hash of each row, (rows,).
    """
    # It numbers values in the order in which they come.
    number_of_row = pyarrow.array(hashes).dictionary_encode().indices.to_numpy()
    return np.unique(number_of_row, return_index=True)[1], number_of_row


def _classes(rows: Dataset, column: str) -> tuple[list[Any], np.ndarray]:
    """The different values of a column, sorted, and the index of that of each row, (rows,)."""
    values = sorted(unique_values(rows, column))
    return values, value_codes(rows, column, values)


def _name(rows: Dataset, column: str | None, value: Any) -> Any:
    feature = rows.features[column]
    return feature.int2str(value) if isinstance(feature, ClassLabel) else value


def _in_proportion(counts: np.ndarray, total: int, generator: np.random.Generator) -> np.ndarray:
    """Divide a total in proportion to counts, (classes,), by largest remainders; chance decides between equal ones."""
    wanted, remainders = np.divmod(counts * total, counts.sum())
    largest_first = np.lexsort((generator.random(len(counts)), -remainders))
    wanted[largest_first[: total - wanted.sum()]] += 1
    return wanted


def _parted(splits: dict[str, Dataset], is_held_out: np.ndarray) -> dict[str, Dataset]:
    rows = splits["train"]
    parts = {"train": ~is_held_out, "validation": is_held_out}
    drawn = {split: selected(rows, np.flatnonzero(is_in)) for split, is_in in parts.items()}
    return {**drawn, **{split: splits[split] for split in splits if split != "train"}}


def _drawn(numbers: np.ndarray, labels: np.ndarray | None, share: float) -> list[np.ndarray]:
    """Draw from row numbers: those that stay in train, and those that are held out for validation."""
    from sklearn.model_selection import train_test_split  # takes seconds to import, and few runs draw rows

    drawn: list[np.ndarray] = train_test_split(numbers, test_size=share, stratify=labels, random_state=SPLIT_SEED)
    return drawn


def useful_processes(num_rows: int, rows_worth_a_process: int) -> int | None:
    """Choose with how many processes to map rows.

    Args:
        num_rows: number of rows to map.
        rows_worth_a_process: rows whose mapping takes longer than the start of a process.

    Returns:
        The number of processes, at most one a core; None to map in this process.
    """
    processes = min(available_cores(), num_rows // rows_worth_a_process)
    return processes if processes > 1 else None


@contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """Show or hide the progress bars of `datasets` inside the `with` block, and restore the setting after it."""
    disabled_before = are_progress_bars_disabled()
    (enable_progress_bars if shown and not is_quiet() else disable_progress_bars)()
    try:
        yield
    finally:
        (disable_progress_bars if disabled_before else enable_progress_bars)()
