"""Small data sets of questions: the answer is the word after the one that the question names."""

import json
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ["red", "green", "blue", "warm", "cold", "big", "small", "cat", "dog", "bird"]


def tiny_questions(num_rows: int, seed: int, no_answer_every: int | None = None) -> list[dict[str, Any]]:
    """Questions `the WORD` on contexts of 8 words; of every so many questions, one names a word that is not there."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(num_rows):
        drawn = [str(word) for word in generator.permutation(WORDS)]
        place = int(generator.integers(7))
        context = " ".join(drawn[:8])
        is_absent = no_answer_every is not None and number % no_answer_every == 0
        start = len(" ".join(drawn[: place + 1])) + 1
        rows.append(
            {
                "title": f"article {number % 7}",
                "question": f"the {drawn[9] if is_absent else drawn[place]}",
                "context": context,
                "answers": [] if is_absent else [{"text": drawn[place + 1], "answer_start": start}],
            }
        )
    return rows


def write_questions(file: Path, rows: list[dict[str, Any]]) -> Path:
    """Write JSON Lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def question_recipe(folder: Path, encoder: Path, no_answer_every: int | None = None, **changes: Any) -> dict[str, Any]:
    """A recipe as nested dicts, whose windows are shorter than the contexts."""
    for seed, (split, num_rows) in enumerate({"train": 60, "validation": 20, "test": 20}.items()):
        write_questions(folder / f"{split}.jsonl", tiny_questions(num_rows, seed, no_answer_every))
    recipe: dict[str, Any] = {
        "task": "question_answering",
        "data": {
            **{split: str(folder / f"{split}.jsonl") for split in ("train", "validation", "test")},
            "max_length": 12,
            "stride": 2,
        },
        "model": {"name": str(encoder)},
        "optimizer": {"lr": 5e-3, "head_lr": 1e-2},
        "training": {"duration": "2ep", "per_device_batch_size": 8, "precision": "fp32"},
        "output_dir": str(folder / "run"),
        "report": False,
    }
    for key, value in changes.items():
        section = recipe.get(key)
        recipe[key] = {**section, **value} if isinstance(section, dict) and isinstance(value, dict) else value
    return recipe
