"""The report of a run of each task: what it lists of the rows, and that a browser shows all of it."""

import csv
from pathlib import Path
from typing import Any

import pytest

from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.report.summary import describe_run
from nlp_ft.training.run import train
from tests.report.browser import browser, measure
from tests.tiny import tiny_recipe
from tests.tiny_choices import choice_recipe
from tests.tiny_images import tiny_image_recipe
from tests.tiny_label_sets import label_set_recipe
from tests.tiny_questions import question_recipe
from tests.tiny_words import words_recipe

PROGRAM = browser()
QUICK: dict[str, Any] = {"report": True, "baselines": False}
SHORT = {"training": {"duration": "1ep"}}
SHOWN = {
    "multi_label_classification": {"inputs", "reference", "predicted"},
    "text_regression": {"inputs", "reference", "predicted"},
    "token_classification": {"true_spans", "predicted_spans"},
    "question_answering": {"inputs", "reference", "predicted", "passage"},
    "multiple_choice": {"inputs", "reference", "predicted"},
    "image_classification": {"inputs", "reference", "predicted"},
}
"""Task -> what its report says of a row."""
FIGURES = {
    "multi_label_classification": {"by_length"},
    "text_regression": {"numbers"},
    "token_classification": {"by_length", "confusion"},
    "question_answering": {"by_length", "calibration"},
    "multiple_choice": {"by_length", "calibration"},
    "image_classification": {"confusion", "calibration"},
}


def number_recipe(folder: Path, encoder: Path) -> dict[str, Any]:
    """Texts whose number is that of their words."""
    data = {}
    for split, rows in {"train": 50, "validation": 20, "test": 20}.items():
        with (folder / f"{split}_numbers.csv").open("w", newline="") as stream:
            texts = [" ".join(["the", "cat"][: row % 2 + 1] * (row % 4 + 1)) for row in range(rows)]
            csv.writer(stream).writerows([["text", "label"], *([text, len(text.split())] for text in texts)])
        data[split] = str(folder / f"{split}_numbers.csv")
    recipe: dict[str, Any] = tiny_recipe(folder, encoder, task="text_regression", **QUICK)
    return {**recipe, "data": {**data, "label": "label"}}


def recipe_of(task: str, folder: Path, encoder: Path) -> dict[str, Any]:
    if task == "text_regression":
        return number_recipe(folder, encoder)
    if task == "image_classification":
        return tiny_image_recipe(folder, **QUICK, **SHORT)
    make: Any = {
        "multi_label_classification": label_set_recipe,
        "token_classification": words_recipe,
        "question_answering": question_recipe,
        "multiple_choice": choice_recipe,
    }[task]
    recipe: dict[str, Any] = make(folder, encoder, **QUICK, **SHORT)
    return recipe


USUAL = ("token_classification", "question_answering")
"""The tasks of every test run; the others are slow."""


@pytest.mark.parametrize(
    "task", [task if task in USUAL else pytest.param(task, marks=pytest.mark.slow) for task in SHOWN]
)
def test_a_run_of_each_task_has_a_report_that_shows_its_rows(task: str, tiny_encoder: Path, tmp_path: Path) -> None:
    if task == "image_classification":
        pytest.importorskip("torchvision")
    train(recipe_from_dict(recipe_of(task, tmp_path, tiny_encoder)))
    found = describe_run(tmp_path / "run")["splits"]["test"]
    row = [*found["mistakes"], *found["hardest"]][0]
    numbers = {"row", "score", "loss", "is_right", "perhaps_mislabelled"}
    assert {name for name, value in row.items() if value is not None} - numbers == SHOWN[task]
    assert {name for name in ("by_length", "numbers", "confusion", "calibration") if found[name]} == FIGURES[task]
    if PROGRAM is not None:
        shown = measure(PROGRAM, tmp_path / "run/report.html", 390)
        assert shown["console"] == []
        assert (shown["wide"], shown["cut"]) == ([], [])
        assert shown["scrollWidth"] <= 390
