"""The loss that a saved classifier returns for labels, by its `problem_type`; a loop outside nlp_ft trains with it."""

import torch
from torch.nn import functional as F
from transformers import PreTrainedConfig


def loss_of_labels(
    config: PreTrainedConfig, logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
) -> torch.Tensor:
    """Compute the mean loss, over the given labels or over those of the whole effective batch.

    As in Transformers, a missing `problem_type` follows from the labels: regression if there is one output, several
    labels for each row if the labels are floats, else one label for each row.

    Args:
        config: holds `problem_type`: `single_label_classification`, `multi_label_classification` or `regression`.
        logits: (batch, num_labels).
        labels: for one label, ids (batch,), where -100 is left out; for several labels, 0 to 1 for each label, (batch,
            num_labels); for regression, numbers (batch,) or (batch, num_labels).
        num_items_in_batch: number of labels in the effective batch, by which the sum is divided; None takes the mean.
    """
    kind = config.problem_type or _problem_type(logits, labels)
    reduction = "mean" if num_items_in_batch is None else "sum"
    if kind == "regression":
        total = F.mse_loss(logits.float().view_as(labels), labels.float(), reduction=reduction)
    elif kind == "multi_label_classification":
        total = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction=reduction)
    else:
        total = F.cross_entropy(logits.float(), labels, reduction=reduction)
    return total if num_items_in_batch is None else total / num_items_in_batch


def _problem_type(logits: torch.Tensor, labels: torch.Tensor) -> str:
    if logits.shape[-1] == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
