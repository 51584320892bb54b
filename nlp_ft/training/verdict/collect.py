"""Collects the facts of a run from its objects."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.defaults import LR
from nlp_ft.layerwise import LayerMap
from nlp_ft.layerwise.unfreezing.triggers import LOWER_IS_BETTER
from nlp_ft.recipe.derived import LORA_RATIO
from nlp_ft.tasks.baselines import TITLES
from nlp_ft.tasks.outputs import Outputs, Predictions
from nlp_ft.training.build import RunParts, with_rates
from nlp_ft.training.loop_state import LoopState
from nlp_ft.training.verdict.facts import Facts, Rate, SplitFacts
from nlp_ft.training.verdict.judge import judge

USUAL_RATES = {"adamw": (1e-5, 5e-4), "adafactor": (1e-5, 1e-3), "lion": (1e-6, 1e-4), "sgd": (1e-3, 0.1)}
"""Optimizer -> lowest and highest usual rate of pretrained layers."""
SGD_RATE = 1e-2
"""A rate of SGD to try, since none is derived."""
OF_HEAD = 50
"""Factor from the usual rates of pretrained layers to those of a head that trains alone."""
SAME = 0.99
"""Share of the rows with one answer, from which all rows count as answered alike."""


def verdict_of_run(
    parts: RunParts,
    state: LoopState,
    predictions: Mapping[str, Predictions],
    summary: Mapping[str, Any],
    metrics: str,
) -> list[dict[str, str]]:
    """Judge a finished run.

    Args:
        parts: its objects, with the trained model.
        state: the state at its end.
        predictions: split -> predictions; `train` is a sample.
        summary: what summary.json holds so far, with `baselines` and `data`.
        metrics: the text of metrics.jsonl; empty on processes other than the main one.

    Returns:
        The remarks, each as `code`, `says` and `do`; none where `metrics` is empty.
    """
    if not metrics:
        return []
    recipe, task, layered = parts.recipe, parts.task, parts.layered
    assert recipe.training.duration is not None  # the recipe of a run is complete
    outputs = task.outputs
    records = [json.loads(line) for line in metrics.splitlines()]
    metric = recipe.training.metric
    spoken = next((split for split in ("test", "validation") if split in predictions), "")
    facts = Facts(
        metric=metric,
        plain_metric=outputs.shown_metrics[0],
        correlation=outputs.correlation,
        lower_is_better=metric.endswith(LOWER_IS_BETTER),
        splits={split: _split_facts(outputs, of) for split, of in predictions.items()},
        margins={split: _margins(outputs, of) for split, of in predictions.items()},
        baselines={TITLES.get(name, name): of for name, of in summary["baselines"].get(spoken, {}).items()},
        losses=[(record["step"], record["loss"]) for record in records if "loss" in record],
        evaluations=[(record["step"], record["validation"]) for record in records if "validation" in record],
        steps_per_epoch=parts.settings.steps_per_epoch,
        duration=recipe.training.duration,
        stopped_early=state.stopped_early,
        rate=highest_rate(parts),
        random_layers=random_layers(layered.model, layered.layer_map),
        report=summary["data"],
        inputs=task.inputs,
        max_length=getattr(recipe.data, "max_length", None),
        class_weights=recipe.loss.class_weights is not None,
    )
    return [asdict(remark) for remark in judge(facts)]


def random_layers(model: torch.nn.Module, layer_map: LayerMap) -> list[str]:
    """Name the frozen layers below the head whose weights were never trained.

    New weights show it: all biases of a layer are 0, and all weights of its norms 1. A layer with fewer than two such
    vectors is not named.
    """
    names = []
    for layer_id in range(layer_map.head_layer):
        parameters = layer_map.parameters(layer_id).values()
        vectors = [parameter.detach() for parameter in parameters if parameter.ndim == 1 and parameter.numel() > 1]
        is_frozen = not any(parameter.requires_grad for parameter in parameters)
        if is_frozen and len(vectors) > 1 and all(bool((vector == vector[0]).all()) for vector in vectors):
            names.append(layer_map.layer_name(layer_id))
    return names


def _split_facts(outputs: Outputs, of: Predictions) -> SplitFacts:
    return SplitFacts(
        rows=len(of.references),
        scores=_known(of),
        constant_loss=outputs.constant_loss(of.references),
        is_constant=_is_constant(of.predicted, of.references),
        references=outputs.counts(of.references),
        predicted=outputs.counts(of.predicted),
    )


def _is_constant(predicted: np.ndarray, references: np.ndarray) -> bool:
    if np.issubdtype(predicted.dtype, np.floating):
        # Of several values in a row, each is compared with itself in other rows.
        return bool(predicted.std(0).mean() < (1 - SAME) * references.std(0).mean())
    # A row may have several answers, filled up to the same number for all rows.
    given = predicted[references != IGNORED_LABEL]
    return bool(np.unique(given, return_counts=True)[1].max() >= SAME * len(given))


def _margins(outputs: Outputs, of: Predictions) -> dict[str, float]:
    rows = len(of.references)
    return {metric: outputs.margin(metric, value, rows) for metric, value in _known(of).items()}


def _known(of: Predictions) -> dict[str, float]:
    """Compute the scores; a correlation with a constant, which is NaN, counts as 0."""
    return {metric: 0.0 if math.isnan(value) else value for metric, value in of.scores().items()}


def highest_rate(parts: RunParts) -> Rate:
    """Find the highest rate among the pretrained layers that train; if none does, that of the head."""
    recipe, head = parts.recipe, parts.layered.layer_map.head_layer
    groups = [group for group in parts.optimizer.param_groups if any(p.requires_grad for p in group["params"])]
    (low, high), suggested = USUAL_RATES[recipe.optimizer.name], SGD_RATE
    if recipe.strategy.probe is not None:  # it has no rate, which could be too high or too low
        return Rate("optimizer.lr", low, low, high, low)
    if recipe.optimizer.name != "sgd":
        section = recipe.optimizer.model_copy(update={"lr": None, "head_lr": None})
        rated = with_rates(recipe.model_copy(update={"optimizer": section}), parts.task, parts.layered)
        suggested = rated.optimizer.lr or LR
    if recipe.strategy.lora is not None:
        low, high = LORA_RATIO * low, LORA_RATIO * high
    below = [group["initial_lr"] for group in groups if group["layer_id"] < head]
    if below:
        return Rate("optimizer.lr", max(below), low, high, suggested)
    setting = "optimizer.lr" if recipe.optimizer.head_lr is None else "optimizer.head_lr"
    value = max((group["initial_lr"] for group in groups), default=LR)
    return Rate(setting, value, OF_HEAD * low, OF_HEAD * high, suggested, "a head that trains alone")
