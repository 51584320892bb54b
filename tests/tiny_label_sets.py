"""Tiny texts with any number of labels, and a recipe for them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny import LABELS, MARKERS, tiny_recipe

ROWS = {"train": 50, "validation": 21, "test": 25}


def label_sets(split: str) -> list[tuple[str, list[str]]]:
    """A word of each label that the text has, after `the`; some texts have no label."""
    generator = np.random.default_rng(len(split))
    drawn = [[label for label in LABELS if generator.random() < 0.4] for _ in range(ROWS[split])]
    return [(" ".join(["the", *(generator.choice(MARKERS[label]) for label in labels)]), labels) for labels in drawn]


def write_lists(file: Path, split: str) -> str:
    """JSON Lines with the labels in a list."""
    lines = [json.dumps({"text": text, "labels": labels}) for text, labels in label_sets(split)]
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def label_set_recipe(folder: Path, encoder: Path, /, **changes: Any) -> dict[str, Any]:
    """A recipe as nested dicts: 50 rows of train, effective batch 8 (the last one shorter), 8 epochs."""
    folder.mkdir(exist_ok=True)
    data = {split: write_lists(folder / f"{split}.jsonl", split) for split in ROWS}
    values: dict[str, Any] = tiny_recipe(
        folder, encoder, task="multi_label_classification", data={**data, "label": "labels"}, baselines=False
    )
    values["optimizer"] = {"lr": 3e-3, "head_lr": 1e-2}
    values["training"] |= {"duration": "8ep", "metric": "macro_f1"}
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return values
