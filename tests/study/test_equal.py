"""What all strategies of a comparison have the same of: epochs, steps or seconds."""

from pathlib import Path
from typing import Any

import pytest

from nlp_ft.errors import RunFolderError
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.study import equal
from nlp_ft.study.cells import make_plan
from nlp_ft.study.compare import compare
from nlp_ft.study.equal import steps_in, unequal, with_equal_seconds
from nlp_ft.study.folder import claim_folder, write_recipes
from nlp_ft.study.results import Runs
from tests.study.test_compare import Done, here, write_recipe

SPEED = {"full": (12.0, 300), "head_only": (2.0, 300), "lp_ft": (9.0, 300)}
"""Strategy -> seconds and steps of its first run."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> str:
    training = {"duration": "300st", "early_stopping": {"patience": 2}}
    return write_recipe(tmp_path_factory.mktemp("comparison"), tiny_encoder, training=training)


def of_plan(recipe: str, folder: Path, kind: str) -> Any:
    return make_plan(recipe, [], folder, list(SPEED), 1, 2, equal=kind)


def test_equal_seconds_give_a_faster_strategy_more_steps(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = of_plan(recipe, tmp_path / "c", "seconds")
    claim_folder(plan)
    begun = []
    monkeypatch.setattr(equal, "run_cells", lambda pilots, jobs, *_: begun.extend([*pilots.cells, jobs]))
    monkeypatch.setattr(
        equal, "summary_of", lambda _, cell: dict(zip(("train_seconds", "global_step"), SPEED[cell.strategy]))
    )
    scaled = with_equal_seconds(plan, lambda *_: Done(), lambda: None)
    durations = {cell.strategy: scaled.recipe_of(cell)["training"]["duration"] for cell in scaled.cells}
    assert durations == {"full": "300st", "head_only": "1800st", "lp_ft": "400st"}
    assert [getattr(cell, "name", cell) for cell in begun] == [*(f"{name}-x1-seed0" for name in SPEED), 1]
    assert load_recipe(str(tmp_path / "c/pilots/cells/head_only-x1-seed0.yaml")).training.duration is not None
    write_recipes(scaled)
    assert str(load_recipe(str(scaled.recipe_file(scaled.cells[1]))).training.duration) == "1800st"


def test_steps_fill_the_seconds_and_are_at_least_one() -> None:
    assert steps_in(10.0, 4.0, 200) == 500
    assert steps_in(0.001, 4.0, 200) == 1


@pytest.mark.parametrize(("kind", "expected"), [("epochs", {2}), ("steps", {None}), ("seconds", {None})])
def test_early_stopping_is_off_where_steps_or_seconds_are_equal(
    kind: str, expected: set[int | None], recipe: str, tmp_path: Path
) -> None:
    plan = of_plan(recipe, tmp_path / "c", kind)
    stopping = [plan.recipe_of(cell)["training"]["early_stopping"] for cell in plan.cells]
    assert {found and found["patience"] for found in stopping} == expected


def test_another_budget_in_the_same_folder_is_refused(recipe: str, tmp_path: Path) -> None:
    claim_folder(of_plan(recipe, tmp_path / "c", "steps"))
    with pytest.raises(RunFolderError, match=r"different: --equal; choose another folder"):
        claim_folder(of_plan(recipe, tmp_path / "c", "seconds"))


def test_seconds_that_are_not_those_of_the_baseline_are_said() -> None:
    runs = [Runs(name, 1e-4, "", [{"train_seconds": s}], []) for name, s in (("full", 10.0), ("llrd", 11), ("lora", 5))]
    assert [line.split(",")[0] for line in unequal(runs, "full")] == ["lora trained 0.5 times as long as full"]


@pytest.mark.slow
def test_a_comparison_with_equal_seconds_has_steps_of_its_own_for_each_strategy(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    file = write_recipe(tmp_path, tiny_encoder, training={"duration": "60st"})
    plan = make_plan(file, [], tmp_path / "c", ["full", "head_only"], 1, 2, equal="seconds")
    result = compare(plan, start=here)
    assert (result["equal"], result["strategies"]["full"]["steps"]) == ("seconds", 60)
    assert result["strategies"]["head_only"]["steps"] > 60
    again = compare(plan, start=lambda *_: pytest.fail("a cell is trained again"))
    assert again["strategies"]["head_only"]["steps"] == result["strategies"]["head_only"]["steps"]
    assert "All strategies have the same seconds; steps: full 60, head_only" in (tmp_path / "c/README.md").read_text()
