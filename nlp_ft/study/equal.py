"""Gives all strategies of a comparison the same training seconds, by the speed of one run of each."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from nlp_ft.errors import TrainingError
from nlp_ft.screen import say
from nlp_ft.study.cells import Plan
from nlp_ft.study.folder import claim_folder, write_recipes
from nlp_ft.study.process import Start
from nlp_ft.study.results import Runs
from nlp_ft.study.running import has_diverged, run_cells, summary_of

PILOTS = "pilots"
"""Folder of the runs whose speed is measured: one of each strategy, over the duration of the recipe."""
SAME = 1.15
"""Factor between two times, up to which they count as the same budget."""


def with_equal_seconds(plan: Plan, start: Start, check_stop: Callable[[], None]) -> Plan:
    """Return the plan with a duration for each strategy, so that it trains as long as the baseline does.

    One run of each strategy is made first, alone on the machine: seed 0, the middle rate, the recipe's duration. The
    seconds of the baseline's, divided by the seconds of a step of the strategy's, are its steps.

    Args:
        plan: the comparison, whose folder is there.
        start: starts the training of a cell.
        check_stop: raises KeyboardInterrupt if the cells are to end.

    Raises:
        NlpFtError: a run cannot be trained.
    """
    pilots = replace(plan, folder=plan.folder / PILOTS, factors=[1.0], num_seeds=1)
    claim_folder(pilots)
    write_recipes(pilots)
    say(f"first one run of each strategy, for its speed: {len(pilots.cells)} cells")
    run_cells(pilots, 1, start, check_stop)
    for cell in pilots.cells:
        if has_diverged(pilots, cell):
            why = summary_of(pilots, cell)["diverged"]
            raise TrainingError(f"{cell.name}, whose speed --equal seconds needs, has diverged: {why}")
    summaries = {cell.strategy: summary_of(pilots, cell) for cell in pilots.cells}
    seconds = summaries[plan.baseline]["train_seconds"]
    recipes = {}
    for strategy, recipe in plan.recipes.items():
        steps = steps_in(seconds, summaries[strategy]["train_seconds"], summaries[strategy]["global_step"])
        recipes[strategy] = {**recipe, "training": {**recipe["training"], "duration": f"{steps}st"}}
    return replace(plan, recipes=recipes)


def steps_in(seconds: float, seconds_of_run: float, steps_of_run: int) -> int:
    """Compute how many steps fit into some seconds, at the mean speed of a run; at least one."""
    return max(1, round(seconds * steps_of_run / seconds_of_run))


def unequal(runs: Sequence[Runs], baseline: str) -> list[str]:
    """Say of each strategy whose seconds are not those of the baseline how far they are off."""
    [base] = [one.median("train_seconds") for one in runs if one.strategy == baseline]
    ratios = {one.strategy: one.median("train_seconds") / max(base, 1e-9) for one in runs}
    return [
        f"{strategy} trained {ratio:.2g} times as long as {baseline}, though --equal seconds: its steps are not "
        "equally fast over the run, or the machine was busy."
        for strategy, ratio in ratios.items()
        if max(ratio, 1 / max(ratio, 1e-9)) > SAME
    ]
