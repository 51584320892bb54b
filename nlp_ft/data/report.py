"""What was read, said before training: sizes, labels, lengths, and what is odd about the rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nlp_ft.data.columns import numbers
from nlp_ft.data.labels import label_counts
from nlp_ft.data.text import TextData
from nlp_ft.layerwise.tables import text_table

LABELS_SHOWN = 12


def describe_data(data: TextData) -> dict[str, Any]:
    """Split name -> rows, label counts, token lengths, and counts of odd rows; `train` also gets overlaps."""
    return {split: _describe_split(data, split) for split in data.encoded}


def format_data_report(report: dict[str, Any]) -> str:
    """The report as tables, followed by one line for each thing to look at."""
    fields = ["rows", "median_tokens", "p95_tokens", "max_tokens", "truncated", "empty", "repeated"]
    rows = [[split, *(_cell(field, described[field]) for field in fields)] for split, described in report.items()]
    header = ["split", *(field.replace("_", " ") for field in fields)]
    return "\n".join([text_table(header, rows, right=range(1, len(header))), format_labels(report), *_warnings(report)])


def _describe_split(data: TextData, split: str) -> dict[str, Any]:
    encoded = data.encoded[split]
    num_tokens, hashes = numbers(encoded, "num_tokens"), numbers(encoded, "text_hash")
    labels = data.labels(split)
    described: dict[str, Any] = {
        "rows": len(num_tokens),
        "labels": label_counts(labels, data.label_names),
        "median_tokens": float(np.median(num_tokens)),
        "p95_tokens": float(np.percentile(num_tokens, 95)),
        "max_tokens": int(num_tokens.max()),
        "truncated": float((num_tokens > data.max_length).mean()),
        "empty": int(numbers(encoded, "is_empty").sum()),
        "repeated": int(len(hashes) - len(np.unique(hashes))),
        "repeated_with_another_label": conflicts(hashes, labels),
    }
    if split != "train":
        train = numbers(data.encoded["train"], "text_hash")
        described["also_in_train"] = int(np.isin(hashes, train).sum())
    return described


def conflicts(hashes: np.ndarray, labels: np.ndarray) -> int:
    """How many hashes occur with more than one label; each array (rows,)."""
    order = np.argsort(hashes)
    _, starts = np.unique(hashes[order], return_index=True)
    lowest, highest = (extreme.reduceat(labels[order], starts) for extreme in (np.minimum, np.maximum))
    return int((lowest != highest).sum())


def _cell(field: str, value: float) -> str:
    return f"{value:.1%}" if field == "truncated" else f"{value:,g}" if field == "rows" else f"{value:g}"


def format_labels(report: dict[str, Any]) -> str:
    """A table of the labels of each split, or one line where they are many."""
    splits = list(report)
    counts = report["train"]["labels"]
    names = sorted(counts, key=lambda name: -counts[name])
    if len(names) <= LABELS_SHOWN:
        rows = [[name, *(str(report[split]["labels"][name]) for split in splits)] for name in names]
        return "\n" + text_table(["label", *splits], rows, right=range(1, len(splits) + 1))
    low, high = names[-1], names[0]
    return f"\n{len(names)} labels; most rows of train: {high} ({counts[high]}); fewest: {low} ({counts[low]})"


def _warnings(report: dict[str, Any]) -> Sequence[str]:
    lines = []
    for split, described in report.items():
        absent = [name for name, count in described["labels"].items() if count == 0] if split == "train" else []
        if absent:
            lines.append(f"look: no row of train has the label(s) {', '.join(absent)}")
        if described["empty"]:
            lines.append(f"look: {described['empty']} empty text(s) in {split}")
        if described["repeated_with_another_label"]:
            lines.append(f"look: {described['repeated_with_another_label']} text(s) of {split} have several labels")
        if described.get("also_in_train"):
            lines.append(f"look: {described['also_in_train']} text(s) of {split} also occur in train")
        if described["truncated"] > 0.05:
            lines.append(
                f"look: {described['truncated']:.1%} of {split} is cut; see data.max_length and data.truncation"
            )
    return lines
