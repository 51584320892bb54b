"""Shows what a comparison found, and writes it into its folder: README.md, cells.csv, result.json, report.html."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nlp_ft.errors import printable
from nlp_ft.report.study import write_study
from nlp_ft.screen import say, show, typed_command
from nlp_ft.study import tables
from nlp_ft.study.cells import Plan
from nlp_ft.study.cheap_rows import EMBEDDINGS, PROBE, CheapRow
from nlp_ft.study.results import Judged
from nlp_ft.tables import terminal_width, wrapped
from nlp_ft.training import durable
from nlp_ft.training.verdict.facts import points

RESULT, CELLS_CSV, README, REPORT = "result.json", "cells.csv", "README.md", "report.html"
CHEAP_WORDS = {EMBEDDINGS: "the embeddings", PROBE: "the mean of the frozen layers"}
"""Title of a cheap row -> the features of the encoder that logistic regression has there."""


@dataclass(frozen=True)
class Findings:
    """What a comparison found.

    Args:
        plan: what was compared.
        judged: the strategies.
        cheap: the rows that cost little.
        lines: what is shown, a sentence for each strategy.
        front: the sentence on the Pareto front.
        remarks: what is odd.
        unfinished: strategies that have not trained all seeds, see `race.unfinished`.
    """

    plan: Plan
    judged: list[Judged]
    cheap: list[CheapRow]
    lines: list[str]
    front: str
    remarks: list[str]
    unfinished: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def sentences(self) -> list[str]:
        """What is said below the tables, the remarks left out."""
        return [*self.lines, self.front, *([self._not_finished] if self.unfinished else [])]

    @property
    def _not_finished(self) -> str:
        seeds = self.plan.num_seeds
        parts = [
            f"{name} ({of['seeds'] or 'none'} of {seeds} seeds: {of['why']})" for name, of in self.unfinished.items()
        ]
        return f"Not finished: {', '.join(parts)}."

    @property
    def about(self) -> str:
        """What the numbers of the headline are."""
        seeds, rows = max(len(one.runs.tests) for one in self.judged), self.judged[0].runs.tests[0]["rows"]
        return (
            f"test {self.plan.metric} of {seeds} seed(s), {rows:,} rows; "
            f"gain: mean paired difference to {self.plan.baseline}, with the interval over new seeds and new rows."
            f"{self._cheap_words}{self._budget}"
        )

    @property
    def _cheap_words(self) -> str:
        there = [row.title for row in self.cheap if row.title in CHEAP_WORDS]
        parts = [f"{title}: logistic regression on {CHEAP_WORDS[title]} of the encoder" for title in there]
        return "".join(f" {part}." for part in parts)

    @property
    def _budget(self) -> str:
        if self.plan.equal == "epochs":
            return ""
        steps = ", ".join(f"{one.runs.strategy} {one.runs.median('global_step'):,.0f}" for one in self.judged)
        return f" All strategies have the same {self.plan.equal}; steps: {steps}."

    def as_json(self) -> dict[str, Any]:
        """Collect all of it for result.json."""
        return {
            "metric": self.plan.metric,
            "baseline": self.plan.baseline,
            "num_seeds": self.plan.num_seeds,
            "equal": self.plan.equal,
            **tables.as_json(self.judged, self.cheap, self.plan.metric),
            "pareto": {
                "front": [one.runs.strategy for one in self.judged if not one.dominated_by],
                "dominated": {one.runs.strategy: one.dominated_by for one in self.judged if one.dominated_by},
                "line": self.front,
            },
            "unfinished": dict(self.unfinished),
            "verdicts": self.lines,
            "remarks": self.remarks,
        }


def write_findings(found: Findings) -> dict[str, Any]:
    """Print the tables and write all files; return the content of result.json."""
    plan, width = found.plan, terminal_width()
    headline = tables.score_rows(found.judged, found.cheap, plan.metric)
    detail = tables.detail_rows(found.judged, plan.metric)
    show(f"\n{tables.screen(headline, width)}\n\n{wrapped(found.about)}\n\n{tables.screen(detail, width)}\n")
    show("\n".join([*found.sentences, *(f"look: {remark}" for remark in found.remarks)]))
    sentences = [f"- {line}" for line in [*found.sentences, *found.remarks]]
    readme = [tables.markdown(headline), found.about, tables.markdown(detail), *sentences]
    result = found.as_json()
    durable.write_text(plan.folder / CELLS_CSV, tables.cells_csv(plan))
    durable.write_text(plan.folder / README, "# Comparison\n\n" + "\n\n".join(readme) + "\n")
    durable.write_text(plan.folder / RESULT, json.dumps(result, indent=2) + "\n")
    say(f"\ncomparison folder: {printable(str(plan.folder))}")
    _write_report(found, [("Scores and gains", *headline), ("Parts of the intervals, and cost", *detail)])
    return result


def _write_report(found: Findings, of_page: list[tuple[str, list[str], list[list[str]]]]) -> None:
    """Write report.html; a comparison whose report fails is finished all the same."""
    if not found.plan.recipe.report:
        return
    file = found.plan.folder / REPORT
    try:
        write_study(page_of(found, of_page), file)
    except Exception as error:
        show(f"warning: no report was written ({type(error).__name__}: {error}); all else of the comparison is there")
    else:
        say(f"report: {printable(str(file))}")


def page_of(found: Findings, of_page: list[tuple[str, list[str], list[list[str]]]]) -> dict[str, Any]:
    """Collect what the report shows, see `write_study`."""
    plan, metric = found.plan, found.plan.metric
    found_points: list[dict[str, Any]] = [
        {
            "name": one.runs.strategy,
            "score": float(one.runs.scores(metric).mean()),
            "interval": shown_interval(one, metric),
            "seconds": one.runs.median("train_seconds"),
            "kind": "dominated" if one.dominated_by else "front",
        }
        for one in found.judged
    ]
    found_points += [
        {"name": row.title, "score": row.scores[metric], "interval": None, "seconds": row.seconds, "kind": "cheap"}
        for row in found.cheap
        if row.seconds is not None and metric in row.scores
    ]
    return {
        "title": "1 strategy" if len(found.judged) == 1 else f"{len(found.judged)} strategies compared",
        "metric": metric,
        "folder": printable(str(plan.folder)),
        "answer": found.sentences,
        "remarks": found.remarks,
        "about": found.about,
        "tables": [{"title": title, "header": header, "rows": rows} for title, header, rows in of_page],
        "points": found_points,
        "runs": {one.runs.strategy: [str(folder) for folder in one.runs.folders] for one in found.judged},
        "command": printable(typed_command() or ""),
        "versions": found.judged[0].runs.summaries[0].get("versions", {}),
    }


def shown_interval(one: Judged, metric: str) -> tuple[float, float]:
    """Return the interval of a score; that of a share ends at 1."""
    low, high = one.runs.interval(metric)
    return (low, min(high, 1.0)) if points(metric, 0.01) == "1.0 points" else (low, high)
