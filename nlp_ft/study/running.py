"""Runs the cells of a comparison, each as a process of its own, and goes on where an earlier try was stopped."""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from nlp_ft.errors import FolderInUseError, RunFolderError, TrainingError
from nlp_ft.layerwise.unfreezing.triggers import LOWER_IS_BETTER
from nlp_ft.study.cells import CELLS, Cell, Plan
from nlp_ft.study.folder import read_object, require_same_rows
from nlp_ft.study.live import View
from nlp_ft.study.process import DIVERGED, SECONDS_BETWEEN_LOOKS, TAKEN, Running, Start, start_process
from nlp_ft.training import durable
from nlp_ft.training.lock import require_free
from nlp_ft.training.run_folder import SUMMARY

LINES_OF_ERROR = 5


def run_cells(
    plan: Plan,
    jobs: int,
    start: Start = start_process,
    check_stop: Callable[[], None] = lambda: None,
    cells: Sequence[Cell] | None = None,
    may_begin: Callable[[Cell], bool] = lambda _: True,
) -> None:
    """Train the cells that are not finished; show how far they are, see live.py.

    Args:
        plan: the comparison.
        jobs: processes that train at the same time.
        start: starts the training of a cell.
        check_stop: raises KeyboardInterrupt if the cells are to end; each leaves a checkpoint.
        cells: the cells to train, in this order; None takes all.
        may_begin: whether a cell whose turn it is begins; else it is left out.

    Raises:
        TrainingError: a cell cannot be trained; the message holds its error.
    """
    cells = plan.cells if cells is None else cells
    waiting = [cell for cell in cells if not is_finished(plan, cell)]
    view = View(plan, cells, -1 if is_lower_better(plan.metric) else 1)
    for finished in set(cells).difference(waiting):
        view.known(finished, summary_of(plan, finished))
    running: dict[Cell, Running] = {}
    try:
        while waiting or running:
            check_stop()
            free = (cell for cell in list(waiting) if is_free(plan, cell))
            while len(running) < jobs and (cell := next(free, None)) is not None:
                waiting.remove(cell)
                if not is_finished(plan, cell) and may_begin(cell):  # another process may have finished it
                    _log(plan, cell).unlink(missing_ok=True)  # of an earlier try
                    running[cell] = start(plan.recipe_file(cell), _log(plan, cell))
            for cell in [cell for cell, process in running.items() if process.poll() is not None]:
                code = running.pop(cell).wait()
                if code == TAKEN:  # by one that has not ended yet, such as after a kill
                    waiting.append(cell)
                    continue
                if code == DIVERGED:
                    durable.write_text(_diverged(plan, cell), error_in(_log(plan, cell), code) + "\n")
                _require_success(plan, cell, code)
                view.finished(cell, summary_of(plan, cell), len(waiting) + len(running))
            view.draw(running, len(waiting) + len(running), is_last=not (running or waiting))
            if running or waiting:
                time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        _end(running.values())  # after an error or a signal


def _end(processes: Collection[Running]) -> None:
    """Ask all to end, and wait until they have."""
    for process in processes:
        with suppress(OSError):
            process.terminate()
    for process in processes:
        process.wait()


def is_finished(plan: Plan, cell: Cell) -> bool:
    """Whether a cell need not be trained: its run folder is complete, or its loss has become NaN."""
    return (plan.folder_of(cell) / SUMMARY).exists() or has_diverged(plan, cell)


def has_diverged(plan: Plan, cell: Cell) -> bool:
    """Whether the loss of a cell has become NaN, so that it has no run folder."""
    return _diverged(plan, cell).exists()


def is_free(plan: Plan, cell: Cell) -> bool:
    """Whether no other process trains the cell, such as one whose comparison was killed and that is about to end."""
    try:
        require_free(plan.folder_of(cell))
    except FolderInUseError:
        return False
    return True


