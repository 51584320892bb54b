"""What a batch holds: a dictionary of tensors, some of which are inputs of the model.

`batch_sampling.py` decides which rows form a batch, and `batch_loading.py` makes the tensors.
"""

from collections.abc import Mapping
from typing import Any

import torch

IGNORED_LABEL = -100
"""Label of a row that only fills up a batch: loss and metrics leave it out. It is PyTorch's default `ignore_index`."""
NOT_INPUTS = ("labels", "row", "words", "tags")
"""Keys of a batch that the model does not take: the labels, the numbers of the rows in their data set, and for tags of
words, see `data/words/encoding.py`, the words that tokens belong to and the tags of all words."""


def model_inputs(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The part of a batch that the model takes, as keyword arguments of its forward pass.

    Args:
        batch: input name -> tensor, (batch, ...), and perhaps `labels` and `row`.
    """
    return {key: value for key, value in batch.items() if key not in NOT_INPUTS}


def output_logits(output: Any) -> torch.Tensor:
    """Read the logits of a model's output, (batch, ...); those of an answer's start and end are stacked last."""
    if getattr(output, "start_logits", None) is not None:
        return torch.stack([output.start_logits, output.end_logits], -1)
    logits: torch.Tensor = output.logits
    return logits
