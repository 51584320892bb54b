"""The rows that an inspection counts where nothing could be encoded: rows, and not labels, words or numbers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.tasks.registry import task_of
from nlp_ft.training import inspection
from tests.tiny import tiny_recipe
from tests.tiny_label_sets import label_set_recipe
from tests.tiny_questions import question_recipe
from tests.tiny_words import words_recipe


def numbers_recipe(folder: Path, encoder: Path) -> dict[str, Any]:
    rows = [{"text": "the cat", "near": i / 7, "far": i / 3} for i in range(30)]
    (folder / "numbers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": str(folder / "numbers.jsonl"), "validation": None, "test": None, "label": ["near", "far"]}
    values: dict[str, Any] = tiny_recipe(folder, encoder, task="text_regression", data=data)
    return values


RECIPES: dict[str, tuple[Callable[[Path, Path], dict[str, Any]], int]] = {
    "multi_label_classification": (label_set_recipe, 50),
    "token_classification": (words_recipe, 200),
    "question_answering": (question_recipe, 60),
    "text_regression": (numbers_recipe, 30),
    "text_classification": (lambda folder, encoder: dict(tiny_recipe(folder, encoder)), 50),
}


@pytest.mark.parametrize("name", RECIPES)
def test_rows_of_train_are_counted_where_the_tokenizer_is_missing(
    name: str, tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, num_rows = RECIPES[name]
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, encoder)
    for file in encoder.glob("tokenizer*"):
        file.write_text("{")
    (tmp_path / "rows").mkdir()
    recipe = recipe_from_dict(make(tmp_path / "rows", encoder))
    assert task_of(recipe).num_rows() == num_rows
    seen: list[int | None] = []

    def lengths(recipe: Any, task: Any, num_raw_rows: int | None) -> np.ndarray:
        seen.append(num_raw_rows)
        return np.zeros(num_raw_rows or 1, np.int64)

    monkeypatch.setattr(inspection, "_lengths", lengths)
    assert inspection.inspect_recipe(recipe).problems != []
    assert seen == [num_rows]
