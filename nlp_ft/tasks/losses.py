"""Losses as a sum and a divisor, so that accumulation over uneven batches is exact."""

from typing import Protocol

import torch
from torch.nn import functional as F

from nlp_ft.data.batch import IGNORED_LABEL


class Loss(Protocol):
    """The loss of an effective batch that arrives in parts: the sum of `total` over the sum of `weight`."""

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum the loss over one part; logits and labels begin with (batch, ...)."""
        ...

    def weight(self, labels: torch.Tensor) -> torch.Tensor:
        """Compute what one part adds to the divisor."""
        ...


class ClassificationLoss:
    """Weighted, smoothed cross-entropy of an effective batch that arrives in parts.

    The mean over the effective batch is the sum of `total` over its parts, divided by the sum of `weight` over them;
    with one part it equals `torch.nn.functional.cross_entropy`.

    Args:
        class_weights: weight of each label, (num_labels,); None weights all labels equally.
        label_smoothing: share of the target spread over all labels, in [0, 1).
    """

    def __init__(self, class_weights: torch.Tensor | None = None, label_smoothing: float = 0.0) -> None:
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum the loss over one part.

        Args:
            logits: (batch, num_labels).
            labels: label ids, (batch,), where -100 is left out; or the probability of each label, (batch, num_labels),
                where rows of zeros are left out.
        """
        if labels.is_floating_point():
            return self._total_of_shares(logits, labels)
        losses = F.cross_entropy(
            logits.float(),
            labels,
            weight=self._class_weights(logits.device),
            label_smoothing=self.label_smoothing,
            ignore_index=IGNORED_LABEL,
            reduction="none",
        )
        return losses.sum()

    def weight(self, labels: torch.Tensor) -> torch.Tensor:
        """Compute what one part adds to the divisor: the sum of the class weights of its labels."""
        if labels.is_floating_point():
            weights = self._class_weights(labels.device)
            return (labels if weights is None else labels * weights).sum()
        return self._weights(labels).sum()

    def _total_of_shares(self, logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        losses = F.cross_entropy(
            logits.float(),
            shares,
            weight=self._class_weights(logits.device),
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        return (losses * (shares.sum(-1) > 0)).sum()

    def _weights(self, labels: torch.Tensor) -> torch.Tensor:
        present = (labels != IGNORED_LABEL).float()
        weights = self._class_weights(labels.device)
        return present if weights is None else present * weights[labels.clamp(min=0)]

    def _class_weights(self, device: torch.device) -> torch.Tensor | None:
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(device)
        return self.class_weights


class TagLoss(ClassificationLoss):
    """`ClassificationLoss` of tags: logits are (batch, seq_len, num_labels) and label ids (batch, seq_len)."""

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum the loss over the tokens of one part; those with the label -100 are left out."""
        return super().total(logits.flatten(0, 1), labels.flatten())


class SquaredLoss:
    """Squared error of an effective batch that arrives in parts, as `ClassificationLoss` is for labels."""

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum the loss over one part: logits (batch, 1), numbers (batch,); rows with -100 are left out."""
        return (_squares(logits, labels) * (labels != IGNORED_LABEL)).sum()

    def weight(self, labels: torch.Tensor) -> torch.Tensor:
        """Count the rows of one part that are not left out."""
        return (labels != IGNORED_LABEL).sum().float()


def _squares(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (logits.float().squeeze(-1) - labels).square()
