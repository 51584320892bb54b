"""Looks at the rows of train where they are named by a place: files, saved data sets or the Hub."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
from datasets import Dataset

from nlp_ft.api.choices_seen import ANSWER_NAMES, LIST_NAMES, candidate_columns
from nlp_ft.api.column import as_names
from nlp_ft.api.columns_seen import LABEL_NAMES, TEXT_NAMES
from nlp_ft.api.forms import FORM_COLUMNS, View
from nlp_ft.data.questions import has_form_of_squad, read_questions
from nlp_ft.data.row_files import RowFiles
from nlp_ft.data.sources import Columns, check_columns, expand, load_files, rows_from_source
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.words.conll import is_conll, load_conll
from nlp_ft.errors import DataError
from nlp_ft.recipe.questions import QuestionDataSection
from nlp_ft.recipe.text import TextFilesSection

USUAL = (*FORM_COLUMNS, *LIST_NAMES, *ANSWER_NAMES, *TEXT_NAMES, *LABEL_NAMES)
"""Names of columns that are never left out of what is seen."""
PLACES = ("source", "config", "revision", "split_column", "train")
"""Keys of `data` that say where the rows of train are."""


def view_of_place(places: Mapping[str, Any], asked: View, task: str | None) -> View:
    """Read the columns of train that tell the task.

    Args:
        places: keys of `data` that say where the rows are.
        asked: what the caller says about the columns.
        task: the task, if the caller names it: then the columns need not be there.

    Raises:
        DataError: a file or column is missing or cannot be read, or there are no rows.
    """
    section = TextFilesSection(**places)
    with progress_bars(False):
        rows, asked = _rows(section, asked, task)
    if len(rows) == 0:
        raise DataError(f"data.train ({section.train}) has no rows")
    return view_of(rows, asked, are_csv(section.source or section.train))


def view_of(rows: Dataset, asked: View, are_texts_only: bool) -> View:
    """Take the rows and the names of their classes."""
    features = {name: getattr(feature, "feature", feature) for name, feature in rows.features.items()}
    names = {name: feature.names for name, feature in features.items() if getattr(feature, "names", None)}
    return replace(asked, rows=rows.with_format("arrow")[:], class_names=names, are_texts_only=are_texts_only)


def rows_of_own_format(files: Sequence[str], field: str) -> Dataset | None:
    """Read files whose format says what the rows are: SQuAD and CoNLL; None for all others. Raises: DataError."""
    if all(has_form_of_squad(file) for file in files):
        return read_questions(files, field, QuestionDataSection(train=list(files)))
    if is_conll(files):
        return load_conll(files, field, None, ("tokens", "ner_tags"))
    return None


def all_rows(file: str, field: str) -> tuple[Dataset, list[str]]:
    """Read all columns of a file but those of JSON that hold values of several kinds, unless their name is a usual one.

    Returns:
        The rows, and the names of the columns that were left out.

    Raises:
        DataError: a usual column or the file cannot be read, or no column is left.
    """
    try:
        return load_files(file, field), []
    except DataError:
        opened = RowFiles(expand([file], field), field)
        if opened.format != "json":
            raise
        odd = [name for name in opened.columns if name.lower() not in USUAL and not _can_be_read(opened, name)]
        kept = [name for name in opened.columns if name not in odd]
        if not odd or not kept:
            raise
        return opened.load(kept), odd


def _can_be_read(opened: RowFiles, name: str) -> bool:
    try:
        for _ in opened.tables([name]):
            pass
    except DataError:
        return False
    return True


def _rows(section: TextFilesSection, asked: View, task: str | None) -> tuple[Dataset, View]:
    if section.source is not None:
        is_local = section.split_column is not None
        found = RowFiles(expand(as_names(section.source), "data.source"), "data.source").columns if is_local else []
        columns = _wanted(found, asked) if is_local else []
        rows = rows_from_source(section, "train", section.train, columns)
    else:
        files = expand(as_names(section.train), "data.train")
        if (own := rows_of_own_format(files, "data.train")) is not None:
            return own, replace(asked, text="text", label="label")
        are_folders = all(Path(file).is_dir() for file in files)
        found = [] if are_folders else RowFiles(files, "data.train").columns
        rows = load_files(section.train, "data.train", None if are_folders else _wanted(found, asked))
    found = found or rows.column_names
    if task is None and not _may_be_seen(found, asked):
        check_columns(found, _named(asked), f"data.train ({section.train})")
    return rows, asked


def _wanted(found: Sequence[str], asked: View) -> Columns:
    """Choose the columns to read: those that are named; else, where one is not there, those with usual names."""
    named = _named(asked)
    if all(name in found for _, name in named) and not {"words", "spans", "question"} & asked.named.keys():
        return named
    usual = [*(name for _, name in named), *FORM_COLUMNS, "answer"]
    if candidate_columns(found) and not set(FORM_COLUMNS) & asked.named.keys():
        return [("label", name) for name in found]
    further = [str(asked.named[key]) for key in (*FORM_COLUMNS, "words") if isinstance(asked.named.get(key), str)]
    return [("label", name) for name in dict.fromkeys([*usual, *further]) if name in found] or named


def _may_be_seen(found: Sequence[str], asked: View) -> bool:
    """Whether a form is seen by columns other than text and label; what is missing then is said there."""
    empty = pyarrow.table({name: [] for name in found})
    has_form = bool(set(found) & set(FORM_COLUMNS)) or any(key in asked.named for key in (*FORM_COLUMNS, "words"))
    return replace(asked, rows=empty).has_text_and_label or has_form or bool(candidate_columns(found))


def _named(asked: View) -> Columns:
    return [*(("text", name) for name in as_names(asked.text)), *(("label", name) for name in as_names(asked.label))]


def are_images(place: Any) -> bool:
    """Whether a place is a folder of images, or a zip file of them, rather than rows."""
    places = [Path(one) for one in as_names(place or [])]
    saved = ("state.json", "dataset_dict.json")
    return bool(places) and all(
        one.suffix.lower() == ".zip" or (one.is_dir() and not any((one / name).exists() for name in saved))
        for one in places
    )


def are_csv(place: Any) -> bool:
    """Whether all files of a place are of a format that holds texts alone."""
    return all(Path(one).suffix.lower() in (".csv", ".tsv") for one in as_names(place))
