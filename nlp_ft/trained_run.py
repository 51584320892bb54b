"""A run folder, loaded: what is the same for texts and images."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from nlp_ft.data.batching import Collator
from nlp_ft.errors import RunFolderError
from nlp_ft.models.text import LOADING_ERRORS, label_names, quiet_transformers
from nlp_ft.recipe import Recipe
from nlp_ft.training.task import Data

BATCH_SIZE = 64


@dataclass(frozen=True)
class Prediction:
    """Of one input: the likeliest label, its probability, and the probability of every label."""

    label: str
    score: float
    scores: dict[str, float]


class TrainedRun(ABC):
    """A model with its recipe; how it reads inputs is the subclass's part."""

    input_name: str
    """What an input is called where it is shown: `text` or `image`."""
    recipe: Recipe
    model: PreTrainedModel

    @property
    def label_names(self) -> list[str]:
        """In the order of their ids."""
        return label_names(self.model)

    @abstractmethod
    def read(self, file: str | None, words: Sequence[str]) -> Sequence[Any]:
        """The inputs that a command line names, for `predict`. Raises: DataError."""

    @abstractmethod
    def predict(self, inputs: Sequence[Any]) -> list[Prediction]:
        """One prediction for each input. Raises: DataError."""

    @abstractmethod
    def shown(self, item: Any) -> str:
        """An input as one line."""

    @abstractmethod
    def labelled(self, data: str | None, split: str) -> Data:
        """Labelled rows of file(s), or of a split of the recipe, under the split's name. Raises: DataError."""

    @abstractmethod
    def labelled_collator(self, data: Data, split: str) -> Collator:
        """Makes batches of labelled rows."""

    def probabilities(self, batch: dict[str, torch.Tensor]) -> np.ndarray:
        """(batch, num_labels), of the model in eval mode on the best device there is."""
        device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        module: torch.nn.Module = self.model
        module.to(device).eval()
        with torch.inference_mode():
            logits: torch.Tensor = module(**{key: value.to(device) for key, value in batch.items()}).logits
        return logits.float().softmax(-1).cpu().numpy()

    def prediction(self, probabilities: np.ndarray) -> Prediction:
        """Of one input's probabilities, (num_labels,)."""
        best = int(probabilities.argmax())
        scores = {name: float(p) for name, p in zip(self.label_names, probabilities, strict=True)}
        return Prediction(self.label_names[best], float(probabilities[best]), scores)


@contextmanager
def damage_named(folder: Path, what: str) -> Iterator[None]:
    """Whatever loading raises, as one error. Raises: RunFolderError."""
    try:
        with quiet_transformers():
            yield
    except LOADING_ERRORS as error:
        raise RunFolderError(f"{folder}: its {what} is damaged: {str(error).strip()[:300]}") from None
