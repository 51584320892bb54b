"""Reports on text data before training: sizes, labels, lengths, and rows to look at."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nlp_ft.data.labels import alike, label_counts
from nlp_ft.data.text import TextData
from nlp_ft.errors import listed, printable
from nlp_ft.tables import shortened, terminal_width, text_table, wrapped

LABELS_SHOWN = 12
NAME_WIDTH = 40
"""Most columns of a label's name within a sentence."""
SHOWN_TOKENS = {"median_tokens": "median tokens", "p95_tokens": "p95", "max_tokens": "longest"}
"""Key of a token length in the report -> head of its column."""


def describe_data(data: TextData, number_names: Sequence[str] = ()) -> dict[str, Any]:
    """Describe every split in plain values, which `format_data_report` prints and a run records.

    Args:
        data: the splits.
        number_names: the names of the numbers of a row, where it has several.

    Returns:
        Split name -> `rows`, `labels` (rows of each label, or the statistics of `described_numbers`, of several numbers
        under their names), token lengths, shares and counts of rows to look at; all splits but `train` also get
        `also_in_train`.
    """
    return {split: _describe_split(data, split, number_names) for split in data.encoded}


def format_data_report(report: dict[str, Any]) -> str:
    """Format the report of `describe_data` as tables, followed by one line for each thing to look at."""
    windows = ["windows"] if any("windows" in described for described in report.values()) else []
    fields = ["rows", *windows, *SHOWN_TOKENS, "truncated", "empty", "repeated"]
    rows = [
        # Where no text of a split is longer than a window, each row is one.
        [split, *(_cell(field, described.get(field, described["rows"])) for field in fields)]
        for split, described in report.items()
    ]
    header = ["split", *(SHOWN_TOKENS.get(field, field) for field in fields)]
    table = text_table(header, rows, right=range(1, len(header)), width=terminal_width())
    labels = format_numbers(report) if _has_numbers(report) else format_labels(report)
    return wrapped("\n".join([table, labels, *_warnings(report)]))


def _describe_split(data: TextData, split: str, number_names: Sequence[str]) -> dict[str, Any]:
    num_tokens, hashes = data.by_row(split, "num_tokens"), data.by_row(split, "text_hash")
    labels, num_windows = data.labels(split), len(data.encoded[split])
    described: dict[str, Any] = {
        "rows": len(num_tokens),
        "labels": _describe_labels(labels, data.label_names, number_names),
        "median_tokens": float(np.median(num_tokens)),
        "p95_tokens": float(np.percentile(num_tokens, 95)),
        "max_tokens": int(num_tokens.max()),
        "truncated": float((num_tokens > data.max_length).mean()) if num_windows == len(num_tokens) else 0.0,
        "empty": int(data.by_row(split, "is_empty").sum()),
        "repeated": num_repeated(hashes),
        "repeated_with_another_label": conflicts(hashes, labels),
    }
    if num_windows > len(num_tokens):
        described["windows"] = num_windows
    if split != "train":
        described["also_in_train"] = num_shared(hashes, data.by_row("train", "text_hash"))
    return described


def _describe_labels(labels: np.ndarray, names: Sequence[str], number_names: Sequence[str]) -> dict[str, Any]:
    if names:
        return label_counts(labels, names)
    if labels.ndim == 1:
        return described_numbers(labels)
    return {name: described_numbers(column) for name, column in zip(number_names, labels.T, strict=True)}


def described_numbers(labels: np.ndarray) -> dict[str, float]:
    """Compute the mean, standard deviation and range of labels that are numbers, (rows,)."""
    return {
        "mean": float(labels.mean()),
        "deviation": float(labels.std()),
        "least": float(labels.min()),
        "greatest": float(labels.max()),
    }


def format_numbers(report: dict[str, Any]) -> str:
    """Format a table with the statistics of the labels that are numbers, one row a split, or a split and number."""
    by_title: dict[str, dict[str, float]] = {}
    for split, described in report.items():
        of_split = described["labels"]
        if "deviation" in of_split and not isinstance(of_split["deviation"], dict):
            by_title[split] = of_split
        else:
            by_title |= {f"{split}: {_named(name)}": statistics for name, statistics in of_split.items()}
    rows = [[title, *(f"{value:g}" for value in statistics.values())] for title, statistics in by_title.items()]
    header = ["numbers of", "mean", "deviation", "least", "greatest"]
    return "\n" + text_table(header, rows, right=range(1, 5), width=terminal_width())


def _has_numbers(report: dict[str, Any]) -> bool:
    # Counts of label names are whole numbers; the statistics of number labels are floats, or floats under names.
    return any(isinstance(value, float | dict) for value in report["train"]["labels"].values())


def num_repeated(hashes: np.ndarray) -> int:
    """Count the rows whose hash an earlier row has; hashes is (rows,)."""
    # `np.unique` would need five times the memory of the hashes.
    ordered = np.sort(hashes)
    return int((ordered[1:] == ordered[:-1]).sum())


