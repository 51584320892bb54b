"""Shows what the trials of a study found, and writes result.json, trials.csv, and a recipe with the best settings."""

import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nlp_ft.errors import printable
from nlp_ft.recipe.loader import apply_overrides, dump_yaml
from nlp_ft.screen import say, show
from nlp_ft.study.running import is_lower_better
from nlp_ft.tables import terminal_width, text_table, wrapped
from nlp_ft.training import durable
from nlp_ft.training.verdict.facts import shown

RESULT, TRIALS_CSV, BEST = "result.json", "trials.csv", "best.yaml"
MOST_SHOWN = 10
"""Trials in the table of the screen; trials.csv has all."""


@dataclass(frozen=True)
class Trial:
    """A trial that has ended: its settings as they are written, its score or None, why it has none, and its seconds."""

    number: int
    settings: Mapping[str, str]
    value: float | None
    why: str
    seconds: float | None


class Searched(Protocol):
    """What the results need to know of a study."""

    @property
    def metric(self) -> str:
        """The score."""
        ...

    @property
    def given(self) -> Mapping[str, Any]:
        """The recipe as it was read, with its overrides."""
        ...


def ranked(trials: Sequence[Trial], metric: str) -> list[Trial]:
    """Order the trials, the best first; those without a score come last."""
    sign = 1 if is_lower_better(metric) else -1
    return sorted(trials, key=lambda one: (one.value is None, sign * (one.value or 0.0), one.number))


def write_results(folder: Path, trials: Sequence[Trial], study: Searched) -> dict[str, Any]:
    """Print the best trials, and write all files; return the content of result.json."""
    order = ranked(trials, study.metric)
    best = order[0] if order and order[0].value is not None else None
    keys = list(order[0].settings) if order else []
    show(f"\n{_table(order[:MOST_SHOWN], keys, study.metric)}\n")
    result: dict[str, Any] = {"metric": study.metric, "best": None, "trials": [vars(one) for one in order]}
    if best is None:
        show("no trial has a score; see the logs of the trials")
    else:
        settings = [f"{key}={value}" for key, value in best.settings.items()]
        result["best"] = {"trial": best.number, "value": best.value, "overrides": settings}
        recipe = apply_overrides(study.given, settings)
        durable.write_text(folder / BEST, dump_yaml({**recipe, "output_dir": f"{recipe['output_dir']}-tuned"}))
        show(wrapped(f"best: {' '.join(settings)}"))
        show(
            wrapped(
                "It was chosen for its score on validation, which is therefore too high; test and other seeds say how "
                "good it is."
            )
        )
        show(f"next: nlp-ft train {printable(shlex.quote(str(folder / BEST)))}")
    durable.write_text(folder / TRIALS_CSV, _csv(order, keys, study.metric))
    durable.write_text(folder / RESULT, json.dumps(result, indent=2) + "\n")
    say(f"\nstudy folder: {printable(str(folder))}")
    return result


def _table(trials: Sequence[Trial], keys: Sequence[str], metric: str) -> str:
    header = ["trial", metric.replace("_", " "), *(key.rpartition(".")[2] for key in keys), "s"]
    rows = [
        [
            str(one.number),
            one.why if one.value is None else shown(metric, one.value),
            *(one.settings[key] for key in keys),
            "" if one.seconds is None else f"{one.seconds:.0f}",
        ]
        for one in trials
    ]
    return text_table(header, rows, range(len(header)), terminal_width())


def _csv(trials: Sequence[Trial], keys: Sequence[str], metric: str) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["trial", f"validation_{metric}", "state", *keys, "train_seconds"])
    for one in trials:
        writer.writerow([one.number, one.value, one.why or "finished", *one.settings.values(), one.seconds])
    return stream.getvalue()
