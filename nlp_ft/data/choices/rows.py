"""Reads prompts with their candidates, and finds the right candidate by index, letter, text or name."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow
from datasets import Dataset

from nlp_ft.data.sources import check_columns, check_texts, load_files, named_splits, rows_from_source
from nlp_ft.data.splits import draw_rows
from nlp_ft.data.stored import stored_rows, tables_of
from nlp_ft.errors import DataError, listed
from nlp_ft.recipe.choices import ChoiceDataSection
from nlp_ft.suggest import did_you_mean

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FORMS = "its index, its letter (from A) or its exact text"
SCHEMA = pyarrow.schema(
    {"prompt": pyarrow.string(), "candidates": pyarrow.list_(pyarrow.string()), "label": pyarrow.int64()}
)
"""The columns of rows that were read; `label` is the index of the right candidate."""


def load_choice_splits(data: ChoiceDataSection, seed: int = 0) -> dict[str, Dataset]:
    """Read the splits that the recipe names, and draw rows as it says, by its seed.

    Returns:
        Split name -> rows with the columns of `SCHEMA`.

    Raises:
        DataError: a file or column is missing, or a row cannot be used; see `as_choices`.
    """
    columns = named_columns(data)
    splits: dict[str, Dataset] = {}
    for split, field, where in named_splits(data):
        rows = rows_from_source(data, split, where, columns) if data.source else load_files(where, field, columns)
        splits[split] = as_choices(rows, f"{field} ({where})", data)
    return draw_rows(splits, None, ["prompt", "candidates"], data, seed)


def named_columns(data: ChoiceDataSection) -> list[tuple[str, str]]:
    """List (key of the recipe, column) of the columns to read."""
    return [*input_columns(data), ("label", data.label)]


def input_columns(data: ChoiceDataSection) -> list[tuple[str, str]]:
    """List (key of the recipe, column) of the columns with prompts and candidates."""
    return [
        *(("text", name) for name in data.text_columns),
        *(("candidates", name) for name in data.candidate_columns),
    ]


def as_choices(rows: Dataset, where: str, data: ChoiceDataSection) -> Dataset:
    """Check rows with the recipe's columns, and give them the columns of `SCHEMA`; cached for the next run.

    Raises:
        DataError: a column is missing or holds something else, or a row has no prompt, less than two candidates, an
            empty candidate, or a label that names none of them; the message names the row.
    """
    columns = named_columns(data)
    check_columns(rows.column_names, columns, where)
    check_input_columns(rows, where, data)
    kept = rows.select_columns(list(dict.fromkeys(column for _, column in columns)))
    key = f"choices {columns} {data.first_index} {rows._fingerprint}"
    stored = stored_rows(key, lambda: tables_of(_checked(kept, where, data), SCHEMA))
    if stored is None:
        raise DataError(f"{where} has no rows")
    return stored


def check_input_columns(rows: Dataset, where: str, data: ChoiceDataSection) -> None:
    """Check the types of the columns with prompts and candidates. Raises: DataError: one holds no texts."""
    check_texts(rows.features, data.text_columns, where)
    if isinstance(data.candidates, list):
        check_texts(rows.features, data.candidates, where, "candidates")
        return
    held = rows.features[data.candidates]
    inner = _of_texts(getattr(_of_texts(held), "feature", None))
    if getattr(inner, "dtype", None) not in ("string", "large_string", "string_view"):
        raise DataError(
            f"{where}: data.candidates is {data.candidates!r}, a column of {getattr(held, 'dtype', held)}, not of "
            "lists of texts; write lists (JSON Lines, Parquet), or name a column for each candidate"
        )


def _of_texts(feature: Any) -> Any:
    return feature.get("text") if isinstance(feature, dict) else feature


def prompt_and_candidates(row: dict[str, Any], where: str, data: ChoiceDataSection) -> tuple[str, list[str]]:
    """Take prompt and candidates out of a row, and check them. Raises: DataError: see `checked_choice`."""
    texts = [row[name] for name in data.text_columns]
    return checked_choice(texts, texts_and_names(_cell(row, data))[0], where)


def texts_and_names(cell: Any) -> tuple[Any, list[str]]:
    """Divide the candidates of a row into their texts and the names that they carry; most carry none.

    ARC and CommonsenseQA have names, as `{"text": [...], "label": [...]}` or `[{"text": ..., "label": ...}, ...]`.
    """
    if isinstance(cell, list | tuple) and cell and all(isinstance(one, Mapping) for one in cell):
        cell = {key: [one.get(key) for one in cell] for key in ("text", "label")}
    if not isinstance(cell, Mapping):
        return cell, []
    return cell.get("text") or [], [str(name) for name in cell.get("label") or []]


def checked_choice(texts: Sequence[Any], candidates: Any, where: str) -> tuple[str, list[str]]:
    """Join the texts of a prompt by a blank, and check them and the candidates.

    Args:
        texts: one text or two, of which one may be empty or missing.
        candidates: two texts or more.
        where: the name of the row in error messages.

    Raises:
        DataError: the prompt is empty, there are less than two candidates, one is no text or empty, or a text is no
            valid Unicode.
    """
    if not all(isinstance(text, str | None) for text in texts):
        raise DataError(f"{where}: its prompt must be text, got {list(texts)!r:.60}")
    prompt = " ".join(text for text in texts if text and text.strip())
    if not prompt:
        raise DataError(f"{where} has no prompt; write it, or remove the row")
    if not isinstance(candidates, list | tuple) or len(candidates) < 2:
        raise DataError(f"{where} must have two candidates or more, got {candidates!r:.60}")
    for number, candidate in enumerate(candidates):
        if not isinstance(candidate, str | None):
            raise DataError(f"{where}: candidate {number} (from 0) must be a text, got {candidate!r:.60}")
        if not candidate or not candidate.strip():
            raise DataError(f"{where}: candidate {number} (from 0) is empty; write it, or leave it out of a list")
    for text in (prompt, *candidates):
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise DataError(f"{where} holds half of a surrogate pair; write it in valid Unicode")
    return prompt, list(candidates)


def index_of(label: Any, cell: Any, where: str, first: int = 0) -> int:
    """Find the candidate that a label names, as an index from 0.

    Args:
        label: the name of a candidate where they carry names. Else a whole number is an index; a text is the exact text
            of a candidate, a letter from A, or an index.
        cell: the candidates, with names or without; see `texts_and_names`.
        where: the name of the row in error messages.
        first: the index of the first candidate in labels, 0 or 1.

    Raises:
        DataError: the label names no candidate, or may mean two of them.
    """
    candidates, names = texts_and_names(cell)
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if names:
        if not len(set(names)) == len(names) == len(candidates):
            raise DataError(f"{where}: each of its {len(candidates)} candidates needs a name of its own, got {names}")
        if str(label) not in names:
            raise DataError(f"{where}: label {label!r:.60} must be one of the names of its candidates, {listed(names)}")
        return names.index(str(label))
    if type(label) is int:
        meant = {label - first: "index"}
    elif isinstance(label, str):
        meant = _meanings(label, candidates, where, first)
    else:
        raise DataError(f"{where}: its label must be the right candidate: {FORMS}, got {label!r:.60}")
    found = {index: form for index, form in meant.items() if 0 <= index < len(candidates)}
    if not found and meant:
        last = len(candidates) - 1
        counts = "; set data.first_index to 1 where labels count from 1" if str(label).strip() == str(last + 1) else ""
        raise DataError(
            f"{where}: label {label!r} is out of range: its {len(candidates)} candidates are {first} to {last + first}"
            f", or A to {LETTERS[min(last, 25)]}{counts}"
        )
    if not found:
        raise DataError(
            f"{where}: label {label!r:.60} is none of its candidates: {listed(list(map(repr, candidates)), 5)}"
            f"{did_you_mean(label, [one for one in candidates if one])}; write {FORMS}"
        )
    if len(found) > 1:
        forms = " and ".join(f"the {form} of candidate {index}" for index, form in found.items())
        raise DataError(
            f"{where}: label {label!r} is {forms}; write letters, or whole numbers in JSON Lines or Parquet"
        )
    return next(iter(found))


def _meanings(label: str, candidates: Sequence[str], where: str, first: int) -> dict[int, str]:
    """List what a text may mean: index of a candidate -> the form of the label. Raises: DataError: twice that text.

    Where the recipe says that indices count from 1, a number is an index, whatever the candidates are.
    """
    number = int(label) - first if re.fullmatch(r"\s*-?[0-9]{1,9}\s*", label) else None
    if first and number is not None:
        return {number: "index"}
    same = [index for index, candidate in enumerate(candidates) if candidate == label]
    if len(same) > 1:
        places = " and ".join(map(str, same))
        raise DataError(f"{where}: label {label!r:.60} is the text of candidates {places}; write the index instead")
    meant: dict[int, str] = {}
    if number is not None:
        meant[number] = "index"
    if len(label.strip()) == 1 and label.strip() in LETTERS:
        meant[LETTERS.index(label.strip())] = "letter"
    return meant | dict.fromkeys(same, "text")


def _in_order(candidates: Sequence[str], right: int, where: str) -> tuple[list[str], int]:
    """Sort candidates by their texts, since a column of right ones would always stand at one place; find the right one.

    Raises:
        DataError: a wrong candidate has the same text.
    """
    if candidates.count(candidates[right]) > 1:
        raise DataError(f"{where}: its right candidate {candidates[right]!r:.60} is also a wrong one; correct it")
    found = sorted(candidates)
    return found, found.index(candidates[right])


def _cell(row: Mapping[str, Any], data: ChoiceDataSection) -> Any:
    """The candidates of a row as they stand in its column, or a list of those of several columns."""
    return row[data.candidates] if isinstance(data.candidates, str) else [row[name] for name in data.candidates]


def _checked(rows: Dataset, where: str, data: ChoiceDataSection) -> Iterator[dict[str, Any]]:
    """Yield rows with the columns of `SCHEMA`. Raises: DataError: see `as_choices`."""
    of_columns = data.candidates if isinstance(data.candidates, list) else []
    right = of_columns.index(data.label) if data.label in of_columns else None
    for number, row in enumerate(rows):
        place = f"{where}: row {number} (from 0)"
        prompt, candidates = prompt_and_candidates(row, place, data)
        if right is None:
            label = index_of(row[data.label], _cell(row, data), place, data.first_index)
        else:
            candidates, label = _in_order(candidates, right, place)
        yield {"prompt": prompt, "candidates": candidates, "label": label}
