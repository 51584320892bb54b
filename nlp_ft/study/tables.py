"""Writes a comparison as tables for the screen and as JSON, CSV and Markdown for its folder."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from nlp_ft.study.cells import Plan
from nlp_ft.study.cheap_rows import CheapRow
from nlp_ft.study.results import Gain, Judged
from nlp_ft.study.running import is_finished, summary_of
from nlp_ft.tables import short_count, short_rate, text_table
from nlp_ft.training.verdict.facts import points, shown

Table = tuple[list[str], list[list[str]]]


def score_rows(judged: Sequence[Judged], cheap: Sequence[CheapRow], metric: str) -> Table:
    """Make the headline: score, gain over the baseline with the interval over seeds and rows, word, seconds."""
    header = ["", "lr", metric.replace("_", " "), "gain", "95 %", "verdict", "s"]
    rows = []
    for one in judged:
        scores = one.runs.scores(metric)
        deviation = f" ± {shown(metric, float(scores.std(ddof=1)))}" if len(scores) > 1 else ""
        rows.append(
            [
                title(one, judged),
                "" if one.runs.rate is None else short_rate(one.runs.rate),
                shown(metric, float(scores.mean())) + deviation,
                "" if one.gain is None else signed(metric, one.gain.value),
                "" if one.gain is None or one.gain.interval is None else bounds(metric, one.gain.interval.bounds),
                one.word,
                f"{one.runs.median('train_seconds'):.0f}",
            ]
        )
    for row in cheap:
        seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
        value = shown(metric, row.scores[metric]) if metric in row.scores else "-"
        rows.append([row.title, "", value, "", "", "", seconds])
    return header, rows


def detail_rows(judged: Sequence[Judged], metric: str) -> Table:
    """Make the table beside it: the intervals over seeds and over rows alone, Holm's p, and the cost."""
    header = ["", "seeds alone", "rows alone", "p", "trained", "MB", "FLOPs", "s a point"]
    rows = []
    for one in judged:
        gain = one.gain
        rows.append(
            [
                title(one, judged),
                "" if gain is None or gain.of_seeds is None else bounds(metric, gain.of_seeds.bounds),
                "" if gain is None else bounds(metric, gain.of_rows),
                "" if one.p_value is None else f"{one.p_value:.2g}",
                short_count(one.runs.summaries[0]["num_trainable_parameters"]),
                f"{one.runs.median('peak_memory_bytes') / 1e6:.0f}",
                "-" if one.runs.train_flops is None else short_rate(one.runs.train_flops),
                _price(one, judged, gain, metric),
            ]
        )
    return header, rows


def title(one: Judged, judged: Sequence[Judged]) -> str:
    """Name a strategy, with its seeds if others have more."""
    seeds, most = len(one.runs.tests), max(len(other.runs.tests) for other in judged)
    return one.runs.strategy + (f" ({seeds} seed{'s' * (seeds > 1)})" if seeds < most else "")


def screen(table: Table, width: int | None) -> str:
    """Write a table for a terminal; the first column gives way where the room ends."""
    header, rows = table
    words = [i for i, title in enumerate(header) if title not in ("", "verdict")]
    return text_table(header, rows, words, width)


def markdown(table: Table) -> str:
    """Write a table in Markdown."""
    header, rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', ' ') for cell in line)} |" for line in lines)


def cells_csv(plan: Plan) -> str:
    """Write every cell as CSV: its settings, its validation score, and its cost."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(
        ["strategy", "lr", "factor", "seed", f"validation_{plan.metric}", "train_seconds", "peak_memory_bytes"]
    )
    for cell in (cell for cell in plan.cells if is_finished(plan, cell)):
        summary = summary_of(plan, cell)
        value = summary["metrics"]["validation"][plan.metric]
        costs = [summary.get(key) for key in ("train_seconds", "peak_memory_bytes")]  # none if it diverged
        writer.writerow([cell.strategy, plan.rate(cell), cell.factor, cell.seed, value, *costs])
    return stream.getvalue()


def as_json(judged: Sequence[Judged], cheap: Sequence[CheapRow], metric: str) -> dict[str, Any]:
    """Collect all numbers, in the unit of the metric."""
    return {
        "strategies": {one.runs.strategy: _numbers(one, metric) for one in judged},
        "cheap": {row.title: {"scores": dict(row.scores), "seconds": row.seconds} for row in cheap},
    }


def _numbers(one: Judged, metric: str) -> dict[str, Any]:
    gain = one.gain
    found: dict[str, Any] = {
        "lr": one.runs.rate,
        "num_seeds": len(one.runs.tests),
        "edge_of_grid": one.runs.edge or None,
        "test": one.runs.scores(metric).tolist(),
        "test_interval": one.runs.interval(metric),
        "word": one.word,
        "p_holm": one.p_value,
        "dominated_by": one.dominated_by or None,
        "train_seconds": one.runs.median("train_seconds"),
        "peak_memory_bytes": one.runs.median("peak_memory_bytes"),
        "steps": one.runs.median("global_step"),
        "train_flops": one.runs.train_flops,
        "num_trainable_parameters": one.runs.summaries[0]["num_trainable_parameters"],
    }
    if gain is not None:
        found |= {
            "gain": gain.value,
            "interval": None if gain.interval is None else gain.interval.bounds,
            "interval_over_seeds": None if gain.of_seeds is None else gain.of_seeds.bounds,
            "interval_over_rows": gain.of_rows,
            "p_mcnemar": gain.p_rows,
        }
    return found


def signed(metric: str, value: float) -> str:
    """Write a difference with its sign."""
    return f"{'+' if value >= 0 else '-'}{shown(metric, abs(value))}"


def bounds(metric: str, interval: tuple[float, float]) -> str:
    """Write an interval of differences."""
    return f"{signed(metric, interval[0])} to {signed(metric, interval[1])}"


def _price(one: Judged, judged: Sequence[Judged], gain: Gain | None, metric: str) -> str:
    """Write the seconds that each point over the baseline costs; empty without a gain or without a cost."""
    [base] = [other for other in judged if other.gain is None]
    extra = one.runs.median("train_seconds") - base.runs.median("train_seconds")
    if gain is None or gain.value <= 0 or extra <= 0 or points(metric, 0.01) != "1.0 points":
        return ""
    price = extra / (100 * gain.value)
    return f"{price:.1f}" if price >= 1 else f"{price:.1g}"
