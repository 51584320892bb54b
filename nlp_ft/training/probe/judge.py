"""Judges the outputs of a linear model as the evaluation of the run does, with the metric of the run."""

from dataclasses import dataclass

import numpy as np
import torch

from nlp_ft.data.windows import Windows
from nlp_ft.layerwise.unfreezing.triggers import LOWER_IS_BETTER
from nlp_ft.tasks.outputs import Outputs
from nlp_ft.training.probe.fit import accuracy


@dataclass(frozen=True)
class Judge:
    """The metric of a run, on outputs and labels of rows.

    Args:
        outputs: the meaning of the outputs.
        metric: the metric.
    """

    outputs: Outputs
    metric: str

    @property
    def sign(self) -> int:
        """Factor that makes a higher value of the metric the better one."""
        return -1 if self.metric.endswith(LOWER_IS_BETTER) else 1

    def as_outputs(self, labels: np.ndarray) -> np.ndarray:
        """Convert numbers of the data, (rows, ...), into outputs of a model that is right; labels stay as they are."""
        if not np.issubdtype(labels.dtype, np.floating):
            return labels
        zero, one = self._ends(labels)
        return np.asarray((labels - zero) / (one - zero), dtype=np.float64)

    def score(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Compute the metric, or its negative where lower is better.

        Args:
            logits: outputs, (rows, outputs).
            labels: what `as_outputs` gives, (rows, ...).
        """
        if self.metric == "accuracy":
            return accuracy(logits, labels)  # the outputs compute all metrics, which takes five times as long as a fit
        if np.issubdtype(labels.dtype, np.floating):
            zero, one = self._ends(labels)
            labels = (zero + labels * (one - zero)).astype(np.float32)
        rows = Windows(np.arange(len(labels)))
        kept = self.outputs.of_batch(torch.from_numpy(logits).float(), {"labels": torch.from_numpy(labels)}, rows)
        values = self.outputs.of_rows({key: value.numpy() for key, value in kept.items()}, rows)
        if self.metric == "loss":
            return -float(values["losses"].mean())
        return self.sign * self.outputs.score(values["predicted"], values["references"])[self.metric]

    def _ends(self, labels: np.ndarray) -> np.ndarray:
        """Return the numbers of the data that outputs of 0 and of 1 stand for, (2,) or (2, numbers)."""
        width = 1 if labels.ndim == 1 else labels.shape[1]
        ends = self.outputs.activate(torch.tensor([[0.0] * width, [1.0] * width])).double().numpy()
        return np.asarray(ends if labels.ndim > 1 else ends[:, 0])
