"""Lists the runs under a folder, and the settings and scores in which runs differ. Imports no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from nlp_ft.errors import RecipeError, RunFolderError
from nlp_ft.recipe.loader import read_yaml
from nlp_ft.report.run_files import EXPORT, RECIPE, SUMMARY, refuse_export
from nlp_ft.tables import short_rate, text_table

WITHOUT_MEANING = ("output_dir",)
"""Settings that differ between any two runs."""


@dataclass(frozen=True)
class FinishedRun:
    """What is known of a run without loading it."""

    folder: Path
    summary: Mapping[str, Any]
    recipe: Mapping[str, Any]

    def score(self, split: str) -> float | None:
        """Return the score of a split by the metric of the run; None if there is none."""
        metric = self.setting("training.metric")
        value: float | None = self.summary["metrics"].get(split, {}).get(metric)
        return value

    def setting(self, key: str) -> Any:
        """Return a setting by its dotted key; None if the recipe does not have it."""
        value: Any = self.recipe
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


def list_runs(folder: str | Path, width: int | None = None) -> str:
    """Make a table of the finished runs under a folder, the oldest first.

    Args:
        folder: a folder that holds runs at any depth; or a run folder.
        width: columns of the screen.

    Raises:
        RunFolderError: there is no such folder, or no finished run in it.
    """
    refuse_export(Path(folder))
    runs = sorted(_runs_under(Path(folder)), key=lambda run: (_date(run), run.folder))
    if not runs:
        raise RunFolderError(f"{folder} holds no finished run; nlp-ft train makes one in the output_dir of its recipe")
    metrics = list(dict.fromkeys(str(run.setting("training.metric")) for run in runs))
    by = ["metric"] if len(metrics) > 1 else []
    header = ["run", "strategy", "lr", "head", "seed", "length", *by, "valid.", "test", "secs", "date"]
    rows = [
        [
            _name(run, Path(folder)),
            str(run.summary["strategy"]),
            _rate(run.setting("optimizer.lr")),
            _rate(run.setting("optimizer.head_lr")),
            str(run.summary["seed"]),
            str(run.setting("training.duration")),
            *([str(run.setting("training.metric"))] if by else []),
            _number(run.score("validation")),
            _number(run.score("test")),
            f"{run.summary['train_seconds']:.0f}",
            f"{_date(run):%m-%d}",
        ]
        for run in runs
    ]
    right = [header.index(name) for name in ("lr", "head", "seed", "length", "valid.", "test", "secs")]
    table = text_table(header, rows, right, width, shrink=(0, 1))
    partial = [f"unfinished: {path}" for path in sorted(Path(folder).rglob("*.partial")) if path.is_dir()]
    note = [] if by else [f"valid. and test: {metrics[0].replace('_', ' ')}"]
    return "\n".join([table, "", *note, *partial]).rstrip()


def compare_runs(folders: Sequence[str | Path], width: int | None = None) -> str:
    """Make a table of the settings in which runs differ, and of all their scores.

    Args:
        folders: two run folders or more.
        width: columns of the screen.

    Raises:
        RunFolderError: one is not a finished run.
    """
    runs = [_read(Path(folder)) for folder in folders]
    flat = [_flat(run.recipe) for run in runs]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if key not in WITHOUT_MEANING]
    different = [key for key in keys if len({json.dumps(one.get(key)) for one in flat}) > 1]
    rows = [[key, *(_value(one.get(key)) for one in flat)] for key in different]
    if not rows:
        rows = [["no setting differs", *("" for _ in runs)]]
    scores = dict.fromkeys((split, name) for run in runs for split, of in run.summary["metrics"].items() for name in of)
    rows += [
        [
            f"{split} {name.replace('_', ' ')}",
            *(_number(run.summary["metrics"].get(split, {}).get(name)) for run in runs),
        ]
        for split, name in scores
    ]
    rows += [["seconds of training", *(f"{run.summary['train_seconds']:.1f}" for run in runs)]]
    columns = range(1, len(runs) + 1)
    return text_table(["", *(str(folder) for folder in folders)], rows, columns, width, shrink=range(len(runs) + 1))


def _runs_under(folder: Path) -> list[FinishedRun]:
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is no folder; name one that holds runs, such as runs")
    found = []
    for file in sorted(folder.rglob(SUMMARY)):
        # An export has the summary of the run that it came from.
        is_run = (file.parent / RECIPE).exists() and not (file.parent / EXPORT).exists()
        if is_run and not file.parent.name.endswith(".partial"):
            found.append(_read(file.parent))
    return found


def _read(folder: Path) -> FinishedRun:
    refuse_export(folder)
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        run = FinishedRun(folder, summary, read_yaml(folder / RECIPE))
        if not isinstance(summary["metrics"], Mapping):
            raise ValueError("its metrics are no section")
        float(summary["train_seconds"]), summary["strategy"], summary["seed"]
    except (OSError, ValueError, KeyError, TypeError, RecipeError) as error:
        raise RunFolderError(f"{folder} is not a finished run that can be read: {error}") from None
    return run


def _date(run: FinishedRun) -> datetime:
    return datetime.fromtimestamp((run.folder / SUMMARY).stat().st_mtime)


def _name(run: FinishedRun, folder: Path) -> str:
    return run.folder.name if run.folder == folder else run.folder.relative_to(folder).as_posix()


def _rate(value: Any) -> str:
    return short_rate(float(value)) if isinstance(value, int | float) else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _value(value: Any) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat
