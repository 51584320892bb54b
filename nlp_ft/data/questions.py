"""Reads questions with their contexts and answers: files in the form of SQuAD, and rows of any other file or data set.

Every answer is checked against its context. Shares of train are drawn by article.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from datasets import Dataset

from nlp_ft.data.answer_checks import SCHEMA, checked_question
from nlp_ft.data.columns import selected
from nlp_ft.data.row_files import RowFiles
from nlp_ft.data.saved_datasets import split_of_saved
from nlp_ft.data.sources import SPLITS, check_columns, check_texts, expand, field_with_files, from_hub, load_files
from nlp_ft.data.splits import SPLIT_SEED, draw_train_rows
from nlp_ft.data.stored import content_hash, stored_rows, tables_of
from nlp_ft.errors import DataError
from nlp_ft.locations import resolve_location
from nlp_ft.recipe.questions import QuestionDataSection
from nlp_ft.recipe.sections import is_share, percent_of

FORM_OF_SQUAD = "data: [{title, paragraphs: [{context, qas: [{question, answers: [{text, answer_start}]}]}]}]"


def load_question_splits(data: QuestionDataSection, seed: int = 0) -> dict[str, Dataset]:
    """Read the splits that the recipe names, and draw the shares of train, then the rows that stay, by the seed.

    Returns:
        Split name -> rows with the columns of `SCHEMA`.

    Raises:
        DataError: a file, column or row cannot be used; see `read_questions` and `draw_by_article`.
    """
    splits: dict[str, Dataset] = {}
    shares: dict[str, str] = {}
    for split in SPLITS:
        where = getattr(data, split)
        if where is None:
            continue
        if split != "train" and is_share(where):
            shares[split] = where
        elif data.source is None:
            splits[split] = read_questions(where, f"data.{split}", data)
        else:
            rows = _split_of_source(data, where, f"data.{split}")
            splits[split] = _as_questions(rows, f"data.{split} ({where})", data)
    return draw_train_rows(draw_by_article(splits, shares), None, data.train_rows, seed)


def read_questions(paths: str | Sequence[str], field: str, data: QuestionDataSection) -> Dataset:
    """Read questions of files, globs or saved dataset folders.

    Args:
        paths: location or locations of the data.
        field: the recipe key or option that error messages name.
        data: the section that names the columns.

    Returns:
        Rows with the columns of `SCHEMA`.

    Raises:
        DataError: nothing is there, a column is missing, or a row has no question, no context, or an answer that is not
            in its context; the message names the row.
    """
    files = expand(paths, field)
    where = field_with_files(field, paths)
    nested = [_nested(file) for file in files]
    if all(content is not None for content in nested):
        rows = stored_rows(
            f"squad {content_hash(files)}",
            lambda: _tables((row for content in nested for row in _flat(content or {}, where)), where),
        )
        if rows is None:
            raise DataError(f"{where} has no questions")
        return rows
    if any(content is not None for content in nested):
        raise DataError(f"{where}: some files have the form of SQuAD and others do not; give all one form")
    if all(Path(file).is_dir() for file in files):
        return _as_questions(load_files(paths, field), where, data)
    named = _named_columns(RowFiles(files, field).columns, data, where)
    return _as_questions(load_files(paths, field, named), where, data)


def draw_by_article(splits: Mapping[str, Dataset], shares: Mapping[str, str]) -> dict[str, Dataset]:
    """Move shares of the rows of train to new splits, whole articles at a time; the same ones in every run.

    Args:
        splits: split name -> rows, `train` among them.
        shares: split name -> share of the rows, such as `10%`.

    Raises:
        DataError: train has too few articles.
    """
    if not shares:
        return dict(splits)
    articles = np.array(splits["train"]["article"][:])
    names = np.unique(articles)
    if len(names) <= len(shares):
        raise DataError(
            f"data.{next(iter(shares))}: shares are drawn by article, and train has {len(names)} article(s); name a "
            "file instead"
        )
    order = np.random.default_rng(SPLIT_SEED).permutation(len(names))
    # The share of the rows before each article, in the order drawn.
    ends = np.cumsum(np.unique(articles, return_counts=True)[1][order]) / len(articles)
    drawn: dict[str, np.ndarray] = {}
    first, upper = 0, 0.0
    # Test comes first, so that it does not depend on how much is drawn for validation.
    for number, split in enumerate(sorted(shares, key=lambda split: split != "test")):
        upper += percent_of(shares[split]) / 100
        last = max(first + 1, int(np.abs(ends - upper).argmin()) + 1)
        # One article at least is left for each of the others, train among them.
        last = min(last, len(names) - (len(shares) - number))
        drawn[split] = order[first:last]
        first = last
    drawn["train"] = order[first:]
    of_row = np.searchsorted(names, articles)
    found = {
        split: selected(splits["train"], np.flatnonzero(np.isin(of_row, chosen))) for split, chosen in drawn.items()
    }
    return {split: found.get(split, splits.get(split)) for split in SPLITS if split in {**found, **splits}}


def _split_of_source(data: QuestionDataSection, name: str | list[str], field: str) -> Dataset:
    if not isinstance(name, str) or not isinstance(data.source, str):
        raise DataError(f"{field} must be one split of one data.source, got {name} of {data.source}")
    folder = resolve_location(data.source, DataError, "data.source")
    if not os.path.exists(folder):
        return from_hub(data, data.source, name, field)
    if not Path(folder).is_dir():
        raise DataError(f"data.source: {folder} is a file; give the files in data.train, data.validation and data.test")
    return split_of_saved(folder, name, field)


def has_form_of_squad(file: str) -> bool:
    """Whether a file is JSON in the form of SQuAD."""
    return _nested(file) is not None


def squad_inputs(files: Sequence[str], field: str, num_rows: int) -> Iterator[list[dict[str, str]]]:
    """Read `id`, `question` and `context` of files in the form of SQuAD, at most `num_rows` at a time.

    Answers are not looked at, and may lack.

    Raises:
        DataError: a file has another form, or a question or context is no text.
    """
    rows = (
        row for file in files for row in _flat(_nested(file) or {"data": []}, f"{field} ({file})", has_answers=False)
    )
    while part := list(islice(rows, num_rows)):
        for row in part:
            if not isinstance(row["question"], str) or not isinstance(row["context"], str):
                raise DataError(
                    f"{field}: question and context must be texts, got {row['question']!r:.60} (id {row['id']})"
                )
        yield [{key: str(row[key]) for key in ("id", "question", "context")} for row in part]


def _nested(file: str) -> dict[str, Any] | None:
    """Read a file in the form of SQuAD; None if it has another form."""
    if Path(file).suffix.lower() != ".json":
        return None
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError):
        return None  # The reader of rows says what is wrong.
    return content if isinstance(content, dict) and isinstance(content.get("data"), list) else None


def _flat(content: Mapping[str, Any], where: str, has_answers: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the questions of a file in the form of SQuAD, version 1 or 2."""
    for number, article in enumerate(content["data"]):
        try:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    yield {
                        "id": question.get("id", ""),
                        "article": str(article.get("title") or paragraph["context"]),
                        "question": question["question"],
                        "context": paragraph["context"],
                        "answers": [] if question.get("is_impossible") or not has_answers else question["answers"],
                    }
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{where}: article {number} (from 0) does not have the form of SQuAD, {FORM_OF_SQUAD}: "
                f"{type(error).__name__} {error}"
            ) from None


def _named_columns(found: Sequence[str], data: QuestionDataSection, where: str) -> list[tuple[str, str]]:
    """List (key of the recipe, column) of the columns to read. Raises: DataError: one is missing."""
    named = [(key, getattr(data, key)) for key in ("question", "context", "answers")]
    named += [("article", data.article)] if data.article else []
    check_columns(found, named, where)
    further = [("answer_start", data.answer_start), *([] if data.article else [("article", "title")])]
    taken = {column for _, column in named}
    return [*named, *((key, column) for key, column in further if column in found and column not in taken)]


def _as_questions(rows: Dataset, where: str, data: QuestionDataSection) -> Dataset:
    """Check rows with the recipe's columns, and give them the columns of `SCHEMA`."""
    named = _named_columns(rows.column_names, data, where)
    check_texts(rows.features, [data.question], where, "question")
    check_texts(rows.features, [data.context], where, "context")
    columns = dict(named)
    kept = rows.select_columns(list(dict.fromkeys(columns.values())))

    def flat() -> Iterator[dict[str, Any]]:
        for row in kept:
            values = {key: row[column] for key, column in columns.items()}
            article = values.get("article")
            yield {
                **values,
                "article": str(values["context"] if article is None else article),
                "answers": _pairs(values["answers"], values.get("answer_start")),
            }

    stored = stored_rows(f"questions {named} {rows._fingerprint}", lambda: _tables(flat(), where))
    if stored is None:
        raise DataError(f"{where} has no rows")
    return stored


def _pairs(answers: Any, start: Any) -> Any:
    """Bring the forms of answers to one, a list of `{text, answer_start}`; what has another form stays as it is."""
    if answers is None or answers == "":
        return []
    if isinstance(answers, str):
        return [{"text": answers, "answer_start": start}]
    if isinstance(answers, dict):
        texts, starts = answers.get("text"), answers.get("answer_start")
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            return [{"text": text, "answer_start": first} for text, first in zip(texts, starts)]
        return [answers]
    return answers


def _tables(rows: Iterator[dict[str, Any]], where: str) -> Iterator[pyarrow.Table]:
    checked = (checked_question(row, f"{where}: row {number} (from 0)") for number, row in enumerate(rows))
    return tables_of(checked, SCHEMA)
