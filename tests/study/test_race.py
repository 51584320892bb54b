"""A race: who is dropped, that the time is kept over all starts, and what is said of those that did not finish."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlp_ft.errors import TrainingError
from nlp_ft.options import seconds
from nlp_ft.study import compare as comparing
from nlp_ft.study.cells import Cell, Plan, make_plan
from nlp_ft.study.compare import compare
from nlp_ft.study.folder import claim_folder
from nlp_ft.study.process import Running
from nlp_ft.study.race import Clock, Deficit, behind, is_behind, race, unfinished
from nlp_ft.study.running import chosen
from tests.study.test_compare import Done, here, write_recipe

STRATEGIES = ("full", "head_only", "llrd")
Scores = Mapping[str, Sequence[float]]
SCORES: Scores = {"full": [0.80, 0.82, 0.81, 0.80], "head_only": [0.375] * 4, "llrd": [0.875, 0.86, 0.84, 0.85]}
"""Strategy -> its score of each seed at its best rate, by default the middle one; the others are 10 points worse."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> str:
    return write_recipe(tmp_path_factory.mktemp("comparison"), tiny_encoder)


def make(recipe: str, folder: Path, num_rates: int = 1, num_seeds: int = 4) -> Plan:
    plan = make_plan(recipe, [], folder, STRATEGIES, num_rates, num_seeds)
    claim_folder(plan)
    return plan


def finish(plan: Plan, cell: Cell, scores: Scores, row_margin: float = 0.05, best: float = 1.0) -> None:
    """Write what a finished cell has written that a race reads."""
    value = scores[cell.strategy][cell.seed] - (0 if cell.factor == best else 0.1)
    summary = {
        "metrics": {"validation": {"accuracy": value}},
        "margins": {"validation": {"accuracy": row_margin}},
        "train_seconds": 9.0,
        "total_seconds": 10.0,
    }
    plan.folder_of(cell).mkdir(parents=True)
    (plan.folder_of(cell) / "summary.json").write_text(json.dumps(summary))


class Track:
    """Cells that take 10 seconds each, on a clock of their own."""

    def __init__(self, plan: Plan, scores: Scores = SCORES, best: float = 1.0) -> None:
        self.plan, self.scores, self.best, self.time = plan, scores, best, 0.0
        self.begun: list[str] = []

    def start(self, file: Path, log: Path) -> Running:
        [cell] = [cell for cell in self.plan.cells if cell.name == file.stem]
        self.begun.append(cell.name)
        finish(self.plan, cell, self.scores, best=self.best)
        self.time += 10
        return Done()

    def race(self, budget: float) -> dict[str, Deficit]:
        return race(self.plan, 1, 0.005, Clock(self.plan, budget, lambda: self.time), self.start, lambda: None)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.25], True),  # above what is clear with one seed
        ([0.15], False),
        ([0.15, 0.15], False),  # two seeds that agree may be chance
        ([0.05, 0.06, 0.055], True),  # three that agree are not
        ([0.05, 0.20, -0.10], False),
        ([0.004, 0.004, 0.004], False),  # below the margin
        ([-0.1, -0.1, -0.1], False),
    ],
)
def test_a_strategy_is_behind_where_the_gap_is_clear_or_the_seeds_agree(
    differences: list[float], expected: bool
) -> None:
    assert is_behind(np.array(differences), margin=0.005, clear=0.2) is expected


def test_those_behind_are_named_with_the_best_and_the_baseline_never_is(recipe: str, tmp_path: Path) -> None:
    plan = make(recipe, tmp_path / "c")
    scores = {**SCORES, "full": [0.1] * 4}
    for cell in plan.cells:
        finish(plan, cell, scores)
    assert behind(plan, 1, 0.005) == {"head_only": Deficit("llrd", 0.5, 1)}
    assert behind(plan, 4, 0.005, without=["llrd"]) == {}


def test_a_race_goes_seed_by_seed_from_the_middle_rate_on_and_drops_who_is_behind(recipe: str, tmp_path: Path) -> None:
    track = Track(make(recipe, tmp_path / "c", num_rates=2, num_seeds=2))
    dropped = track.race(1000)
    assert [name.split("-x")[0] for name in track.begun[:3]] == ["full", "head_only", "llrd"]
    assert set(track.begun[:3]) == {f"{name}-x1-seed0" for name in STRATEGIES}
    assert set(track.begun[3:6]) == {f"{name}-x0.33-seed0" for name in STRATEGIES}
    assert sorted(track.begun[6:]) == [f"{s}-x{f}-seed1" for s in ("full", "llrd") for f in ("0.33", "1")]
    assert dropped == {"head_only": Deficit("llrd", 0.5, 1)}
    assert unfinished(track.plan, dropped) == {
        "head_only": {"seeds": 1, "why": "dropped, 50.0 points behind llrd on validation"}
    }


