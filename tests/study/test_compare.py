"""Comparisons on a tiny encoder: the grid, the choice on validation, the words, and going on after kills."""

import contextlib
import csv
import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nlp_ft.data.questions import load_question_splits
from nlp_ft.errors import DataError, NlpFtError, RecipeError, RunFolderError, TrainingError
from nlp_ft.recipe.loader import load_recipe, recipe_from_dict
from nlp_ft.study import compare as comparing
from nlp_ft.study import scoring
from nlp_ft.study.advise.advise import _Recipes
from nlp_ft.study.cells import Cell, Plan, make_plan
from nlp_ft.study.compare import compare, prepare
from nlp_ft.study.process import DIVERGED, Running, _trained, start_process
from nlp_ft.study.running import chosen, require_same_data
from nlp_ft.study.tuning.space import read_space
from nlp_ft.study.tuning.study import make_study
from nlp_ft.tasks.registry import task_of
from nlp_ft.training import build, durable
from nlp_ft.training.run import train
from tests.tasks.test_text_regression import numbers_recipe
from tests.tiny import save_tiny_encoder, tiny_recipe, write_tiny_csv
from tests.tiny_choices import choice_recipe
from tests.tiny_images import tiny_image_recipe
from tests.tiny_label_sets import label_set_recipe
from tests.tiny_questions import question_recipe
from tests.tiny_words import words_recipe, write_rows

FLOPS = {"full": 4 * 1_529_088, "head_only": 4 * 510_464}
"""4 steps, counted by hand in test_flops.py."""
COSTS = ("train_seconds", "peak_memory_bytes", "dominated_by")


class Done:
    """A process that has ended."""

    def poll(self) -> int | None:
        return 0

    def terminate(self) -> None:
        """Nothing is left to end."""

    def wait(self) -> int:
        return 0


def here(recipe: Path, log: Path) -> Running:
    """Train in this process, which saves the seconds of a start."""
    train(load_recipe(recipe), resume=True)
    return Done()


def write_recipe(folder: Path, encoder: Path, **changes: Any) -> str:
    """The tiny recipe as a file, with derived rates."""
    training = {"duration": "4st", "per_device_batch_size": 8, "precision": "fp32", **changes.pop("training", {})}
    recipe = {
        **tiny_recipe(folder, encoder, **changes),
        "optimizer": changes.get("optimizer", {}),
        "training": training,
    }
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(recipe))
    return str(file)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> str:
    return write_recipe(tmp_path_factory.mktemp("comparison"), tiny_encoder)


class StartedError(Exception):
    """A cell was about to be trained."""


def never(recipe: Path, log: Path) -> Running:
    """Train nothing, and say that a cell was started."""
    raise StartedError


class Diverged(Done):
    """A process whose loss became NaN."""

    def wait(self) -> int:
        return DIVERGED


def here_or_diverged(recipe: Path, log: Path) -> Running:
    """Train as a process does, and give its exit code."""
    with log.open("a") as stream, contextlib.redirect_stderr(stream):
        return {0: Done, DIVERGED: Diverged}[_trained(str(recipe))]()


@pytest.fixture(scope="module")
def finished(recipe: str) -> tuple[Plan, dict[str, Any]]:
    """Two strategies, two rates, three seeds: 12 cells."""
    plan = make_plan(recipe, [], Path(recipe).parent / "whole", ["full", "head_only"], 2, 3)
    return plan, compare(plan, start=here)


