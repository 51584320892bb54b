"""Says in words what a comparison shows, what it cannot show, and what is odd about it."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from nlp_ft.study import statistics
from nlp_ft.study.cheap_rows import CheapRow
from nlp_ft.study.results import Judged
from nlp_ft.training.verdict.facts import points, shown

USUAL_SEEDS = 5
COLLAPSE = 0.1
"""A seed whose score is that far below the median of its strategy has collapsed; for scores of at most 1."""
WIDE = 0.1
"""A margin of more than that share of a loss or an error is said to be wide."""
DEARER = 1.2
"""Factor on the seconds of the baseline, from which a strategy costs more."""


def verdict_lines(judged: Sequence[Judged], baseline: str, metric: str, margin: float) -> list[str]:
    """Write a sentence for each strategy but the baseline: the word, and for ignorance what would end it."""
    lines = []
    for one in judged:
        if one.gain is not None:
            said = f"{one.runs.strategy}: {one.word}{_of_baseline(one.word, baseline, metric, margin)}"
            lines.append(f"{said}. {_reach(one, metric, margin)}".rstrip())
    return lines


def front_line(judged: Sequence[Judged], metric: str) -> str:
    """Name the strategies on the Pareto front of score and seconds, the fastest first, and who dominates the others."""

    def told(one: Judged) -> str:
        mean = shown(metric, float(one.runs.scores(metric).mean()))
        return f"{one.runs.strategy} ({mean} in {one.runs.median('train_seconds'):.3g} s)"

    front = sorted((one for one in judged if not one.dominated_by), key=lambda one: one.runs.median("train_seconds"))
    dominated = [f"{one.runs.strategy} (by {one.dominated_by})" for one in judged if one.dominated_by]
    rest = f"; dominated: {', '.join(dominated)}" if dominated else "; none is dominated"
    return f"Pareto front of score and seconds: {', '.join(map(told, front))}{rest}."


def _of_baseline(word: str, baseline: str, metric: str, margin: float) -> str:
    if word in ("better", "worse"):
        return f" than {baseline}"
    return f" to {baseline} within {points(metric, margin)}" if word == "equal" else ""


def _reach(one: Judged, metric: str, margin: float) -> str:
    """Say what these runs could have shown."""
    assert one.gain is not None
    parts, seeds = one.gain.parts, len(one.runs.tests)
    if parts is None:
        tested = "" if one.gain.p_rows is None else f" (McNemar's p = {one.gain.p_rows:.2g} for these two models)"
        return f"One seed says nothing about the next one{tested}; run 5."
    if one.word != "cannot tell yet":
        return ""
    chance = statistics.power(parts, margin, seeds)
    said = f"A true difference of {points(metric, margin)} would show in {100 * chance:.0f} % of such comparisons"
    needed, rows = statistics.seeds_needed(parts, margin), one.runs.tests[0]["rows"]
    enough = statistics.rows_needed(parts, margin, rows)
    if enough > rows:
        return f"{said}; no number of seeds is enough, as {rows:,} test rows are too few: it takes about {enough:,}."
    if needed is None:
        return f"{said}; for 80 % it would take more than {statistics.MOST_SEEDS} seeds, so much do they differ."
    return f"{said}; for 80 % it would take {max(needed, seeds + 1)} seeds."


def remarks(
    judged: Sequence[Judged],
    cheap: Sequence[CheapRow],
    report: Mapping[str, Any],
    metric: str,
    sign: int,
    jobs: int,
    margin: float,
) -> list[str]:
    """List what is odd, one sentence each.

    Args:
        judged: the strategies.
        cheap: the baselines that were not trained.
        report: what `Task.describe_data` gives.
        metric: the compared score.
        sign: -1 if a lower score is better, else 1.
        jobs: cells that were trained at the same time, at most.
        margin: differences below it count as equal, in the unit of the metric.
    """
    base = next(one for one in judged if one.gain is None)
    found = [*_of_seeds(judged), *_of_machines(judged), *_of_data(report), *_of_margin(base, metric, margin)]
    for one in judged:
        found += _of_runs(one, metric, sign)
        found += _of_cost(one, base)
        found += _of_cheap(one, cheap, metric, sign)
    if jobs > 1:
        found.append(f"{jobs} cells ran at a time and slowed each other down: the seconds do not hold for one alone.")
    return found


def _of_seeds(judged: Sequence[Judged]) -> list[str]:
    seeds = max(len(one.runs.tests) for one in judged)
    if seeds >= USUAL_SEEDS:
        return []
    says = "no interval over seeds, so no strategy is called better, worse or equal"
    if seeds > 1:
        quantile = statistics.Interval(0.0, 1.0, seeds - 1).half_width
        says = f"where seeds decide, a difference must be {quantile:.1f} standard errors to show, not 2"
    return [f"{seeds} seed{'s' * (seeds > 1)} instead of {USUAL_SEEDS}: {says}."]


def _of_machines(judged: Sequence[Judged]) -> list[str]:
    """Say in what the machines and packages differ that trained the runs, as after a comparison went on elsewhere."""
    summaries = [summary for one in judged for summary in one.runs.summaries]
    kinds = [{key: of.get(key) for key in ("device", "precision")} | of.get("versions", {}) for of in summaries]
    different = [
        f"{key} {' and '.join(map(str, values))}"
        for key in kinds[0]
        if len(values := dict.fromkeys(kind.get(key) for kind in kinds)) > 1
    ]
    if not different:
        return []
    return [f"The cells did not train alike ({', '.join(different)}): neither seconds nor small differences compare."]


def _of_data(report: Mapping[str, Any]) -> list[str]:
    shared, rows = report.get("test", {}).get("also_in_train", 0), report.get("test", {}).get("rows", 0)
    return [f"{shared:,} of {rows:,} test texts are in train, too: the scores are too high."] if shared else []


def _of_margin(base: Judged, metric: str, margin: float) -> list[str]:
    mean = float(base.runs.scores(metric).mean())
    if points(metric, 0.01) == "1.0 points" or margin <= WIDE * mean:
        return []
    said = f"the margin of {points(metric, margin)} is wide beside the {metric} of {base.runs.strategy}"
    return [f"{said}, {shown(metric, mean)}: `equal` says little; set --margin in the unit of the {metric}."]


def _of_runs(one: Judged, metric: str, sign: int) -> list[str]:
    found, name = [], one.runs.strategy
    if one.runs.edge:
        found.append(
            f"{name}: its rate {one.runs.rate:.2g} is the {one.runs.edge} of its grid; a rate beyond it may be better "
            "(two more --rates, in a new folder)."
        )
    codes = [{remark["code"] for remark in summary.get("verdict", [])} for summary in one.runs.summaries]
    overfit = sum("overfit" in of_run for of_run in codes)
    if 2 * overfit > len(codes):
        found.append(f"{name} overfits in {overfit} of {len(codes)} seeds; see the verdict in their run folders.")
    scores = (sign * one.runs.scores(metric)).tolist()
    is_share = shown(metric, 0.5) == "50.0"
    for seed, value in enumerate(scores):
        if is_share and len(scores) > 2 and value < median(scores) - COLLAPSE:
            found.append(f"{name}: seed {seed} collapsed, {metric} {shown(metric, sign * value)}.")
    return found


def _of_cheap(one: Judged, cheap: Sequence[CheapRow], metric: str, sign: int) -> list[str]:
    mean = float(one.runs.scores(metric).mean())
    better = [row for row in cheap if metric in row.scores and sign * (row.scores[metric] - mean) > 0]
    if not better:
        return []
    named = ", ".join(f"{row.title} ({shown(metric, row.scores[metric])})" for row in better)
    return [f"{one.runs.strategy} ({shown(metric, mean)}) is worse than {named}."]


def _of_cost(one: Judged, base: Judged) -> list[str]:
    found = []
    times = one.runs.median("train_seconds") / max(base.runs.median("train_seconds"), 1e-9)
    if one.word not in ("better", "baseline") and times > DEARER:
        found.append(
            f"{one.runs.strategy} takes {times:.1f} times as long as {base.runs.strategy}, with no gain shown."
        )
    return found
