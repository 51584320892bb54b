"""Small data sets of choices: the right candidate begins with the word that the prompt names."""

import json
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ["red", "green", "blue", "warm", "cold", "big", "small", "cat", "dog", "bird"]


def tiny_choices(num_rows: int, seed: int) -> list[dict[str, Any]]:
    """Rows with 2 to 4 candidates of different lengths."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(num_rows):
        drawn = [str(word) for word in generator.permutation(WORDS)]
        count = int(generator.integers(2, 5))
        label = int(generator.integers(count))
        candidates = [" ".join([drawn[i], *drawn[5 : 5 + int(generator.integers(4))]]) for i in range(count)]
        rows.append({"text": f"the {drawn[label]} the", "candidates": candidates, "label": label})
    return rows


def write_choices(file: Path, rows: list[dict[str, Any]]) -> Path:
    """Write JSON Lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def choice_recipe(folder: Path, encoder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe as nested dicts."""
    for seed, (split, num_rows) in enumerate({"train": 60, "validation": 20, "test": 20}.items()):
        write_choices(folder / f"{split}.jsonl", tiny_choices(num_rows, seed))
    recipe: dict[str, Any] = {
        "task": "multiple_choice",
        "data": {
            **{split: str(folder / f"{split}.jsonl") for split in ("train", "validation", "test")},
            "max_length": 16,
        },
        "model": {"name": str(encoder)},
        "optimizer": {"lr": 5e-3, "head_lr": 1e-2},
        "training": {"duration": "2ep", "per_device_batch_size": 8, "precision": "fp32"},
        "output_dir": str(folder / "run"),
    }
    for key, value in changes.items():
        section = recipe.get(key)
        recipe[key] = {**section, **value} if isinstance(section, dict) and isinstance(value, dict) else value
    return recipe
