"""Runs that the tests of predictions share."""

from pathlib import Path
from typing import Any

import pytest

from nlp_ft.prediction.predict import load_run
from nlp_ft.prediction.text_run import TextRun
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.training.run import train
from tests.tiny import tiny_recipe


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> TextRun:
    """A run whose texts are cut at 24 tokens."""
    folder = tmp_path_factory.mktemp("predict")
    changes: dict[str, Any] = {"data": {"max_length": 24}, "training": {"duration": "8ep"}, "optimizer": {"lr": 1e-2}}
    train(recipe_from_dict(tiny_recipe(folder, tiny_encoder, **changes)))
    loaded = load_run(folder / "run")
    assert isinstance(loaded, TextRun)
    return loaded


@pytest.fixture(scope="session")
def pair_run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> TextRun:
    """A run on the pairs of the columns `first` and `second`."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = "".join(f"{word},the {word},same\n{word},small,other\n" for word in ("cat", "dog", "red", "blue"))
    (folder / "pairs.csv").write_text(f"first,second,label\n{rows}")
    places = {"train": str(folder / "pairs.csv"), "validation": None, "test": None, "text": ["first", "second"]}
    train(recipe_from_dict(tiny_recipe(folder, tiny_encoder, data=places)))
    loaded = load_run(folder / "run")
    assert isinstance(loaded, TextRun)
    return loaded
