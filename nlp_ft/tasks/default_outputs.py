"""What outputs do unless they say otherwise: they tune nothing, write nothing into the model, and count no labels."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Self

import numpy as np
from transformers import PreTrainedModel


class DefaultOutputs:
    """The part of `Outputs` that many kinds of outputs share."""

    without_probabilities: ClassVar[str] = ""
    without_confidence: ClassVar[str] = ""

    def tuned(self, predicted: np.ndarray, references: np.ndarray) -> Self:
        """Return the same outputs: nothing is tuned."""
        return self

    def undecided(self) -> Any:
        """Return None: most outputs are not one label of several."""
        return None

    def write_to(self, model: PreTrainedModel) -> None:
        """Write nothing: the model and its labels say all."""

    def exact(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Change nothing: most outputs are compared with each other, and rounded alike."""
        return nullcontext()

    def counts(self, values: np.ndarray) -> dict[str, int]:
        """Return nothing: most outputs are no labels."""
        return {}
