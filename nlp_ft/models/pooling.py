"""Pooling: from one vector for each token to one vector for each text."""

from typing import Literal

import torch

from nlp_ft.defaults import Pooling as Pooling

ClsPosition = Literal["first", "last"]


def pool(
    last_hidden_state: torch.Tensor,
    attention_mask: torch.Tensor,
    pooling: Literal["cls", "mean", "max"],
    cls_position: ClsPosition = "first",
) -> torch.Tensor:
    """Pool the tokens of each text; padding on either side is left out.

    Args:
        last_hidden_state: (batch, seq_len, hidden).
        attention_mask: (batch, seq_len), 1 for tokens and 0 for padding.
        pooling: the CLS token, or the mean or maximum over the tokens.
        cls_position: the end of a text at which the tokenizer puts the CLS token; XLNet's puts it last.

    Returns:
        One vector for each text, (batch, hidden).
    """
    mask = attention_mask.to(torch.bool)
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(last_hidden_state.dtype)
        return (last_hidden_state * weights).sum(1) / weights.sum(1).clamp(min=1)
    if pooling == "max":
        return last_hidden_state.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(1)
    positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    if cls_position == "first":
        chosen = positions.masked_fill(~mask, mask.shape[1]).amin(1).clamp(max=mask.shape[1] - 1)
    else:
        chosen = positions.masked_fill(~mask, -1).amax(1).clamp(min=0)
    return last_hidden_state[torch.arange(len(chosen), device=chosen.device), chosen]
