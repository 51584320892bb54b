"""Compares an exported model with the original on real rows: logits, predictions, scores and speed."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nlp_ft.data.batch import model_inputs, output_logits
from nlp_ft.layerwise.eval_mode import evaluating
from nlp_ft.prediction.predict import evaluate_trained
from nlp_ft.prediction.trained_run import TrainedRun
from nlp_ft.study.statistics import deviations, groups_of, over_rows, without_each
from nlp_ft.tasks.outputs import Predictions
from nlp_ft.tasks.task import Data

ROWS_TIMED = 256
BATCH_SIZE = 32


@dataclass(frozen=True)
class Check:
    """What an export costs and gains, on the rows of one split.

    Args:
        rows: number of the rows.
        largest_difference: of the logits, on at most 256 rows.
        changed: share of the predictions that are not those of the original.
        metric: the metric that chose the run.
        before: its value with the original, in float32.
        after: its value with the export.
        interval: 95 % interval of the difference `after - before` over rows.
        rows_per_second_before: the original's speed, in the same batches and in the precision of `predict`.
        rows_per_second_after: the export's speed.
    """

    rows: int
    largest_difference: float
    changed: float
    metric: str
    before: float
    after: float
    interval: tuple[float, float]
    rows_per_second_before: float
    rows_per_second_after: float


def batches(run: TrainedRun, data: Data, split: str, most: int) -> Iterator[dict[str, torch.Tensor]]:
    """Make batches of the first rows of a split, the longest first, as inputs of the model."""
    lengths = data.lengths(split)[:most]
    order, collator = np.argsort(-lengths, kind="stable"), run.collator()
    for start in range(0, len(order), BATCH_SIZE):
        rows = [data.encoded[split][int(row)] for row in order[start : start + BATCH_SIZE]]
        yield model_inputs(collator([{**values, "row": number} for number, values in enumerate(rows)]))


def compared(original: TrainedRun, exported: TrainedRun, data: str | None, split: str) -> Check:
    """Compare two loaded runs on a split of the recipe, or on labelled files. Raises: NlpFtError: rows, see `eval`.

    Logits, predictions and scores of the original are those in float32, and its speed is that of `predict`, which may
    compute in bf16.
    """
    rows = original.labelled(data, split)
    inputs = list(batches(original, rows, split, ROWS_TIMED))
    difference = _largest_difference(original.model, exported.model, inputs)
    seconds_before, seconds_after = _raced(original, exported, inputs)
    timed = sum(len(next(iter(batch.values()))) for batch in inputs)
    # With the thresholds of the run, which those tuned on these very rows would hide.
    before, after = (
        replace(evaluate_trained(run, data, split), outputs=original.outputs)
        for run in (_in_float32(original), exported)
    )
    metric = original.recipe.training.metric
    return Check(
        rows=len(before.references),
        largest_difference=difference,
        changed=_changed(before, after),
        metric=metric,
        before=before.scores()[metric],
        after=after.scores()[metric],
        interval=_interval(before, after, metric),
        rows_per_second_before=timed / seconds_before,
        rows_per_second_after=timed / seconds_after,
    )


def _in_float32(run: TrainedRun) -> TrainedRun:
    found = copy(run)
    training = run.recipe.training.model_copy(update={"precision": "fp32"})
    found.recipe = run.recipe.model_copy(update={"training": training})
    return found


def _largest_difference(
    original: torch.nn.Module, exported: torch.nn.Module, inputs: Sequence[dict[str, torch.Tensor]]
) -> float:
    with evaluating(original), torch.inference_mode():
        pairs = [[output_logits(model(**batch)).float() for model in (original, exported)] for batch in inputs]
    return max(float((before - after).abs().max()) for before, after in pairs)


def _raced(
    original: TrainedRun, exported: TrainedRun, inputs: Sequence[dict[str, torch.Tensor]]
) -> tuple[float, float]:
    """Compute every batch with both in turn, because what else the machine does then slows both.

    Returns:
        The seconds of the original, and those of the export; a first batch is not timed.
    """
    seconds = [0.0, 0.0]
    with original.computing() as first, exported.computing() as second:
        for compute in (first, second):
            compute(inputs[0])
        for batch in inputs:
            for number, compute in enumerate((first, second)):
                begun = time.perf_counter()
                compute(batch).cpu()
                seconds[number] += time.perf_counter() - begun
    return seconds[0], seconds[1]


def _changed(before: Predictions, after: Predictions) -> float:
    """Compute the share of rows whose prediction, as people see it, is another one."""
    shown = [of.outputs.shown(of.predicted).to_pylist() for of in (before, after)]
    return float(np.mean([not _is_same(a, b) for a, b in zip(*shown, strict=True)]))


def _is_same(a: Any, b: Any) -> bool:
    """Compare what is predicted; numbers may differ by a thousandth, and how sure the model is does not count."""
    if isinstance(a, float):
        return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_is_same, a, b))
    if isinstance(a, dict):
        return all(_is_same(a[name], b[name]) for name in a if name != "score")
    return bool(a == b)


def _interval(before: Predictions, after: Predictions, metric: str) -> tuple[float, float]:
    """Bound the difference of the scores on new rows like these, by the paired bootstrap."""
    groups = groups_of(range(len(before.references)))

    def scores(predictions: Predictions) -> tuple[float, np.ndarray]:
        def score(rows: np.ndarray) -> float:
            if metric == "loss":
                return float(predictions.losses[rows].mean())
            found: Mapping[str, float] = predictions.outputs.score(
                predictions.predicted[rows], predictions.references[rows]
            )
            return found[metric]

        return predictions.scores()[metric], without_each(score, groups)

    (a, a_without), (b, b_without) = scores(before), scores(after)
    return over_rows(np.array([b - a]), deviations(np.array([b - a]), (b_without - a_without)[None]))