def test_each_strategy_has_the_rates_around_its_own_preset(recipe: str, tmp_path: Path) -> None:
    plan = make_plan(recipe, [], tmp_path / "c", ["full", "head_only", "llrd"], 3, 1)
    cells = {cell.name: plan.recipe_of(cell) for cell in plan.cells}
    rates = {name: (of["optimizer"]["lr"], of["optimizer"]["head_lr"]) for name, of in cells.items()}
    assert rates == {
        "full-x0.33-seed0": (1e-4, 1e-2),
        "full-x1-seed0": (3e-4, 3e-2),
        "full-x3-seed0": (9e-4, 9e-2),
        "head_only-x0.33-seed0": (1e-2, None),
        "head_only-x1-seed0": (3e-2, None),
        "head_only-x3-seed0": (9e-2, None),
        "llrd-x0.33-seed0": (1e-4, 1e-2),
        "llrd-x1-seed0": (3e-4, 3e-2),
        "llrd-x3-seed0": (9e-4, 9e-2),
    }
    decays = {name: of["optimizer"]["layer_decay"] for name, of in cells.items() if "x1" in name}
    assert decays == {"full-x1-seed0": 1.0, "head_only-x1-seed0": 1.0, "llrd-x1-seed0": 0.9}
    assert {of["data"]["test"] for of in cells.values()} == {None}


def held_out_rows(recipe: Any) -> dict[str, list[str]]:
    """Split -> what tells its rows apart."""
    return {
        split: [f"{question} {context}" for question, context in zip(rows["question"][:], rows["context"][:])]
        for split, rows in load_question_splits(recipe.data, recipe.seed).items()
    }


def test_rows_of_test_that_are_a_share_of_train_are_in_no_cell_trial_or_advice(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    values = question_recipe(tmp_path, tiny_encoder, data={"validation": "20%", "test": "20%"})
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(values))
    expected = held_out_rows(load_recipe(file))
    assert len(expected["test"]) > 5
    plan = make_plan(str(file), [], tmp_path / "c", ["full"], 1, 1)
    study = make_study(str(file), (), tmp_path / "t", read_space(["optimizer.lr=1e-5..1e-3"]))
    of_studies = (
        recipe_from_dict(plan.recipe_of(plan.cells[0]), "a cell"),
        recipe_from_dict(study.values, "a trial"),
        _Recipes(values, "full", str(file))["full"],
    )
    for recipe in of_studies:
        found = held_out_rows(recipe)
        assert (found["train"], found["validation"]) == (expected["train"], expected["validation"])


SGD: dict[str, Any] = {
    "strategy": "full",
    "optimizer": {"name": "sgd", "lr": 3, "head_lr": 3},
    "training": {"duration": "20st", "max_grad_norm": None},
}
"""With seed 0 the loss is NaN after 20 steps at this rate; with seed 1, and at a third of it, it is not."""


