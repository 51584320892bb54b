"""Collects what a report says of a run into one dictionary of plain values, the source of HTML, Markdown and JSON."""

import csv
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_ft.errors import RunFolderError, printable
from nlp_ft.report.run_files import LAYERS, METRICS, SUMMARY, read_recipe, read_records, read_summary
from nlp_ft.report.splits import describe_split, hardest_of_train

ROWS_LISTED = 20
SHOWN_OF_LAYERS = ("gradient_norm", "update_ratio", "drift")
Curve = list[list[float]]


def describe_run(
    folder: str | Path, *, summary_file: str = SUMMARY, name: str = "", most: int = ROWS_LISTED, texts: bool = True
) -> dict[str, Any]:
    """Collect what the files of a run folder hold.

    Args:
        folder: the run folder.
        summary_file: name of the summary in it; the run itself reports before the summary has its final name.
        name: name of the run; an empty text takes that of the folder.
        most: rows to list in each list of rows.
        texts: whether to show the texts of rows.

    Returns:
        Plain values that JSON can hold; what the run did not write is left out or empty.

    Raises:
        RunFolderError: the folder is no finished run.
    """
    place = Path(folder)
    summary, recipe = read_summary(place, summary_file), read_recipe(place)
    try:
        return _described(place, summary, recipe, name or place.resolve().name, most, texts)
    except (KeyError, TypeError, AttributeError, ValueError, csv.Error) as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(
            f"{folder} holds a damaged file: {type(error).__name__}: {error}; train it again"
        ) from None


def _described(
    place: Path, summary: Mapping[str, Any], recipe: Mapping[str, Any], name: str, most: int, texts: bool
) -> dict[str, Any]:
    records = read_records(place / METRICS)
    metric = summary.get("metric") or _setting(recipe, "training.metric")
    return {
        "name": printable(name),
        "task": _setting(recipe, "task"),
        "model": printable(str(_setting(recipe, "model.name"))),
        "strategy": printable(str(summary.get("strategy"))),
        "seed": summary.get("seed"),
        "metric": metric,
        "answer": _answer(summary, metric),
        "scores": _scores(summary),
        "verdict": [
            {"says": printable(remark["says"]), "do": printable(remark.get("do", ""))}
            for remark in summary.get("verdict", [])
        ],
        "curves": _curves(records),
        "phases": _phases(summary, records),
        "layers": _layers(read_records(place / LAYERS)),
        "probe": summary.get("probe"),
        "temperature": summary.get("calibration"),
        "step_time": _step_time(read_records(place / LAYERS)),
        "splits": {
            split: describe_split(place, split, most, texts, _has_lengths(summary, split))
            for split in reversed(summary["metrics"])
        },
        "train_hardest": hardest_of_train(place, most, texts),
        "texts": texts,
        "data": _data(summary),
        "cost": _cost(summary),
        "derived": {key: printable(str(value)) for key, value in summary.get("derived", {}).items()},
        "command": printable(str(summary.get("command") or "")),
        "again": f"nlp-ft train {printable(shlex.quote(f'{name}/recipe.yaml'))} output_dir=NEW",
        "settings": {key: printable(str(value)) for key, value in flat(recipe).items()},
        "versions": summary.get("versions", {}),
    }


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to `a.b` -> value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        is_section = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if is_section else {f"{prefix}{key}": value}
    return found


def _answer(summary: Mapping[str, Any], metric: str | None) -> dict[str, Any] | None:
    """Find the score that counts: that of the metric on the last split, with its interval and the best baseline."""
    split = next(reversed(list(summary["metrics"])), None)
    if split is None or metric is None or metric not in summary["metrics"][split]:
        return None
    value = summary["metrics"][split][metric]
    margin = summary.get("margins", {}).get(split, {}).get(metric)
    baselines = {name: of[metric] for name, of in summary.get("baselines", {}).get(split, {}).items() if metric in of}
    return {
        "split": split,
        "metric": metric,
        "value": value,
        "margin": margin,
        "rows": summary.get("data", {}).get(split, {}).get("rows"),
        "baselines": baselines,
    }


def _scores(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List every split and, on each, every baseline with its scores."""
    found = []
    for split, values in reversed(summary["metrics"].items()):
        margins = summary.get("margins", {}).get(split, {})
        found.append({"split": split, "name": "this run", "values": values, "margins": margins})
        for name, of in summary.get("baselines", {}).get(split, {}).items():
            title = name.replace("_", " ").replace("tfidf", "TF-IDF")
            found.append({"split": split, "name": f"baseline: {title}", "values": of, "margins": {}})
    return found


def _curves(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collect loss, learning rates and validation scores over the steps: name -> [[step, value], ...]."""
    losses: Curve = [[one["step"], one["loss"]] for one in records if "loss" in one]
    rates: dict[str, Curve] = {}
    validation: dict[str, Curve] = {}
    for one in records:
        for name, rate in one.get("learning_rates", {}).items():
            rates.setdefault(name, []).append([one["step"], rate])
        for name, score in one.get("validation", {}).items():
            validation.setdefault(name, []).append([one["step"], score])
    return {"loss": losses, "learning_rates": rates, "validation": validation}


def _phases(summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """List the phases: the step that each began after, which layers train, and why it began.

    Runs of older versions say only in which phase each record lies.
    """
    if "phases" in summary:
        return [{**phase, "why": printable(phase["why"])} for phase in summary["phases"]]
    found: list[dict[str, Any]] = []
    before = 0
    for one in records:
        if "phase" in one and one["phase"] > len(found):
            found.append({"step": before, "layers": "", "why": ""})
        before = one["step"]
    return found


def _layers(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """Collect what was recorded of each layer: quantity -> layer -> [[step, value], ...]."""
    found: dict[str, dict[str, Curve]] = {}
    for quantity in SHOWN_OF_LAYERS:
        for one in records:
            for layer, value in one.get(quantity, {}).items():
                found.setdefault(quantity, {}).setdefault(layer, []).append([one["step"], value])
    return found


def _step_time(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Compute the share of each part in the time of the sampled steps: part -> share."""
    seconds: dict[str, float] = {}
    for one in records:
        for part, value in one.get("seconds", {}).items():
            seconds[part] = seconds.get(part, 0.0) + value
    total = sum(seconds.values())
    return {part: value / total for part, value in seconds.items()} if total > 0 else {}


def _data(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List what is known of each split that is a single number."""
    return [
        {"split": split, **{key: _whole(value) for key, value in of.items() if isinstance(value, int | float)}}
        for split, of in summary.get("data", {}).items()
    ]


def _cost(summary: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "train_seconds",
        "total_seconds",
        "train_examples_per_second",
        "peak_memory_bytes",
        "num_parameters",
        "num_trainable_parameters",
        "global_step",
        "best_step",
        "effective_batch_size",
        "num_processes",
        "device",
        "precision",
    )
    return {name: summary[name] for name in names if summary.get(name) is not None}


def _has_lengths(summary: Mapping[str, Any], split: str) -> bool:
    return "median_tokens" in summary.get("data", {}).get(split, {})


def _whole(value: float) -> float:
    return int(value) if float(value).is_integer() else value


def _setting(recipe: Mapping[str, Any], key: str) -> Any:
    return flat(recipe).get(key)
