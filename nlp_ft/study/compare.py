"""Compares strategies on one data set: trains the cells, chooses rates on validation, scores test once, and judges."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from nlp_ft.data.sources import SPLITS
from nlp_ft.errors import RecipeError, TrainingError, printable
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.screen import say
from nlp_ft.study.cells import CELLS, Cell, Plan
from nlp_ft.study.cheap_rows import CheapRow, cheap_rows
from nlp_ft.study.equal import unequal, with_equal_seconds
from nlp_ft.study.flops import flops_of_phases
from nlp_ft.study.folder import MADE_ANEW, claim_folder, read_object, require_room, write_recipes
from nlp_ft.study.process import Start, start_process
from nlp_ft.study.race import Clock, race, unfinished
from nlp_ft.study.remarks import front_line, remarks, verdict_lines
from nlp_ft.study.results import Runs, judge
from nlp_ft.study.running import (
    chosen,
    diverged,
    finished_seeds,
    has_diverged,
    is_finished,
    is_lower_better,
    require_data_of_now,
    require_same_data,
    run_cells,
    summary_of,
)
from nlp_ft.study.scoring import scored_on_test
from nlp_ft.study.stopping import stoppable
from nlp_ft.study.writing import Findings, write_findings
from nlp_ft.tasks.registry import task_of
from nlp_ft.tasks.task import Task
from nlp_ft.training import build, durable, lock
from nlp_ft.training.identity import hashes_of_data
from nlp_ft.training.same_recipe import RECIPE
from nlp_ft.training.verdict.facts import points

CHEAP, FLOPS, JOBS = "cheap.json", "flops.json", "jobs.json"
"""The scores of the cheap rows with the report on the data, the operations of a step in each phase, `_most_jobs`."""


def compare(
    plan: Plan, margin: float = 0.5, jobs: int = 1, start: Start = start_process, budget: float | None = None
) -> dict[str, Any]:
    """Run what is missing of a comparison, print its tables, and write them into its folder.

    Args:
        plan: what to run, from `make_plan`.
        margin: differences below it count as equal; in points of 100, for losses and errors in their unit.
        jobs: cells that are trained at the same time.
        start: starts the training of a cell.
        budget: seconds that training may take; see race.py. None trains all cells.

    Returns:
        The content of result.json.

    Raises:
        NlpFtError: the folder holds another comparison, or a cell cannot be trained.
        Interrupted: Ctrl-C or SIGTERM; the same command goes on from there.
    """
    with stoppable(plan.folder) as stop, lock.held(plan.folder, "--output"):
        if budget is None:
            _require_room(plan)
        claim_folder(plan)
        _require_data(plan)
        most_jobs = _most_jobs(plan, jobs)
        clock = None if budget is None else Clock(plan, budget)
        # The unit of the margin is that in which differences are shown.
        margin *= 0.01 if points(plan.metric, 0.01) == "1.0 points" else 1.0
        if plan.equal == "seconds":
            with stop.deferred():
                plan = with_equal_seconds(plan, start, stop.check)
        write_recipes(plan)
        say(f"{len(plan.cells)} cells in {printable(str(plan.folder))}: {', '.join(plan.recipes)}")
        with stop.deferred():
            if clock is None:
                run_cells(plan, jobs, start, stop.check)
            dropped = race(plan, jobs, margin, clock, start, stop.check) if clock else {}
        require_same_data(plan)
        task = task_of(plan.recipe)
        hashes = hashes_of_data(task.identity(), SPLITS)
        require_data_of_now(plan, hashes)
        runs = _chosen_runs(plan, task, hashes["test"])
        cheap, report = _cheap(plan, task, hashes)
        sign = -1 if is_lower_better(plan.metric) else 1
        judged = judge(runs, plan.baseline, plan.metric, sign, margin)
        lines = verdict_lines(judged, plan.baseline, plan.metric, margin)
        odd = diverged(plan) + remarks(judged, cheap, report, plan.metric, sign, most_jobs, margin)
        if plan.equal == "seconds":
            odd = [*unequal(runs, plan.baseline), *odd]
        front, left_out = front_line(judged, plan.metric), unfinished(plan, dropped)
        return write_findings(Findings(plan, judged, cheap, lines, front, odd, left_out))


def prepare(plan: Plan) -> None:
    """Write the recipes of the cells, and train none; another scheduler may do that, before `compare` judges.

    Raises:
        NlpFtError: the folder holds another comparison, or the recipes depend on runs that come first.
    """
    if plan.equal == "seconds":
        raise RecipeError(
            "--executor none: --equal seconds trains a run of each strategy first; choose steps or epochs"
        )
    with lock.held(plan.folder, "--output"):
        claim_folder(plan)
        write_recipes(plan)
    place = printable(str(plan.folder / CELLS))
    say(f"{len(plan.cells)} recipes in {place}; compare trains those that are missing then, and judges")
    first = printable(shlex.quote(str(plan.recipe_file(plan.cells[0]))))
    say(f"next: nlp-ft train {first} --resume")


def _require_room(plan: Plan) -> None:
    """Check, before hours of training, that the disk takes all models. Raises: RunFolderError: it does not."""
    task = task_of(plan.recipe)
    model = build.structure(plan.recipe, task, task.label_names()).model
    num_cells = sum(not is_finished(plan, cell) for cell in plan.cells)
    require_room(plan, num_cells, sum(weight.numel() * weight.element_size() for weight in model.parameters()))


def _require_data(plan: Plan) -> None:
    """Check, before more is trained, that finished cells have seen the data of now. Raises: RunFolderError."""
    if any(is_finished(plan, cell) for cell in plan.cells):
        require_data_of_now(plan, hashes_of_data(task_of(plan.recipe).identity(), SPLITS))


def _most_jobs(plan: Plan, jobs: int) -> int:
    """Say how many cells have trained at the same time at most, over all starts of the command; note it."""
    file = plan.folder / JOBS
    before: int = read_object(file, MADE_ANEW).get("jobs", 1) if file.exists() else 1
    if jobs <= before or all(is_finished(plan, cell) for cell in plan.cells):
        return before
    durable.write_text(file, json.dumps({"jobs": jobs}) + "\n")
    return jobs


def _chosen_runs(plan: Plan, task: Task, test_hash: str) -> list[Runs]:
    """Choose the rate of each strategy, score its runs on test, and count the operations of its steps.

    A strategy that diverged at each rate is left out. Raises: TrainingError: it is the baseline.
    """
    runs = []
    for strategy, factor in chosen(plan).items():
        cells = [Cell(strategy, factor, seed) for seed in range(finished_seeds(plan, strategy, factor))]
        if any(has_diverged(plan, cell) for cell in cells):
            continue
        factors = plan.factors_of(strategy)
        edges = {min(factors): "lowest", max(factors): "highest"} if len(factors) > 1 else {}
        runs.append(
            Runs(
                strategy,
                plan.rate(cells[0]),
                edges.get(factor, ""),
                [summary_of(plan, cell) for cell in cells],
                [scored_on_test(plan, cell, test_hash) for cell in cells],
                [plan.folder_of(cell) for cell in cells],
                _flops(plan, task, cells[0]),
            )
        )
    if plan.baseline not in [one.strategy for one in runs]:
        raise TrainingError(
            f"the baseline {plan.baseline} diverged at each of its rates, so there is nothing to compare with; lower "
            "optimizer.lr, or name another --baseline"
        )
    return runs


def _flops(plan: Plan, task: Task, cell: Cell) -> list[int]:
    """Count the operations of a step in each phase of a strategy once; none if a step cannot be made here."""
    file = plan.folder / FLOPS
    stored: dict[str, list[int]] = read_object(file, MADE_ANEW) if file.exists() else {}
    if cell.strategy not in stored:
        try:
            stored[cell.strategy] = flops_of_phases(load_recipe(str(plan.folder_of(cell) / RECIPE)), task)
        except RuntimeError as error:  # too little memory
            say(f"the operations of {cell.strategy} cannot be counted: {error}")
            return []
        durable.write_text(file, json.dumps(stored) + "\n")
    return stored[cell.strategy]


def _cheap(plan: Plan, task: Task, hashes: Mapping[str, str]) -> tuple[list[CheapRow], dict[str, Any]]:
    """Score the cheap rows once, and describe the data, whose splits have these hashes."""
    file = plan.folder / CHEAP
    stored = read_object(file, MADE_ANEW) if file.exists() else {}
    hashes = {split: hashes[split] for split in ("train", "test")}
    if stored.get("hashes") != hashes:
        rows = [vars(row) for row in cheap_rows(plan.recipe, task)]
        stored = {"hashes": hashes, "rows": rows, "data": task.describe_data()}
        durable.write_text(file, json.dumps(stored) + "\n")
    # The strategy probe, where it is compared, takes the place of the row of that name.
    return [CheapRow(**row) for row in stored["rows"] if row["title"] not in plan.recipes], stored["data"]
