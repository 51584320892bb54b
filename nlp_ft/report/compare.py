"""Puts several runs side by side in one dictionary; runs that differ in the seed alone form a group."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nlp_ft.errors import RunFolderError, printable
from nlp_ft.report.run_files import read_recipe, read_summary
from nlp_ft.report.summary import Curve, describe_run, flat

WITHOUT_MEANING = ("output_dir", "report", "trackers", "training.checkpoint_every")
"""Settings that change nothing about a model."""
COSTS = ("train_seconds", "train_examples_per_second", "peak_memory_bytes", "num_trainable_parameters", "global_step")
SETTINGS_IN_NAME = 2


def describe_runs(folders: Sequence[str | Path]) -> dict[str, Any]:
    """Collect what the files of several run folders hold; no texts of rows.

    Args:
        folders: two run folders or more.

    Returns:
        Plain values that JSON can hold: `runs`, `groups`, `differ`, `by_class`, ...

    Raises:
        RunFolderError: one is no finished run, or one is named twice.
    """
    twice = [
        str(folder) for folder in folders if [Path(one).resolve() for one in folders].count(Path(folder).resolve()) > 1
    ]
    if twice:
        raise RunFolderError(f"{twice[0]} is named twice; name each run once")
    names = _names(folders)
    runs = [describe_run(folder, name=name, most=0, texts=False) for folder, name in zip(folders, names)]
    settings = [{**flat(read_recipe(Path(folder))), **_rows_of(Path(folder))} for folder in folders]
    keys = [key for key in dict.fromkeys(key for one in settings for key in one) if key not in WITHOUT_MEANING]
    differ = [key for key in keys if len({_key(one.get(key)) for one in settings}) > 1]
    metric = runs[0]["metric"]
    groups = _groups(runs, settings, [key for key in differ if key != "seed"])
    last = next(iter(runs[0]["splits"]), "")
    return {
        "names": names,
        "metric": metric,
        "split": last,
        "runs": [_short(run) for run in runs],
        "groups": [_group(name, members, metric, last) for name, members in groups.items()],
        "baselines": runs[0]["answer"]["baselines"] if runs[0]["answer"] else {},
        "differ": {
            "header": ["setting", *names],
            "rows": [[key, *(_shown(one.get(key, "-")) for one in settings)] for key in differ],
        },
        "scores": _scores(runs),
        "by_class": _by_class(runs, last),
        "cost": [[name.replace("_", " "), *(run["cost"].get(name, "-") for run in runs)] for name in COSTS],
        "commands": {run["name"]: run["command"] or run["again"] for run in runs},
        "versions": runs[0]["versions"],
    }


def interval_of_mean(values: Sequence[float]) -> tuple[float, float] | None:
    """Compute the 95 % interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stdtrit(len(values) - 1, 0.975)) * deviation / math.sqrt(len(values))
    return mean - half, mean + half


def band(curves: Sequence[Curve]) -> list[list[float]]:
    """Join curves of several seeds: [step, mean, lowest, highest] at each step that all of them have."""
    tables = [{int(step): value for step, value in curve} for curve in curves]
    common = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    columns = [(step, [table[step] for table in tables]) for step in common]
    return [[step, float(np.mean(values)), min(values), max(values)] for step, values in columns]


def _groups(
    runs: Sequence[dict[str, Any]], settings: Sequence[Mapping[str, Any]], differ: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Group the runs that are equal in the settings that differ, but for the seed; a group's name says what it is."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run, one in zip(runs, settings):
        found.setdefault(_key([one.get(name) for name in differ]), []).append(run)
    shown = [name for name in differ if all(name in one for one in settings)][:SETTINGS_IN_NAME]
    setting_of = dict(zip((run["name"] for run in runs), settings))
    named: dict[str, list[dict[str, Any]]] = {}
    for members in found.values():
        first = members[0]
        said = [f"{name.rpartition('.')[2]} {_shown(setting_of[first['name']][name])}" for name in shown]
        what = "seeds" if _differ_in_seed(members) else "runs"
        title = first["name"] if len(members) == 1 else ", ".join([*said, f"{len(members)} {what}"])
        named[title if title not in named else f"{title} ({first['name']})"] = members
    return named


def _rows_of(folder: Path) -> dict[str, str]:
    """Read the hash of the rows of each split, for between two runs a file may have changed; key -> its beginning."""
    is_drawn = flat(read_recipe(folder)).get("data.train_rows") is not None  # anew by each seed
    hashes = read_summary(folder).get("data_hashes", {})
    return {f"rows of {split}": of[:8] for split, of in hashes.items() if not (split == "train" and is_drawn)}


def _shown(value: Any) -> str:
    return printable(str(value))


def _differ_in_seed(members: Sequence[Mapping[str, Any]]) -> bool:
    return len({run["seed"] for run in members}) == len(members)


def _group(name: str, members: Sequence[Mapping[str, Any]], metric: str, split: str) -> dict[str, Any]:
    values = [
        run["answer"]["value"]
        for run in members
        if run["answer"] and (run["metric"], run["answer"]["split"]) == (metric, split)
    ]
    validation = {key for run in members for key in run["curves"]["validation"]}
    # Equal seeds give equal runs, which say nothing of chance.
    interval = interval_of_mean(values) if _differ_in_seed(members) else None
    return {
        "name": name,
        "runs": [run["name"] for run in members],
        "seeds": [run["seed"] for run in members],
        "values": values,
        "mean": float(np.mean(values)) if values else None,
        "interval": list(interval) if interval else None,
        "curves": {
            "loss": band([run["curves"]["loss"] for run in members]),
            **{
                f"validation {key}": band([run["curves"]["validation"].get(key, []) for run in members])
                for key in sorted(validation & {metric, "loss"})
            },
        },
        "phases": members[0]["phases"],
    }


def _short(run: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("name", "task", "model", "strategy", "seed", "metric", "answer", "verdict", "cost")
    return {key: run[key] for key in kept}


def _scores(runs: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Make a row for each split and metric, and a column for each run."""
    own = [[score for score in run["scores"] if score["name"] == "this run"] for run in runs]
    found = dict.fromkeys((score["split"], name) for scores in own for score in scores for name in score["values"])
    rows = []
    for split, name in found:
        values = [next((one["values"].get(name) for one in scores if one["split"] == split), None) for scores in own]
        rows.append([f"{split} {name.replace('_', ' ')}", *("-" if value is None else value for value in values)])
    return rows


def _by_class(runs: Sequence[Mapping[str, Any]], split: str) -> dict[str, Any] | None:
    """Make a row for each class and a column with its F1 for each run, where all runs have the same classes."""
    tables = [run["splits"].get(split, {}).get("table", {"header": [], "rows": []}) for run in runs]
    if not all("f1" in table["header"] for table in tables):
        return None
    columns = [{row[0]: row[table["header"].index("f1")] for row in table["rows"]} for table in tables]
    if any(set(column) != set(columns[0]) for column in columns):
        return None
    header = [tables[0]["header"][0], *(run["name"] for run in runs)]
    return {"header": header, "rows": [[label, *(column[label] for column in columns)] for label in columns[0]]}


def _names(folders: Sequence[str | Path]) -> list[str]:
    """Name the runs by their folders; by as much of the path as tells them apart."""
    paths = [Path(folder).resolve() for folder in folders]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = [str(Path(*path.parts[-depth:])) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
