"""What a report says of one split: tables, confusion, calibration, mistakes; by the files that there are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlp_ft.errors import printable
from nlp_ft.report.calibration import calibration, coverage
from nlp_ft.report.rows import CONFIDENT, Row, read_rows, show_answer, show_label, show_number, show_tags, shown_row
from nlp_ft.report.run_files import TRAIN_HARDEST, read_table

PAIRS_SHOWN = 6
POINTS_SHOWN = 400
TABLE_ROWS = 100
NUM_LENGTHS = 5


@dataclass(frozen=True)
class Kind:
    """What the rows of a split are: a title for the table of the outputs, and how to show a row."""

    table: str
    show: Callable[[Row], dict[str, Any]]
    has_probabilities: bool
    """Whether `score` is the probability that the whole prediction is right, so that calibration means something."""
    is_exact: bool = True
    """Whether a prediction is right or wrong; a number is near or far."""


KINDS = {
    "per_class.csv": Kind("By class", show_label, True),
    "per_label.csv": Kind("By label", show_label, False),
    "per_type.csv": Kind("By type of span", show_tags, False),
    "by_question_word.csv": Kind("By question word", show_answer, True),
    "by_length.csv": Kind("By length of the right candidate", show_label, True),
    "per_number.csv": Kind("By number", show_number, False, False),
}
"""Ending of the table that the outputs write -> what their rows are. One number has no table."""
ONE_NUMBER = KINDS["per_number.csv"]


def describe_split(folder: Path, split: str, most: int, texts: bool, has_lengths: bool) -> dict[str, Any]:
    """Collect what the files of a split hold.

    Args:
        folder: the run folder.
        split: name of the split.
        most: rows to list in each list of rows.
        texts: whether to show the texts of rows.
        has_lengths: whether the inputs are texts, which are long or short, and not the names of images.
    """
    name = next((ending for ending in KINDS if (folder / f"{split}_{ending}").exists()), "")
    kind = KINDS.get(name, ONE_NUMBER)
    rows = read_rows(folder / f"{split}_predictions.csv")
    header, lines = read_table(folder / f"{split}_{name}") if name else ([], [])
    title = kind.table if len(lines) <= TABLE_ROWS else f"{kind.table}: the first {TABLE_ROWS} of {len(lines)}"
    found: dict[str, Any] = {
        "calibration": None,
        "coverage": None,
        "by_length": [],
        "numbers": [],
        "rows": len(rows),
        "table": {
            "title": title,
            "header": [printable(name.replace("_", " ")) for name in header],
            "rows": _as_numbers(lines[:TABLE_ROWS]),
        },
        "confusion": _confusion(folder / f"{split}_confusion_matrix.csv"),
    }
    if rows and kind.is_exact:
        found["share_right"] = float(np.mean([row.is_right for row in rows]))
        found["by_length"] = by_length(rows) if has_lengths else []
    if rows and not kind.is_exact:
        found["numbers"] = _numbers(rows)
    return {**found, **_scored(rows, kind), **_listed(rows, kind, most, texts)}


def hardest_of_train(folder: Path, most: int, texts: bool) -> list[dict[str, Any]]:
    """List the rows of train with the highest losses of the last epochs; none where the run has not kept them."""
    name = next((ending for ending in KINDS if any(folder.glob(f"*_{ending}"))), "")
    kind = KINDS.get(name, ONE_NUMBER)
    return [
        {
            **shown_row(row, kind.show, texts),
            "is_right": row.is_right if kind.is_exact else None,
            "perhaps_mislabelled": kind.has_probabilities and not row.is_right and (row.score or 0.0) >= CONFIDENT,
        }
        for row in read_rows(folder / TRAIN_HARDEST)[:most]
    ]


def _scored(rows: Sequence[Row], kind: Kind) -> dict[str, Any]:
    """Compute calibration and coverage, where each row has a probability."""
    scores = [row.score for row in rows if row.score is not None]
    if not kind.has_probabilities or not rows or len(scores) < len(rows):
        return {}
    are_right = [row.is_right for row in rows]
    return {"calibration": calibration(scores, are_right), "coverage": coverage(scores, are_right)}


def _listed(rows: Sequence[Row], kind: Kind, most: int, texts: bool) -> dict[str, Any]:
    """List the most confident mistakes and, of the others, the rows with the highest loss."""
    wrong = [row for row in rows if row.score is not None and not row.is_right] if kind.is_exact else []
    mistakes = sorted(wrong, key=lambda row: -(row.score or 0.0))[:most]
    numbers = {row.number for row in mistakes}
    hardest = [row for row in rows if row.loss is not None and row.number not in numbers][:most]
    return {
        "mistakes": [
            {
                **shown_row(row, kind.show, texts),
                "perhaps_mislabelled": kind.has_probabilities and (row.score or 0.0) >= CONFIDENT,
            }
            for row in mistakes
        ],
        "hardest": [
            {**shown_row(row, kind.show, texts), "is_right": row.is_right if kind.is_exact else None} for row in hardest
        ],
    }


def by_length(rows: Sequence[Row], num_groups: int = NUM_LENGTHS) -> list[dict[str, Any]]:
    """Group rows by the characters of their inputs, in groups of about equal size, and count what is right in each.

    Returns:
        A group each, the shortest first: `from` and `to` (characters), `rows`, `share_right`; none without inputs.
    """
    lengths = np.array([row.num_characters for row in rows])
    if len(rows) == 0 or not lengths.any():
        return []
    ends = np.unique(np.quantile(lengths, np.linspace(0, 1, num_groups + 1)[1:], method="lower"))
    places = np.searchsorted(ends, lengths)
    right = np.array([row.is_right for row in rows])
    groups = []
    for place in range(len(ends)):
        inside = places == place
        groups.append(
            {
                "from": int(lengths[inside].min()),
                "to": int(lengths[inside].max()),
                "rows": int(inside.sum()),
                "share_right": float(right[inside].mean()),
            }
        )
    return groups


def _confusion(file: Path) -> dict[str, Any] | None:
    """Read a confusion matrix, with the pairs that are confused most; None without a file."""
    header, lines = read_table(file)
    if not lines:
        return None
    labels = _printable(header[1:])
    counts = [[int(float(cell)) for cell in line[1:]] for line in lines]
    pairs = [
        {"true": labels[i], "predicted": labels[j], "rows": count}
        for i, line in enumerate(counts)
        for j, count in enumerate(line)
        if i != j and count
    ]
    pairs.sort(key=lambda pair: -int(str(pair["rows"])))
    return {"title": printable(header[0]), "labels": labels, "counts": counts, "pairs": pairs[:PAIRS_SHOWN]}


def _numbers(rows: Sequence[Row]) -> list[list[float]]:
    """Collect true and predicted numbers of at most `POINTS_SHOWN` rows; none if a row has several numbers."""
    step = max(1, len(rows) // POINTS_SHOWN)
    try:
        return [[float(row.reference), float(row.predicted)] for row in rows[::step][:POINTS_SHOWN]]
    except ValueError:
        return []


def _as_numbers(lines: Sequence[Sequence[str]]) -> list[list[str | int | float]]:
    """Read the columns that hold numbers: as counts where all are whole and one is above 1, else as floats.

    The first column has names, of labels say, and `007` is one.
    """
    names, *others = zip(*lines) if lines else [()]
    columns: list[Sequence[str | int | float]] = [_printable(names)]
    for column in others:
        try:
            numbers = [float(cell) for cell in column]
        except ValueError:
            columns.append(_printable(column))
            continue
        are_counts = all(number.is_integer() for number in numbers) and max(numbers) > 1
        columns.append([int(number) for number in numbers] if are_counts else numbers)
    return [list(line) for line in zip(*columns)]


def _printable(cells: Sequence[str]) -> list[str]:
    return [printable(cell) for cell in cells]
