"""Losses as a sum and a divisor, so that accumulation over uneven batches is exact."""

import math
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

    def of_rows(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the plain loss of each row of a part, without weights and smoothing, (batch,); NaN without labels."""
        ...


class ClassificationLoss:
    """Weighted, smoothed cross-entropy of an effective batch that arrives in parts.

    The mean over the effective batch is the sum of `total` over its parts, divided by the sum of `weight` over them;
    with one part and label ids it equals `torch.nn.functional.cross_entropy`, which does not divide by class weights
    where labels are probabilities.

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

    def of_rows(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the plain loss of each row, (batch,); NaN for a row without a label, or mixed of two rows."""
        if labels.is_floating_point():
            return logits.new_full((len(logits),), math.nan)
        losses = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED_LABEL, reduction="none")
        return losses.masked_fill(labels == IGNORED_LABEL, math.nan)

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

    def of_rows(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the mean loss of each row over its labelled tokens, (batch,); NaN for a row without any."""
        return super().of_rows(logits.flatten(0, 1), labels.flatten()).view(labels.shape).nanmean(-1)


class BinaryLoss:
    """Binary cross-entropy of each label, for an effective batch that arrives in parts, as `ClassificationLoss` is.

    With one part it equals `torch.nn.functional.binary_cross_entropy_with_logits`, the mean over rows and labels.

    Args:
        positive_weights: weight of the rows that have a label, (num_labels,); None weights all rows equally.
        label_smoothing: share of a target that is spread evenly over 0 and 1, in [0, 1).
    """

    def __init__(self, positive_weights: torch.Tensor | None = None, label_smoothing: float = 0.0) -> None:
        self.positive_weights = positive_weights
        self.label_smoothing = label_smoothing

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum the loss over one part: logits and labels, which are 0 or 1, (batch, num_labels); -100 is left out."""
        if self.positive_weights is not None:
            self.positive_weights = self.positive_weights.to(logits.device)
        smoothed = labels.float() * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = F.binary_cross_entropy_with_logits(
            logits.float(), smoothed, pos_weight=self.positive_weights, reduction="none"
        )
        return losses.where(labels != IGNORED_LABEL, 0).sum()

    def weight(self, labels: torch.Tensor) -> torch.Tensor:
        """Count the labels of one part that are not left out, those that a row has and those that it has not."""
        return (labels != IGNORED_LABEL).sum().float()

    def of_rows(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the plain mean loss of each row over its labels, (batch,); NaN for a row without any."""
        losses = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none")
        return losses.masked_fill(labels == IGNORED_LABEL, math.nan).nanmean(-1)


class SpanLoss:
    """Cross-entropy of the first and of the last token of an answer, their mean; see `span_losses`.

    It is for an effective batch that arrives in parts, as `ClassificationLoss` is for labels.
    """

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum the loss over one part: logits (batch, seq_len, 2), labels (batch, seq_len)."""
        is_known = _has_span(labels)
        # Without a row to learn from, the sum is 0, but still depends on the parameters, as other processes expect.
        return span_losses(logits[is_known], labels[is_known]).sum() if is_known.any() else 0.0 * logits.sum()

    def weight(self, labels: torch.Tensor) -> torch.Tensor:
        """Count the rows of one part that have something to learn."""
        return _has_span(labels).sum().float()

    def of_rows(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute `span_losses`, (batch,)."""
        return span_losses(logits, labels)


def span_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the loss of each row, (batch,): the mean of the cross-entropies of the start and the end of an answer.

    Tokens that cannot be in an answer take no part, so padding and the question do not change the loss.

    Args:
        logits: (batch, seq_len, 2), of the start and of the end.
        labels: (batch, seq_len): 0 for a token that may be in an answer, 1 for the first token of the answer, 2 for
            the last, 3 for both; -100 for other tokens. A row without first token has the loss NaN.
    """
    shares = logits.float() if logits.dtype != torch.float64 else logits
    shares = shares.masked_fill((labels == IGNORED_LABEL)[..., None], -math.inf).log_softmax(1)
    bits = labels.clamp(min=0)
    places = torch.stack([bits & 1, bits >> 1], -1).argmax(1)
    losses = -shares.gather(1, places[:, None]).squeeze(1).mean(-1)
    return losses.masked_fill(~_has_span(labels), math.nan)


def _has_span(labels: torch.Tensor) -> torch.Tensor:
    return (labels.clamp(min=0) & 1).any(1)


class ChoiceLoss:
    """Cross-entropy of the right candidate of each row, see `choice_losses`, for an effective batch in parts."""

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum the loss over one part: logits and labels (batch, candidates)."""
        return choice_losses(logits, labels).sum()

    def weight(self, labels: torch.Tensor) -> torch.Tensor:
        """Count the rows of one part that have a right candidate."""
        return (labels == 1).sum().float()

    def of_rows(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute `choice_losses`, (batch,); NaN for a row without a right candidate."""
        return choice_losses(logits, labels).masked_fill(~(labels == 1).any(-1), math.nan)


def choice_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the cross-entropy of the right candidate of each row, (batch,); 0 for a row without one.

    Args:
        logits: a score for each candidate, (batch, candidates).
        labels: (batch, candidates): 1 for the right candidate, 0 for the others, -100 where a row has no candidate.
    """
    return -(choice_log_shares(logits, labels) * (labels == 1)).sum(-1)


def choice_log_shares(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the logarithms of the probabilities of all candidates, (batch, candidates); see `choice_losses`."""
    scores = logits.float() if logits.dtype != torch.float64 else logits
    return scores.masked_fill(labels == IGNORED_LABEL, torch.finfo(scores.dtype).min).log_softmax(-1)


class SquaredLoss:
    """Squared error of an effective batch that arrives in parts, as `ClassificationLoss` is for labels.

    The model learns numbers less their mean, in units of their deviation.

    Args:
        means: of each number, (numbers,); None stands for 0.
        deviations: of each number, above 0, (numbers,); None stands for 1.
    """

    def __init__(self, means: torch.Tensor | None = None, deviations: torch.Tensor | None = None) -> None:
        self.means = torch.zeros(1) if means is None else means
        self.deviations = torch.ones(1) if deviations is None else deviations

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum the loss over one part: logits (batch, numbers), labels of as many values; -100 is left out."""
        squares = self._squares(logits, labels)
        return squares.where(labels.view_as(logits) != IGNORED_LABEL, 0).sum()

    def weight(self, labels: torch.Tensor) -> torch.Tensor:
        """Count the numbers of one part that are not left out."""
        return (labels != IGNORED_LABEL).sum().float()

    def of_rows(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the mean squared error of each row over its numbers, (batch,); NaN for a row without any."""
        squares = self._squares(logits, labels)
        return squares.masked_fill(labels.view_as(logits) == IGNORED_LABEL, math.nan).nanmean(-1)

    def _squares(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.means, self.deviations = self.means.to(logits.device), self.deviations.to(logits.device)
        return (logits.float() - (labels.view_as(logits) - self.means) / self.deviations).square()
