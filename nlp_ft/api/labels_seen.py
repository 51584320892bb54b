"""Says in words what the labels of train are: how many, with their rows; tags, numbers, answers."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow

from nlp_ft.api.choices_seen import given_candidates
from nlp_ft.api.column import as_names
from nlp_ft.api.forms import Seen, View
from nlp_ft.data.choices.rows import index_of, texts_and_names
from nlp_ft.data.label_sets import INDICATORS, sets_of
from nlp_ft.data.words.plain_rows import label_of_span
from nlp_ft.data.words.spans import OUTSIDE
from nlp_ft.errors import listed

LABELS_SHOWN = 12


def described(view: View, seen: Seen) -> list[str]:
    """Describe what is learned, in sentences; nothing where there is nothing to say."""
    for key, describe in (("candidates", _choices), ("context", _answers), ("words", _tags), ("spans", _spans)):
        if key in seen.columns:
            return describe(view, seen)
    names = as_names(seen.columns["label"])
    if seen.task == "text_regression":
        return [_numbers(view, name) for name in names]
    if len(names) > 1:
        return [_counted(f"{len(names)} labels", {name: _ones(view.rows.column(name)) for name in names})]
    separator = seen.settings.get("label_separator")
    are_sets = view.holds_lists(names[0]) or separator is not None
    return _label_sets(view, names[0], separator) if are_sets else _labels(view, names[0])


def _labels(view: View, name: str) -> list[str]:
    counts = Counter(map(str, _named(view, name, view.rows.column(name).to_pylist())))
    return [_counted(f"{len(counts)} labels", counts)]


def _label_sets(view: View, name: str, separator: str | None) -> list[str]:
    rows = [row or [] for row in sets_of(view.rows.column(name).to_pylist(), separator)]
    counts = Counter(str(label) for row in rows for label in _named(view, name, row))
    without = sum(not row for row in rows)
    sizes = f"{sum(map(len, rows)) / max(1, len(rows)):.2f} labels a row, {without:,} rows without a label"
    return [_counted(f"{len(counts)} labels", counts), sizes]


def _numbers(view: View, name: str) -> str:
    values = np.array([float(value) for value in view.rows.column(name).to_pylist() if value not in (None, "")])
    return f"{name}: from {values.min():g} to {values.max():g}, mean {values.mean():.4g}"


def _tags(view: View, seen: Seen) -> list[str]:
    name = as_names(seen.columns["label"])[0]
    rows = [_named(view, name, row or []) for row in view.rows.column(name).to_pylist()]
    counts = Counter(str(tag) for row in rows for tag in row)
    inside = {tag: count for tag, count in counts.items() if tag != OUTSIDE}
    words = f"{sum(counts.values()):,} words, {counts[OUTSIDE]:,} of them with the tag {OUTSIDE}"
    return [words, _counted(f"{len(inside)} other tags", Counter(inside), "words")]


def _spans(view: View, seen: Seen) -> list[str]:
    rows = view.rows.column(as_names(seen.columns["spans"])[0]).to_pylist()
    counts = Counter(str(label_of_span(span)) for row in rows for span in row or [])
    return [_counted(f"{len(counts)} kinds of spans", counts, "spans")]


def _answers(view: View, seen: Seen) -> list[str]:
    answers, context = (view.rows.column(as_names(seen.columns[key])[0]) for key in ("answers", "context"))
    without = sum(not _has_answer(one) for one in answers.to_pylist())
    questions, contexts = view.rows.num_rows, len(context.unique())
    return [f"{questions:,} questions on {contexts:,} contexts, {without:,} of them without an answer"]


def _choices(view: View, seen: Seen) -> list[str]:
    names, label = as_names(seen.columns["candidates"]), as_names(seen.columns["label"])[0]
    rows = [row or [] for row in given_candidates(view.rows, seen.columns["candidates"])]
    sizes = sorted({len(texts_and_names(row)[0]) for row in rows})
    many = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    if label in names:
        return [f"{many} candidates a row; the right one is in the column {label}"]
    right = Counter(
        str(index_of(value, row, f"row {place} (from 0)", seen.settings.get("first_index", 0)))
        for place, (value, row) in enumerate(zip(view.rows.column(label).to_pylist(), rows, strict=True))
    )
    return [_counted(f"{many} candidates a row; indices of the right ones", right)]


def _has_answer(answers: object) -> bool:
    return bool(answers.get("text") if isinstance(answers, Mapping) else answers)


def _ones(column: pyarrow.ChunkedArray) -> int:
    return sum(INDICATORS.get(value, 0) for value in column.to_pylist())


def _named(view: View, name: str, values: Iterable[object]) -> list[object]:
    """Write ids by their names, where the column has names."""
    names = view.class_names.get(name)
    return [names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value for value in values]


def _counted(what: str, counts: Mapping[str, int], unit: str = "rows") -> str:
    shown = listed([f"{name} ({count})" for name, count in Counter(counts).most_common()], LABELS_SHOWN)
    return f"{what}, with their {unit} in train: {shown}"
