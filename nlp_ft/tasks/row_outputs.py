"""Outputs of tasks with one vector of logits for each row, or for each of its windows: labels or numbers."""

from abc import ABC, abstractmethod

import numpy as np
import torch

from nlp_ft.data.windows import Windows
from nlp_ft.tasks.default_outputs import DefaultOutputs


class RowOutputs(DefaultOutputs, ABC):
    """Gives a row one prediction, one loss and one score, all from its logits. See `Outputs`."""

    @abstractmethod
    def row_losses(self, logits: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """Compute the loss of each row, (batch,), from logits, (batch, outputs), and references, (batch, ...)."""

    @abstractmethod
    def row_scores(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Compute how sure the model is of each prediction, (batch,), in [0, 1]; None where it does not say."""

    @abstractmethod
    def decode(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits into predictions, (batch, ...): label ids or numbers."""

    def of_batch(
        self, logits: torch.Tensor, batch: dict[str, torch.Tensor], windows: Windows
    ) -> dict[str, torch.Tensor]:
        """Keep the values of the rows; of windows, whose logits are pooled later, keep the logits."""
        if windows.pooling is None:
            return self._values(logits, batch["labels"])
        return {"logits": logits, "references": batch["labels"]}

    def of_rows(self, kept: dict[str, np.ndarray], windows: Windows) -> dict[str, np.ndarray]:
        """Pool the logits of the windows of each row, and compute the values of the rows from them."""
        if windows.pooling is None:
            return kept
        logits = torch.from_numpy(windows.pooled(kept["logits"]))
        references = torch.from_numpy(kept["references"][windows.starts])
        return {key: value.numpy() for key, value in self._values(logits, references).items()}

    def _values(self, logits: torch.Tensor, references: torch.Tensor) -> dict[str, torch.Tensor]:
        values = {
            "predicted": self.decode(logits),
            "references": references,
            "losses": self.row_losses(logits, references).double(),
        }
        scores = self.row_scores(logits)
        return values if scores is None else {**values, "row_scores": scores}