def summary_of(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Read the summary of a finished cell; one that diverged has but a score of NaN.

    Raises:
        RunFolderError: the summary is damaged.
    """
    if has_diverged(plan, cell):
        why = _diverged(plan, cell).read_text(encoding="utf-8").strip()
        return {"metrics": {"validation": {plan.metric: math.nan}}, "diverged": why}
    file = plan.folder_of(cell) / SUMMARY
    return read_object(file, f"remove {file.parent}, and the comparison trains it anew")


def require_same_data(plan: Plan) -> None:
    """Check that finished cells have seen the same rows. Raises: RunFolderError: they have not.

    Where each seed draws its own rows of train, the cells of a seed are compared.
    """
    draws_rows = plan.recipe.data.train_rows is not None
    first_of: dict[int, Cell] = {}
    for cell in (cell for cell in plan.cells if is_finished(plan, cell) and not has_diverged(plan, cell)):
        first = first_of.setdefault(cell.seed if draws_rows else 0, cell)
        now, before = summary_of(plan, cell), summary_of(plan, first)
        if any(now.get(key) != before.get(key) for key in ("data", "data_hashes")):
            raise RunFolderError(
                f"{plan.folder}: the data have changed between {first.name} and {cell.name}, so their scores do not "
                f"compare; put the data back and remove the runs in {plan.folder / CELLS} that have seen others, or "
                "begin anew in another folder"
            )


def require_data_of_now(plan: Plan, hashes: Mapping[str, str]) -> None:
    """Check that finished cells have seen the rows that the recipe names now, whose splits have these hashes.

    Where each seed draws its own rows of train, those of the other seeds than the recipe's are not compared.

    Raises:
        RunFolderError: they have not.
    """
    draws_rows = plan.recipe.data.train_rows is not None
    for cell in (cell for cell in plan.cells if is_finished(plan, cell)):
        splits = ["validation"] if draws_rows and cell.seed != plan.recipe.seed else ["train", "validation"]
        require_same_rows(plan.folder, cell.name, summary_of(plan, cell), hashes, splits)


def chosen(plan: Plan, num_seeds: int | None = None) -> dict[str, float]:
    """Choose for each strategy the factor with the best mean score on validation over its seeds.

    Only factors with the most finished seeds are compared, of the first `num_seeds` or of all; a strategy that has
    finished none is left out.
    """
    sign = -1 if is_lower_better(plan.metric) else 1

    def mean(strategy: str, seeds: int, factor: float) -> float:
        cells = [Cell(strategy, factor, seed) for seed in range(seeds)]
        values = [summary_of(plan, cell)["metrics"]["validation"][plan.metric] for cell in cells]
        return sign * sum(value if value == value else -sign * float("inf") for value in values) / len(values)

    # Of equal ones, the one nearest to the preset.
    found = {}
    for strategy in plan.recipes:
        factors = sorted(plan.factors_of(strategy), key=lambda factor: max(factor, 1 / factor))
        seeds = {factor: min(finished_seeds(plan, strategy, factor), num_seeds or plan.num_seeds) for factor in factors}
        if most := max(seeds.values()):
            longest = [factor for factor in factors if seeds[factor] == most]
            found[strategy] = max(longest, key=partial(mean, strategy, most))
    return found


def diverged(plan: Plan) -> list[str]:
    """Say which strategies diverged at which rates, one sentence for each strategy."""
    found = []
    for strategy in plan.recipes:
        cells = [cell for cell in plan.cells if cell.strategy == strategy and has_diverged(plan, cell)]
        rates = dict.fromkeys(f"{plan.rate(cell):.2g}" for cell in cells)
        if len(rates) == len(plan.factors_of(strategy)):
            found.append(f"{strategy} has no score: it diverged at each rate ({', '.join(rates)}); lower optimizer.lr.")
        elif rates:
            found.append(f"{strategy} diverged at the rate {', '.join(rates)}, which is not chosen.")
    return found


def finished_seeds(plan: Plan, strategy: str, factor: float) -> int:
    """Count the seeds of a strategy and a rate that are finished, up to the first that is not."""
    seeds = range(plan.num_seeds)
    return next((seed for seed in seeds if not is_finished(plan, Cell(strategy, factor, seed))), plan.num_seeds)


def is_lower_better(metric: str) -> bool:
    """Whether a lower value of the metric is better."""
    return metric.endswith(LOWER_IS_BETTER)


def _diverged(plan: Plan, cell: Cell) -> Path:
    folder = plan.folder_of(cell)
    return folder.with_name(f"{folder.name}.diverged")


def _log(plan: Plan, cell: Cell) -> Path:
    folder = plan.folder_of(cell)
    return folder.with_name(f"{folder.name}.log")


def _require_success(plan: Plan, cell: Cell, code: int) -> None:
    if code in (130, 143, -2, -15):
        raise KeyboardInterrupt
    if is_finished(plan, cell):
        return
    log = _log(plan, cell)
    raise TrainingError(
        f"{cell.name} cannot be trained: {error_in(log, code)} (all of it: {log}); fix this, then start the same "
        "command again"
    )


def error_in(log: Path, code: int) -> str:
    """Read why a process has failed: the errors in its log, else the signal that ended it, its last lines, its code."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    killed = [f"it was killed by signal {-code}, such as for lack of memory"] if code < 0 else []
    error = [line for line in lines if line.startswith("error: ")] or killed or lines
    return "; ".join(line.removeprefix("error: ") for line in error[-LINES_OF_ERROR:]) or f"exit code {code}"
