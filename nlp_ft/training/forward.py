"""One forward pass over a batch, which begins above the frozen blocks where their features are kept."""

from collections.abc import Mapping
from contextlib import nullcontext

import torch

from nlp_ft.training.features.cache import FeatureCache

NOT_FOR_THE_MODEL = ("labels", "row")
"""Keys of a batch that the loss and the feature cache read."""


def model_inputs(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The keyword arguments of the model's forward pass, each (batch, ...)."""
    return {key: value for key, value in batch.items() if key not in NOT_FOR_THE_MODEL}


def logits_of(
    model: torch.nn.Module, batch: Mapping[str, torch.Tensor], split: str, features: FeatureCache | None
) -> torch.Tensor:
    """The model's logits, (batch, outputs).

    Args:
        model: on the device of the batch.
        batch: model inputs, and `row`, the number of each row, (batch,), if there are features.
        split: the split that the rows come from.
        features: of the frozen layers; None computes them.
    """
    inputs = model_inputs(batch)
    with features.entered(split, batch["row"], inputs) if features else nullcontext(inputs) as entered:
        logits: torch.Tensor = model(**entered).logits
        return logits
