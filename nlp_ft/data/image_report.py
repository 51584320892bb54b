"""Reports on image data before training: rows, labels, sizes, colour modes, and images to look at."""

from collections import Counter
from typing import Any

import numpy as np

from nlp_ft.data.images import ImageData
from nlp_ft.data.labels import label_counts
from nlp_ft.data.report import conflicts, format_labels, label_warnings, num_repeated, num_shared, shared_warnings
from nlp_ft.tables import terminal_width, text_table, wrapped

MODE_NAMES = {"RGB": "colour", "L": "grey", "RGBA": "with transparency", "I;16": "16-bit grey", "P": "palette"}


def describe_images(data: ImageData) -> dict[str, Any]:
    """Describe every split in plain values, which `format_image_report` prints and a run records.

    Returns:
        Split name -> `rows`, `labels` (rows of each label), sizes as (width, height) in pixels, `modes` (images of each
        mode), and counts of rows to look at; all splits but `train` also get `also_in_train`.
    """
    return {split: _describe_split(data, split) for split in data.encoded}


def format_image_report(report: dict[str, Any]) -> str:
    """Format the report of `describe_images` as tables, followed by one line for each thing to look at."""
    rows = [
        [
            split,
            f"{d['rows']:,}",
            _size(d["median_size"]),
            _size(d["min_size"]),
            _size(d["max_size"]),
            str(d["repeated"]),
        ]
        for split, d in report.items()
    ]
    header = ["split", "rows", "median size", "smallest", "largest", "repeated"]
    table = text_table(header, rows, right=range(1, 6), width=terminal_width())
    modes = "; ".join(f"{split} {_modes(described)}" for split, described in report.items())
    return wrapped("\n".join([table, f"modes: {modes}", format_labels(report), *_warnings(report)]))


def _describe_split(data: ImageData, split: str) -> dict[str, Any]:
    sizes = np.stack([data.column(split, "width"), data.column(split, "height")], axis=1)
    hashes, labels = data.column(split, "image_hash"), data.labels(split)
    area = sizes.prod(axis=1)
    described: dict[str, Any] = {
        "rows": len(labels),
        "labels": label_counts(labels, data.label_names),
        "median_size": np.median(sizes, axis=0).tolist(),
        "min_size": sizes[area.argmin()].tolist(),
        "max_size": sizes[area.argmax()].tolist(),
        "modes": dict(Counter(data.encoded[split]["mode"][:]).most_common()),
        "repeated": num_repeated(hashes),
        "repeated_with_another_label": conflicts(hashes, labels),
    }
    if split != "train":
        described["also_in_train"] = num_shared(hashes, data.column("train", "image_hash"))
    return described


def _size(size: list[float]) -> str:
    return f"{size[0]:g} x {size[1]:g}"


def _modes(described: dict[str, Any]) -> str:
    return ", ".join(f"{count:,} {MODE_NAMES.get(mode, mode)}" for mode, count in described["modes"].items())


def _warnings(report: dict[str, Any]) -> list[str]:
    lines = label_warnings(report)
    for split, described in report.items():
        lines += shared_warnings("image", split, described)
    return lines