def num_shared(hashes: np.ndarray, others: np.ndarray) -> int:
    """Count the hashes, (rows,), that are among others, (other rows,)."""
    ordered = np.sort(others)
    nearest = ordered[np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)]
    return int((nearest == hashes).sum())


def conflicts(hashes: np.ndarray, labels: np.ndarray) -> int:
    """Count the hashes that occur with more than one label, or set of labels.

    Args:
        hashes: (rows,).
        labels: (rows,), or (rows, labels).
    """
    if labels.ndim > 1:
        labels = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
    order = np.argsort(hashes)
    ordered = hashes[order]
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    # If all rows with one hash have one label, no two neighbours among them differ in it.
    differ = labels[order[same]] != labels[order[same + 1]]
    return len(np.unique(ordered[same[differ]]))


def _cell(field: str, value: float) -> str:
    return f"{value:.1%}" if field == "truncated" else f"{value:,g}" if field in ("rows", "windows") else f"{value:g}"


def format_labels(report: dict[str, Any]) -> str:
    """Format a table of the rows of each label in each split, or one line if there are more than 12 labels."""
    splits = list(report)
    counts = report["train"]["labels"]
    names = sorted(counts, key=lambda name: -counts[name])
    if len(names) <= LABELS_SHOWN:
        rows = [[name, *(str(report[split]["labels"][name]) for split in splits)] for name in names]
        header = ["label", *splits]
        return "\n" + text_table(header, rows, right=range(1, len(header)), width=terminal_width())
    high, low = (f"{_named(name)} ({counts[name]})" for name in (names[0], names[-1]))
    return f"\n{len(names)} labels; most rows of train: {high}; fewest: {low}"


def label_warnings(report: dict[str, Any]) -> list[str]:
    """List what to look at among the labels of train: labels without rows, and names that differ only in spelling."""
    counts = report["train"]["labels"]
    absent = [_named(name) for name, count in counts.items() if count == 0]
    lines = []
    if absent:
        advice = "add such rows, or take the label(s) out of data.label_names"
        lines.append(f"look: no row of train has the label(s) {listed(absent)}: {advice}")
    unscored = [
        _named(name)
        for name, count in counts.items()
        if count and "validation" in report and not report["validation"]["labels"].get(name)
    ]
    if unscored:
        lines.append(
            f"look: validation has no row of the label(s) {listed(unscored, 5)}: its scores say nothing about "
            "them; give them more rows"
        )
    if unsure := [f"'{_named(name)}' ({counts[name]} rows)" for name in counts if _is_sign(name)]:
        lines.append(f"look: {listed(unsure)} may stand for a missing label: remove such rows, if so")
    for group in alike(list(counts)):
        names = ", ".join(f"'{_named(name)}' ({counts[name]} rows)" for name in group)
        lines.append(
            f"look: labels that differ in case, blanks or invisible characters alone: {names}: write them alike, "
            "if they mean the same"
        )
    return lines


def _is_sign(name: str) -> bool:
    """Whether a label is what files write for a missing one, as SNLI writes `-`."""
    is_mark = name.isascii() and not any(char.isalnum() for char in name)
    return is_mark or name.lower() in ("nan", "null", "na", "n/a")


def shared_warnings(input_name: str, split: str, described: dict[str, Any]) -> list[str]:
    """List what to look at among the texts or images of a split: those with several labels, and those of train."""
    lines = []
    if count := described.get("repeated_with_another_label"):
        several, do = _several(described)
        lines.append(f"look: {count} {input_name}(s) of {split} have several {several}: {do}")
    if count := described.get("also_in_train"):
        lines.append(
            f"look: {count} {input_name}(s) of {split} also occur in train: remove them from train, or the scores on "
            f"{split} are too good"
        )
    return lines


def _several(described: dict[str, Any]) -> tuple[str, str]:
    """Say what differs between equal inputs, and what to do about it."""
    if "labels_per_row" in described:
        return "sets of labels", "give all rows of a text the same set"
    if any(isinstance(value, float | dict) for value in described["labels"].values()):
        return "numbers", "keep one number for each, such as their mean"
    return "labels", "keep one label for each"


def _named(label: str) -> str:
    return shortened(printable(label), NAME_WIDTH)


def _warnings(report: dict[str, Any]) -> Sequence[str]:
    lines = [] if _has_numbers(report) else label_warnings(report)
    for split, described in report.items():
        if described["empty"]:
            lines.append(f"look: {described['empty']} empty text(s) in {split}: remove the row(s)")
        lines += shared_warnings("text", split, described)
        if described["truncated"] > 0.05:
            lines.append(
                f"look: {described['truncated']:.1%} of {split} is cut: raise data.max_length (the longest has "
                f"{described['max_tokens']:,} tokens), or choose with data.truncation which part is kept"
            )
    return lines
