"""Scores the chosen cells on test, each once, and keeps what the statistics need: scores without each group of rows."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from nlp_ft.prediction.predict import evaluate_trained, load_run
from nlp_ft.study.cells import TEST, Cell, Plan
from nlp_ft.study.running import summary_of
from nlp_ft.study.statistics import groups_of, without_each
from nlp_ft.tasks.outputs import Predictions
from nlp_ft.training import durable

SPLIT = "test"


def scored_on_test(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Score a cell on test; a second call reads what the first one has written.

    Returns:
        `scores`: metric -> value; `without`: the compared metric without each group of rows, (groups,); `hits`: 1 for
        each row whose prediction is right, where accuracy is the metric, else null; `rows`: their number.

    Raises:
        NlpFtError: the run or the rows cannot be read.
    """
    file, weights = plan.folder / TEST / f"{cell.name}.json", summary_of(plan, cell)["weights_hashes"]
    stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if stored.get("weights") != weights:  # there are none yet, or the cell was trained anew
        run = load_run(plan.folder_of(cell), getattr(plan.recipe.model, "trust_remote_code", False))
        run.recipe = run.recipe.model_copy(update={"data": plan.recipe.data})
        stored = {"weights": weights, **_described(plan, evaluate_trained(run, None, SPLIT))}
        durable.write_text(file, json.dumps(stored) + "\n")
    return dict(stored)


def _described(plan: Plan, predictions: Predictions) -> dict[str, Any]:
    metric, outputs = plan.metric, predictions.outputs

    def score(rows: np.ndarray) -> float:
        if metric == "loss":
            return float(predictions.losses[rows].mean())
        return _known(outputs.score(predictions.predicted[rows], predictions.references[rows])[metric])

    groups = groups_of(clusters(plan, predictions))
    hits = None
    if metric == "accuracy" and predictions.predicted.ndim == 1:
        hits = (predictions.predicted == predictions.references).astype(int).tolist()
    return {
        "rows": len(predictions.references),
        "scores": {name: _known(value) for name, value in predictions.scores().items()},
        "without": without_each(score, groups).tolist(),
        "hits": hits,
    }


def clusters(plan: Plan, predictions: Predictions) -> list[object]:
    """Say for each test row which others it belongs with: those of the same context, or with the same inputs."""
    table = predictions.inputs(np.arange(len(predictions.references)))
    columns = ["context"] if hasattr(plan.recipe.data, "context") else table.column_names[1:]
    rows: list[Mapping[str, Any]] = table.select(columns).to_pylist()
    return [json.dumps(row, sort_keys=True, default=str) for row in rows]


def _known(value: float) -> float:
    """Count a correlation with a constant, which is NaN, as 0."""
    return 0.0 if value != value else float(value)
