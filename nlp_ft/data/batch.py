"""What a batch holds: a dictionary of tensors, some of which are inputs of the model.

`batch_sampling.py` decides which rows form a batch, and `batch_loading.py` makes the tensors.
"""

from collections.abc import Mapping

import torch

from nlp_ft.layerwise.model_outputs import output_logits as output_logits

IGNORED_LABEL = -100
"""Label of a row that only fills up a batch: loss and metrics leave it out. It is PyTorch's default `ignore_index`."""
TOKEN_INPUTS = ("input_ids", "token_type_ids")
"""Columns of encoded texts that a model reads; some tokenizers make the first alone."""
NOT_INPUTS = ("labels", "row", "words", "tags")
"""Keys of a batch that the model does not take: the labels, the numbers of the rows in their data set, and for tags of
words, see `data/words/encoding.py`, the words that tokens belong to and the tags of all words."""


def model_inputs(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The part of a batch that the model takes, as keyword arguments of its forward pass.

    Args:
        batch: input name -> tensor, (batch, ...), and perhaps `labels` and `row`.
    """
    return {key: value for key, value in batch.items() if key not in NOT_INPUTS}