def test_a_rate_that_diverges_is_not_chosen_and_the_comparison_goes_on(
    tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_recipe(tmp_path, tiny_encoder, **SGD)
    for _ in range(2):  # the second time, nothing is trained
        result = compare(make_plan(file, [], tmp_path / "c", ["full", "probe"], 2, 2), start=here_or_diverged)
        shown = capsys.readouterr().out
    assert result["strategies"]["full"]["lr"] == 1.0
    assert "full diverged at the rate 3, which is not chosen." in " ".join(shown.split())
    assert "full diverged at the rate 3, which is not chosen." in (tmp_path / "c" / "README.md").read_text()
    cells = list(csv.DictReader((tmp_path / "c" / "cells.csv").open()))
    assert [cell["validation_accuracy"] == "nan" for cell in cells if cell["lr"] == "3.0"] == [True, False]


def test_a_baseline_that_always_diverges_is_an_error_and_another_strategy_is_left_out(
    tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_recipe(tmp_path, tiny_encoder, **SGD)
    with pytest.raises(TrainingError, match="the baseline full diverged at each of its rates"):
        compare(make_plan(file, [], tmp_path / "c", ["full", "probe"], 1, 1), start=here_or_diverged)
    assert "full-x1-seed0  diverged: the loss is nan at step 20" in capsys.readouterr().out
    plan = make_plan(file, [], tmp_path / "c", ["full", "probe"], 1, 1, "probe")
    assert [*compare(plan, start=here_or_diverged)["strategies"]] == ["probe"]
    assert "full has no score: it diverged at each rate (3); lower optimizer.lr." in capsys.readouterr().out


def test_a_rate_that_no_recipe_may_have_is_refused_before_anything_trains(tiny_encoder: Path, tmp_path: Path) -> None:
    file = write_recipe(tmp_path, tiny_encoder, strategy="full", optimizer={"lr": 9, "head_lr": 1})
    with pytest.raises(RecipeError, match=r"with strategy full and 3 x its rate: optimizer\.lr must be in \(0, 10\)"):
        make_plan(file, [], tmp_path / "c", ["full"], 3, 1)


def test_a_probe_has_no_rate_and_one_cell_a_seed(recipe: str, tmp_path: Path) -> None:
    plan = make_plan(recipe, [], tmp_path / "c", ["head_only", "probe"], 2, 2)
    cells = {cell.name: plan.rate(cell) for cell in plan.cells if cell.strategy == "probe"}
    assert cells == {"probe-x1-seed0": None, "probe-x1-seed1": None}
    assert len(plan.cells) == 6


@pytest.mark.slow
def test_a_probe_among_the_strategies_takes_the_place_of_the_cheap_row_of_its_name(recipe: str, tmp_path: Path) -> None:
    result = compare(make_plan(recipe, [], tmp_path / "c", ["head_only", "probe"], 2, 2), start=here)
    assert result["strategies"]["probe"]["lr"] is None
    assert result["strategies"]["probe"]["edge_of_grid"] is None
    assert {"embeddings", "majority"} <= result["cheap"].keys()
    assert "probe" not in result["cheap"]


def test_the_rates_of_the_recipe_hold_for_its_own_strategy_alone(tmp_path: Path, tiny_encoder: Path) -> None:
    file = write_recipe(
        tmp_path, tiny_encoder, strategy="full", optimizer={"lr": 7e-4, "layer_decay": 1.0, "eps": 1e-7}
    )
    plan = make_plan(file, ["strategy=full"], tmp_path / "c", ["full", "llrd"], 1, 1)
    optimizers = {cell.strategy: plan.recipe_of(cell)["optimizer"] for cell in plan.cells}
    assert {name: (of["lr"], of["layer_decay"], of["eps"]) for name, of in optimizers.items()} == {
        "full": (7e-4, 1.0, 1e-7),
        "llrd": (3e-4, 0.9, 1e-7),
    }


def test_the_order_of_the_strategies_alternates_from_seed_to_seed(recipe: str, tmp_path: Path) -> None:
    plan = make_plan(recipe, [], tmp_path / "c", ["full", "llrd"], 1, 3)
    order = [(cell.seed, cell.strategy) for cell in plan.cells]
    assert order == [(0, "full"), (0, "llrd"), (1, "llrd"), (1, "full"), (2, "full"), (2, "llrd")]


def test_test_is_scored_once_and_for_the_chosen_cells_alone(finished: tuple[Plan, dict[str, Any]]) -> None:
    plan, _ = finished
    scored = sorted(file.stem for file in (plan.folder / "test").iterdir())
    expected = {Cell(strategy, factor, seed).name for strategy, factor in chosen(plan).items() for seed in range(3)}
    assert scored == sorted(expected)
    summaries = [json.loads((plan.folder_of(cell) / "summary.json").read_text()) for cell in plan.cells]
    assert [list(summary["metrics"]) for summary in summaries] == [["validation"]] * 12
    times = [file.stat().st_mtime_ns for file in sorted((plan.folder / "test").iterdir())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "evaluate_trained", lambda *_: pytest.fail("test is read a second time"))
        patch.setattr(comparing, "cheap_rows", lambda *_: pytest.fail("test is read a second time"))
        compare(plan, start=here)
    assert [file.stat().st_mtime_ns for file in sorted((plan.folder / "test").iterdir())] == times


def test_the_rate_is_that_with_the_best_mean_on_validation(finished: tuple[Plan, dict[str, Any]]) -> None:
    plan, result = finished
    with (plan.folder / "cells.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    for strategy in ("full", "head_only"):
        means = {
            lr: np.mean(
                [
                    float(row["validation_accuracy"])
                    for row in rows
                    if (row["strategy"], float(row["lr"])) == (strategy, lr)
                ]
            )
            for lr in {float(row["lr"]) for row in rows if row["strategy"] == strategy}
        }
        assert means[result["strategies"][strategy]["lr"]] == max(means.values())


def test_the_gain_and_the_scores_are_those_of_a_plain_evaluation(finished: tuple[Plan, dict[str, Any]]) -> None:
    plan, result = finished
    tests = {}
    for strategy, factor in chosen(plan).items():
        files = [plan.folder / "test" / f"{Cell(strategy, factor, seed).name}.json" for seed in range(3)]
        stored = [json.loads(file.read_text()) for file in files]
        tests[strategy] = [np.mean(one["hits"]) for one in stored]
        # Of 25 rows some texts are the same, and left out together.
        assert {len(one["without"]) for one in stored} == {len(set(inputs(plan)))}
        assert result["strategies"][strategy]["test"] == pytest.approx(tests[strategy])
    gain = np.mean(tests["head_only"]) - np.mean(tests["full"])
    assert result["strategies"]["head_only"]["gain"] == pytest.approx(gain)
    assert result["strategies"]["full"]["word"] == "baseline"


def inputs(plan: Plan) -> list[str]:
    """The texts of test."""
    with open(str(plan.recipe.data.test), newline="") as stream:
        return [row["text"] for row in csv.DictReader(stream)]


def test_the_screen_has_at_most_80_columns_and_names_every_row(
    finished: tuple[Plan, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    plan, _ = finished
    compare(plan, start=here)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for name in ("full", "head_only", "majority", "TF-IDF", "embeddings", "probe"):
        assert re.search(rf"^{name}  ", out, re.MULTILINE), name
    assert "look: 3 seeds instead of 5: where seeds decide, a difference must be 4.3" in out
    assert (plan.folder / "README.md").read_text().startswith("# Comparison\n\n|  | lr | accuracy | gain | 95 % |")


def test_the_result_holds_the_front_and_the_intervals_of_the_scores(finished: tuple[Plan, dict[str, Any]]) -> None:
    _, result = finished
    strategies = result["strategies"]
    front = [name for name, of in strategies.items() if of["dominated_by"] is None]
    assert result["pareto"]["front"] == front != []
    assert result["pareto"]["dominated"] == {
        name: strategies[name]["dominated_by"] for name in {*strategies} - {*front}
    }
    for name, of in strategies.items():
        assert of["train_flops"] == FLOPS[name]
        low, high = of["test_interval"]
        assert low < np.mean(of["test"]) < high


def test_a_report_is_written_where_the_recipe_has_reports(
    finished: tuple[Plan, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    plan, result = finished
    assert not (plan.folder / "report.html").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "claim_folder", lambda _: None)
        compare(replace(plan, recipe=plan.recipe.model_copy(update={"report": True})), start=here)
    text = (plan.folder / "report.html").read_text(encoding="utf-8")
    assert result["pareto"]["line"] in text
    assert re.findall(r"<h3>(.*?)</h3>", text) == ["Scores and gains", "Parts of the intervals, and cost"]
    assert "report: " in capsys.readouterr().out


@pytest.mark.slow
def test_one_seed_decides_nothing(recipe: str, tmp_path: Path) -> None:
    plan = make_plan(recipe, ["baselines=false"], tmp_path / "c", ["full", "head_only"], 1, 1)
    result = compare(plan, start=here)
    assert result["strategies"]["head_only"]["word"] == "cannot tell yet"
    assert result["strategies"]["head_only"]["interval"] is None
    assert 0 < result["strategies"]["head_only"]["p_mcnemar"] <= 1
    assert "One seed says nothing about the next one" in result["verdicts"][0]


@pytest.mark.slow
def test_seeds_are_added_to_a_comparison_and_another_recipe_is_refused(recipe: str, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    compare(make_plan(recipe, [], folder, ["full"], 1, 1), start=here)
    trained = []

    def counted(file: Path, log: Path) -> Running:
        trained.append(file.stem)
        return here(file, log)

    compare(make_plan(recipe, [], folder, ["full"], 1, 2), start=counted)
    assert trained == ["full-x1-seed1"]
    message = r"holds a comparison of another recipe or with other rates; different: data\.max_length, --rates; choose"
    with pytest.raises(RunFolderError, match=message):
        compare(make_plan(recipe, ["data.max_length=9"], folder, ["full"], 3, 1), start=here)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="holds other things than a comparison"):
        compare(make_plan(recipe, [], tmp_path / "other", ["full"], 1, 1), start=here)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("of_task", "metric"),
    [
        pytest.param(label_set_recipe, "macro_f1", marks=pytest.mark.slow),
        pytest.param(numbers_recipe, "mse", marks=pytest.mark.slow),
        pytest.param(question_recipe, "f1", marks=pytest.mark.slow),
        pytest.param(words_recipe, "span_f1", marks=pytest.mark.slow),
        pytest.param(choice_recipe, "accuracy", marks=pytest.mark.slow),
        pytest.param(lambda folder, _: tiny_image_recipe(folder), "accuracy", marks=pytest.mark.slow, id="images"),
    ],
)
def test_other_tasks_are_compared_by_their_metric(
    of_task: Callable[..., dict[str, Any]], metric: str, tmp_path: Path, tiny_encoder: Path
) -> None:
    values = of_task(tmp_path, tiny_encoder)
    values["data"]["test"] = values["data"].get("test") or values["data"]["validation"]
    values["training"] = {**values["training"], "duration": "3st"}
    values["report"] = metric == "mse"
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(values))
    plan = make_plan(str(file), [], tmp_path / "c", ["full", "head_only"], 1, 2)
    result = compare(plan, start=here)
    assert result["metric"] == metric
    assert result["strategies"]["head_only"]["word"] in ("better", "worse", "equal", "cannot tell yet")
    low, high = result["strategies"]["head_only"]["interval_over_rows"]
    assert low <= result["strategies"]["head_only"]["gain"] <= high
    assert [of["scores"][metric] for of in result["cheap"].values()] != []
    assert [of["train_flops"] > 0 for of in result["strategies"].values()] == [True, True]
    if metric == "accuracy":
        stored = [json.loads(one.read_text()) for one in sorted((tmp_path / "c/test").iterdir())]
        assert [np.mean(one["hits"]) for one in stored] == pytest.approx([one["scores"]["accuracy"] for one in stored])
    assert (tmp_path / "c/report.html").exists() == values["report"]


def test_data_that_have_changed_are_refused_before_more_is_trained(tmp_path: Path, tiny_encoder: Path) -> None:
    file = write_recipe(tmp_path, tiny_encoder)
    compare(make_plan(file, [], tmp_path / "c", ["full"], 1, 1), start=here)
    for split, num_seeds in (("train", 2), ("validation", 1)):
        before = (tmp_path / f"{split}.csv").read_text()
        write_tiny_csv(tmp_path / f"{split}.csv", 40)
        message = (
            f": the rows of {split} have changed since full-x1-seed0 was trained; put the data back, or begin anew"
        )
        with pytest.raises(RunFolderError, match=message):
            compare(make_plan(file, [], tmp_path / "c", ["full"], 1, num_seeds), start=never)
        (tmp_path / f"{split}.csv").write_text(before)


def test_the_hashes_of_the_rows_tell_what_the_report_on_the_data_does_not(recipe: str, tmp_path: Path) -> None:
    plan = make_plan(recipe, [], tmp_path / "c", ["full"], 1, 2)
    for cell in plan.cells:
        plan.folder_of(cell).mkdir(parents=True)
        summary = {"data": {"train": {"rows": 9}}, "data_hashes": {"train": f"of seed {cell.seed}"}}
        (plan.folder_of(cell) / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(RunFolderError, match=r"put the data back and remove the runs in .*cells that have seen others"):
        require_same_data(plan)


def test_test_rows_that_have_changed_are_scored_anew_by_all_and_damaged_files_are_named(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    file = write_recipe(tmp_path, tiny_encoder)
    plan = make_plan(file, [], tmp_path / "c", ["full"], 1, 1)
    compare(plan, start=here)
    header, *rows = (tmp_path / "test.csv").read_text().splitlines()
    (tmp_path / "test.csv").write_text("\n".join([header, *rows[:10]]) + "\n")
    plan = make_plan(file, [], tmp_path / "c", ["full", "head_only"], 1, 1)
    result = compare(plan, start=here)
    stored = [json.loads(one.read_text()) for one in sorted((tmp_path / "c/test").iterdir())]
    assert [one["rows"] for one in stored] == [10, 10]
    assert {of["interval_over_rows"] is None for of in result["strategies"].values() if "gain" in of} == {False}
    for name in ("comparison.json", "cheap.json", "flops.json", "test/full-x1-seed0.json"):
        whole = (tmp_path / "c" / name).read_text()
        for damaged in (whole[:9], "[]"):
            (tmp_path / "c" / name).write_text(damaged)
            with pytest.raises(RunFolderError, match=rf"{name} is damaged; (remove it|put it back)"):
                compare(plan, start=here)
        (tmp_path / "c" / name).write_text(whole)
    (tmp_path / "test.csv").write_text(f"{header}\n{rows[0]}\n")
    with pytest.raises(DataError, match="single row"):
        compare(make_plan(file, [], tmp_path / "c", ["full"], 1, 1), start=here)


def test_that_cells_trained_side_by_side_is_known_to_a_later_start(recipe: str, tmp_path: Path) -> None:
    plan = make_plan(recipe, [], tmp_path / "c", ["full"], 1, 1)
    prepare(plan)
    assert [comparing._most_jobs(plan, jobs) for jobs in (1, 2, 1)] == [1, 2, 2]
    plan.folder_of(plan.cells[0]).mkdir()
    (plan.folder_of(plan.cells[0]) / "summary.json").write_text("{}")
    assert comparing._most_jobs(plan, 4) == 2  # nothing was left to train


def test_a_comparison_that_was_moved_goes_on_in_its_new_place(recipe: str, tmp_path: Path) -> None:
    prepare(make_plan(recipe, [], tmp_path / "c", ["full"], 1, 2))
    (tmp_path / "c").rename(tmp_path / "moved")
    plan = make_plan(recipe, [], tmp_path / "moved", ["full"], 1, 2)
    prepare(plan)
    assert load_recipe(str(plan.recipe_file(plan.cells[0]))).output_dir == str(plan.folder_of(plan.cells[0]))
    changed = plan.recipe_file(plan.cells[0])
    changed.write_text(changed.read_text().replace("seed: 0", "seed: 7"))
    with pytest.raises(RunFolderError, match="was written by another comparison"):
        prepare(plan)


def test_a_start_without_room_on_the_disk_does_not_block_the_next_one(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, text: str) -> None:
        file.with_name(f"{file.name}.writing").write_text("{")
        raise OSError(28, "No space left on device")

    plan = make_plan(recipe, [], tmp_path / "c", ["full"], 1, 1)
    with monkeypatch.context() as patched:
        patched.setattr(durable, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            prepare(plan)
    prepare(plan)
    assert plan.recipe_file(plan.cells[0]).exists()


def test_a_disk_too_small_for_all_models_is_told_before_any_is_trained(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(recipe, [], tmp_path / "c", ["full"], 1, 2)
    task = task_of(plan.recipe)
    model = build.structure(plan.recipe, task, task.label_names()).model
    num_bytes = sum(4 * weight.numel() for weight in model.parameters())

    def with_free(free: int) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))

    with_free(2 * num_bytes - 1)
    with pytest.raises(RunFolderError, match=r"the models of 2 cells take 0\.0 GiB in .*; name a folder on another"):
        compare(plan, start=never)
    assert not plan.folder.exists()
    with_free(2 * num_bytes)
    with pytest.raises(StartedError):
        compare(plan, start=never)
    # One that is finished needs no more room.
    first = plan.folder_of(plan.cells[0])
    first.mkdir(parents=True)
    (first / "summary.json").write_text(json.dumps({"metrics": {"validation": {"accuracy": 1}}}))
    with_free(num_bytes)
    with pytest.raises(StartedError):
        compare(plan, start=never)


def test_where_each_seed_draws_rows_of_train_its_cells_have_the_same(recipe: str, tmp_path: Path) -> None:
    plan = make_plan(recipe, ["data.train_rows=9"], tmp_path / "c", ["full", "head_only"], 1, 2)
    for cell in plan.cells:
        data = {"train": {"rows": 9, "median_tokens": 4 + cell.seed}}
        plan.folder_of(cell).mkdir(parents=True)
        (plan.folder_of(cell) / "summary.json").write_text(json.dumps({"data": data}))
    require_same_data(plan)
    data["train"]["median_tokens"] = 7
    (plan.folder_of(cell) / "summary.json").write_text(json.dumps({"data": data}))
    with pytest.raises(RunFolderError, match=r"have changed between \w+-x1-seed1 and \w+-x1-seed1, so"):
        require_same_data(plan)
    with pytest.raises(RunFolderError, match=r"have changed between \w+-x1-seed0 and \w+-x1-seed1, so"):
        require_same_data(replace(plan, recipe=load_recipe(recipe)))


@pytest.mark.slow
def test_a_cell_that_is_trained_anew_is_scored_anew(tmp_path: Path, tiny_encoder: Path) -> None:
    plan = make_plan(write_recipe(tmp_path, tiny_encoder), [], tmp_path / "c", ["full"], 1, 1)
    first = compare(plan, start=here)["strategies"]["full"]["test"]
    [file] = (plan.folder / "test").iterdir()
    file.write_text(json.dumps({**json.loads(file.read_text()), "scores": {"accuracy": -1.0}}))
    assert compare(plan, start=here)["strategies"]["full"]["test"] == [-1.0]  # of this run, so it counts
    shutil.rmtree(plan.folder_of(plan.cells[0]))
    assert compare(plan, start=here)["strategies"]["full"]["test"] == first


def test_what_cannot_be_compared_is_refused_before_anything_is_trained(recipe: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--strategies: fulll is none of .*; did you mean full\?"):
        make_plan(recipe, [], tmp_path, ["fulll"])
    with pytest.raises(RecipeError, match=r"--baseline: fulll is none of .*; did you mean full\?"):
        make_plan(recipe, [], tmp_path, ["full"], baseline="fulll")
    with pytest.raises(RecipeError, match="--baseline llrd is not compared"):
        make_plan(recipe, [], tmp_path, ["full"], baseline="llrd")
    for split in ("validation", "test"):
        with pytest.raises(RecipeError, match=rf"data\.{split} is missing"):
            make_plan(recipe, [f"data.{split}=null"], tmp_path, ["full"])


def test_a_tag_that_occurs_in_test_alone_is_refused_before_anything_is_trained(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    values = words_recipe(tmp_path, tiny_encoder)
    for split, tags in {"train": "BO", "validation": "BO", "test": "BI"}.items():
        write_rows(
            Path(values["data"][split]), [{"tokens": ["cat", "dog"], "ner_tags": [t + "-x" * (t != "O") for t in tags]}]
        )
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(values))
    with pytest.raises(RecipeError, match=r"I-x occurs in data\.test alone, and the cells train without it; list"):
        make_plan(str(file), [], tmp_path / "compared", ["full"])
    assert make_plan(str(file), ["data.label_names=[O, B-x, I-x]"], tmp_path / "compared", ["full"]).cells


def test_a_cell_that_fails_says_why_and_where(recipe: str, tmp_path: Path) -> None:
    plan = make_plan(recipe, [], tmp_path / "c", ["full"], 1, 1)

    class Failed(Done):
        def wait(self) -> int:
            return 2

    def fails(file: Path, log: Path) -> Running:
        log.write_text("some text\nerror: the disk is full\n")
        return Failed()

    with pytest.raises(
        TrainingError, match=r"full-x1-seed0 cannot be trained: the disk is full \(all of it: .*\.log\)"
    ):
        compare(plan, start=fails)


@pytest.mark.slow
def test_cells_run_as_processes_of_their_own(recipe: str, tmp_path: Path) -> None:
    plan = make_plan(recipe, [], tmp_path / "c", ["full", "head_only"], 1, 1)
    assert compare(plan, jobs=2, start=start_process)["num_seeds"] == 1
    summaries = [json.loads((plan.folder_of(cell) / "summary.json").read_text()) for cell in plan.cells]
    assert [summary["strategy"] for summary in summaries] == ["full", "head_only"]
    assert "2 cells ran at a time" in (plan.folder / "README.md").read_text()


@pytest.mark.slow
def test_a_comparison_of_12_cells_killed_ten_times_ends_with_the_same_result(
    finished: tuple[Plan, dict[str, Any]], recipe: str, tmp_path: Path
) -> None:
    chance, kills = random.Random(0), 0
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    while True:
        after = chance.randint(4, 12) if kills < 10 else None
        process = context.Process(target=killed, args=(dict(os.environ), recipe, str(tmp_path / "c"), after))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    assert kills == 10
    assert without_costs(tmp_path / "c") == without_costs(finished[0].folder)


def killed(environment: Mapping[str, str], recipe: str, folder: str, after: int | None) -> None:
    """Compare, and kill this process when so many files have been renamed into place."""
    os.environ.update(environment)
    plain, left = durable.rename, [after or -1]

    def rename(source: Path, target: Path) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(source, target)

    durable.rename = rename
    compare(make_plan(recipe, [], Path(folder), ["full", "head_only"], 2, 3), start=here)


def without_costs(folder: Path) -> dict[str, Any]:
    """The result without what was measured by the clock."""
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    for row in result["strategies"].values():
        for key in COSTS:
            del row[key]
    for row in result["cheap"].values():
        del row["seconds"]
    del result["pareto"]
    result["remarks"] = [line for line in result["remarks"] if "times as long" not in line]
    return result


def test_by_default_a_strategy_that_the_model_cannot_have_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ALBERT has one shared block, of which the upper two cannot train alone."""
    recipe = write_recipe(tmp_path, save_tiny_encoder(tmp_path / "albert", "albert"))
    plan = make_plan(recipe, [], tmp_path / "c", [], 1, 1)
    assert "top_layers" not in plan.recipes
    assert {"full", "head_only", "llrd", "gradual"} < plan.recipes.keys()
    assert "look: top_layers is not possible here and is left out: " in capsys.readouterr().out
    for named in ({"strategies": ["full", "top_layers"]}, {"baseline": "top_layers"}):
        with pytest.raises(NlpFtError, match=r"trainable_blocks must be at most 1|--baseline top_layers is not poss"):
            make_plan(recipe, [], tmp_path / "c", **named)