def test_a_race_ends_where_the_next_cell_would_not_fit_and_goes_on_with_more_time(recipe: str, tmp_path: Path) -> None:
    plan = make(recipe, tmp_path / "c", num_seeds=4)
    first = Track(plan)
    assert first.race(55) == {"head_only": Deficit("llrd", 0.5, 1)}
    assert first.begun == [
        *("full-x1-seed0", "head_only-x1-seed0", "llrd-x1-seed0"),
        *("llrd-x1-seed1", "full-x1-seed1"),  # the next one would end at 60
    ]
    assert unfinished(plan, {})["llrd"] == {"seeds": 2, "why": "the time was used up"}
    second = Track(plan)
    second.race(55)
    assert second.begun == []
    second.race(75)
    assert second.begun == ["full-x1-seed2", "llrd-x1-seed2"]
    assert json.loads((plan.folder / "spent.json").read_text()) == {"seconds": 70.0}


def test_where_the_time_ends_within_a_seed_the_rate_that_is_best_so_far_has_it(recipe: str, tmp_path: Path) -> None:
    plan = make_plan(recipe, [], tmp_path / "c", ["full"], 3, 2)
    claim_folder(plan)
    track = Track(plan, {"full": [0.6, 0.6]}, best=3.0)
    track.race(45)
    assert track.begun[-1] == "full-x3-seed1"
    assert chosen(plan) == {"full": 3.0}


def test_the_time_of_a_cell_that_is_stopped_counts_for_the_next_start(recipe: str, tmp_path: Path) -> None:
    track = Track(make(recipe, tmp_path / "c"))

    def stopped(file: Path, log: Path) -> Running:
        track.time += 10
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race(track.plan, 1, 0.005, Clock(track.plan, 55, lambda: track.time), stopped, lambda: None)
    assert json.loads((track.plan.folder / "spent.json").read_text()) == {"seconds": 10.0}


def test_the_rate_is_chosen_among_those_with_the_most_seeds(recipe: str, tmp_path: Path) -> None:
    plan = make(recipe, tmp_path / "c", num_rates=2, num_seeds=2)
    low, middle = plan.factors
    for cell in [Cell("full", low, 0), Cell("full", low, 1), Cell("full", middle, 0), Cell("llrd", middle, 0)]:
        finish(plan, cell, SCORES)
    assert chosen(plan) == {"full": low, "llrd": middle}
    assert chosen(plan, 1) == {"full": middle, "llrd": middle}


@pytest.mark.parametrize(("text", "expected"), [("2m30s", 150), ("90s", 90.0), ("20m", 1200.0), ("1.5h", 5400.0)])
def test_a_time_is_read_with_its_unit(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["20", "0m", "m", "-5m", "20 minutes", "1e9h"])
def test_a_time_without_unit_or_of_no_length_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"must be a time such as 90s, 20m or 1\.5h"):
        seconds(text)


def on_a_clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let each cell take 10 seconds of the budget."""
    passed = [0.0]

    def start(file: Path, log: Path) -> Running:
        running = here(file, log)
        passed[0] += 10
        return running

    monkeypatch.setattr(comparing, "Clock", lambda plan, budget: Clock(plan, budget, lambda: passed[0]))
    return start


def test_a_budget_without_one_run_of_the_baseline_is_an_error(recipe: str, tmp_path: Path) -> None:
    plan = make(recipe, tmp_path / "c")
    with pytest.raises(TrainingError, match="the time was used up before one run of the baseline full was finished"):
        compare(plan, start=lambda *_: pytest.fail("a cell begins"), budget=1e-9)


@pytest.mark.slow
def test_a_comparison_says_who_did_not_finish_and_goes_on_without_a_budget(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, start = make(recipe, tmp_path / "c", num_seeds=3), on_a_clock(monkeypatch)
    result = compare(plan, start=start, budget=75)
    assert {name: of["num_seeds"] for name, of in result["strategies"].items()} == {
        "full": 3,
        "head_only": 3,
        "llrd": 2,
    }
    assert result["unfinished"] == {"llrd": {"seeds": 2, "why": "the time was used up"}}
    out = capsys.readouterr().out
    assert "llrd (2 seeds)  " in out
    assert "Not finished: llrd (2 of 3 seeds: the time was used up)." in out
    whole = compare(plan, start=here)
    assert (whole["unfinished"], {of["num_seeds"] for of in whole["strategies"].values()}) == ({}, {3})
