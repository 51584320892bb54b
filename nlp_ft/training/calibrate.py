"""Calibrates a trained model: one temperature, fitted on validation, divides its logits.

Guo et al. 2017, https://arxiv.org/abs/1706.04599. The last layer is linear, so dividing its weights divides the logits:
whatever computes the saved model gives calibrated probabilities, and needs to know nothing.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from nlp_ft.models.scaling import output_layer
from nlp_ft.report.calibration import calibration
from nlp_ft.screen import show
from nlp_ft.training.evaluation import Evaluator

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures that are tried."""
HALVINGS = 60
SAME_SHARE = 0.05
"""Difference of a probability that half precision may cause."""


def calibrate(method: str | None, model: PreTrainedModel, evaluator: Evaluator) -> dict[str, Any]:
    """Fit a temperature on validation and divide the last layer of the model by it, in place; collective.

    Args:
        method: `training.calibration` of the recipe; None changes nothing.
        model: the trained model.
        evaluator: evaluates this model on the splits of the run.

    Returns:
        `calibration`: `temperature`, and the expected calibration error of each split but train, `ece_before` and
        `ece_after`; empty if nothing was changed.
    """
    outputs = evaluator.outputs.undecided()
    if method is None or outputs is None:
        return {}
    reader = replace(evaluator, outputs=outputs)
    found = {split: reader.predict(split) for split in evaluator.data.encoded if split != "train"}
    temperature = fit_temperature(found["validation"].predicted, found["validation"].references)
    if not _divide(model, temperature, reader):
        show(f"warning: no calibration: the logits of {type(model).__name__} do not come from a last linear layer")
        return {}
    errors = {
        f"ece_{name}": {split: ece(of.predicted / divisor, of.references) for split, of in found.items()}
        for name, divisor in (("before", 1.0), ("after", temperature))
    }
    return {"calibration": {"temperature": temperature, **errors}}


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature with the least mean cross-entropy of `logits / temperature`.

    The cross-entropy is convex in the inverse of the temperature, so halving finds where its slope is 0.

    Args:
        logits: (rows, labels); minus infinity for a label that a row lacks.
        labels: the id of the right label of each row, (rows,).

    Returns:
        A number from `LOWEST` to `HIGHEST`; 1 if every row is right, for then no temperature is the best.
    """
    finite = np.maximum(logits.astype(np.float64), np.finfo(np.float32).min)
    of_right = finite[np.arange(len(labels)), labels]
    if (of_right >= finite.max(1)).all():
        return 1.0

    def slope(inverse: float) -> float:
        return float(((shares(inverse * finite) * finite).sum(1) - of_right).mean())

    low, high = np.log(1 / HIGHEST), np.log(1 / LOWEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(np.exp(middle)) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def shares(logits: np.ndarray) -> np.ndarray:
    """Compute the softmax of each row, (rows, labels)."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    found: np.ndarray = powers / powers.sum(1, keepdims=True)
    return found


def ece(logits: np.ndarray, labels: np.ndarray) -> float:
    """Compute the expected calibration error of logits, (rows, labels), for label ids, (rows,)."""
    found = shares(logits.astype(np.float64))
    error: float = calibration(found.max(1).tolist(), (found.argmax(1) == labels).tolist())["ece"]
    return error


@torch.no_grad()
def _divide(model: PreTrainedModel, temperature: float, reader: Evaluator) -> bool:
    """Divide the last layer, and see on a sample of validation that the logits are divided; else undo it."""
    layer = output_layer(model, len(model.config.id2label or {}))
    if layer is None:
        return False
    expected = shares(reader.predict_sample("validation").predicted / temperature)
    before = [parameter.clone() for parameter in layer.parameters()]
    for parameter in layer.parameters():
        parameter.div_(temperature)
    # Written so that a difference that is no number is none too small.
    if (np.abs(shares(reader.predict_sample("validation").predicted) - expected) <= SAME_SHARE).all():
        return True
    for parameter, values in zip(layer.parameters(), before, strict=True):
        parameter.copy_(values)
    return False
