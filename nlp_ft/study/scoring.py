"""Scores the chosen cells on test, each once, and keeps what the statistics need: scores without each group of rows."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from nlp_ft.errors import DataError
from nlp_ft.prediction.predict import evaluate_trained, load_run
from nlp_ft.study.cells import TEST, Cell, Plan
from nlp_ft.study.folder import MADE_ANEW, read_object
from nlp_ft.study.statistics import groups_of, without_each
from nlp_ft.tasks.outputs import Predictions
from nlp_ft.training import durable
from nlp_ft.training.run_folder import SUMMARY

SPLIT = "test"
SCORED = {"rows", "scores", "without", "hits"}


def scored_on_test(plan: Plan, cell: Cell, data_hash: str) -> dict[str, Any]:
    """Score a cell on test; a second call reads what the first one has written.

    Args:
        plan: the comparison.
        cell: a finished cell.
        data_hash: hash of the test rows.

    Returns:
        `scores`: metric -> value; `without`: the compared metric without each group of rows, (groups,); `hits`: 1 for
        each row whose prediction is right, where accuracy is the metric, else null; `rows`: their number.

    Raises:
        NlpFtError: the run or the rows cannot be read.
    """
    file = plan.folder / TEST / f"{cell.name}.json"
    stored = read_object(file, MADE_ANEW) if file.exists() else {}
    # The summary of a run is that of no other one: it holds the seconds.
    known = {"run": durable.content_hash(plan.folder_of(cell) / SUMMARY), "data": data_hash}
    # There are none yet, or the cell was trained anew, or test has changed.
    if SCORED - stored.keys() or any(stored.get(key) != value for key, value in known.items()):
        run = load_run(plan.folder_of(cell), getattr(plan.recipe.model, "trust_remote_code", False))
        run.recipe = run.recipe.model_copy(update={"data": plan.recipe.data})
        stored = {**known, **_described(plan, evaluate_trained(run, None, SPLIT))}
        durable.write_text(file, json.dumps(stored) + "\n")
    return dict(stored)


def _described(plan: Plan, predictions: Predictions) -> dict[str, Any]:
    metric, outputs = plan.metric, predictions.outputs

    def score(rows: np.ndarray) -> float:
        if metric == "loss":
            return float(predictions.losses[rows].mean())
        return _known(outputs.score(predictions.predicted[rows], predictions.references[rows])[metric])

    rows = len(predictions.references)
    if rows < 2:
        raise DataError("data.test has a single row, which says nothing of others; it takes two or more")
    groups = groups_of(clusters(plan, predictions))
    hits = right_rows(predictions, metric)
    return {
        "rows": rows,
        "scores": {name: _known(value) for name, value in predictions.scores().items()},
        "without": without_each(score, groups).tolist(),
        "hits": None if hits is None else hits.astype(int).tolist(),
    }


def right_rows(predictions: Predictions, metric: str) -> np.ndarray | None:
    """Say which rows are right, (rows,), booleans, where the metric is the share of these; else None."""
    predicted, references = predictions.predicted, predictions.references
    if metric != "accuracy" or predicted.ndim != 1:
        return None
    if predicted.dtype != object:
        return np.asarray(predicted == references)
    # A choice among candidates does not equal its reference, which has all of them.
    score = predictions.outputs.score
    rows = [slice(row, row + 1) for row in range(len(references))]
    scores = np.array([score(predicted[row], references[row])[metric] for row in rows])
    # The accuracy of tags is no share of rows.
    return scores == 1 if np.isin(scores, (0, 1)).all() else None


def clusters(plan: Plan, predictions: Predictions) -> list[object]:
    """Say for each test row which others it belongs with: those of the same context, or with the same inputs."""
    table = predictions.inputs(np.arange(len(predictions.references)))
    columns = ["context"] if hasattr(plan.recipe.data, "context") else table.column_names[1:]
    rows: list[Mapping[str, Any]] = table.select(columns).to_pylist()
    found: list[object] = [json.dumps(row, sort_keys=True, default=str) for row in rows]
    # One passage for all questions: the interval is over other questions about it.
    return found if len(set(found)) > 1 else list(range(len(rows)))


def _known(value: float) -> float:
    """Count a correlation with a constant, which is NaN, as 0."""
    return 0.0 if value != value else float(value)
