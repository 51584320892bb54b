"""Pooling: from one vector for each token to one vector for each text."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from nlp_ft.defaults import Pooling as Pooling

ClsPosition = Literal["first", "last"]
LAYERS_CONCATENATED = 4
"""Layers of the pooling `last_4`: the best of the concatenations in table 7 of Devlin et al. 2019
(https://arxiv.org/abs/1810.04805)."""


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
    return last_hidden_state[torch.arange(chosen.shape[0], device=chosen.device), chosen]


class AttentionPooling(nn.Module):
    """The mean of the tokens of each text, weighted by learned attention (Yang et al. 2016).

    The weight of a token is softmax(u . tanh(W h + b)) over the tokens of its text. The vector u begins at zero, so
    that training starts from the plain mean. Paper: https://aclanthology.org/N16-1174/.

    Args:
        hidden_size: units of a token's vector.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(hidden_size, hidden_size)
        self.context = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, last_hidden_state: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Pool (batch, seq_len, hidden) to (batch, hidden); `attention_mask`, (batch, seq_len), is 0 at padding."""
        scores = torch.tanh(self.project(last_hidden_state)) @ self.context
        scores = scores.masked_fill(attention_mask == 0, torch.finfo(scores.dtype).min)
        return (scores.softmax(-1).unsqueeze(-1) * last_hidden_state).sum(1)


class LayerMix(nn.Module):
    """A weighted sum of all layers, gamma * sum of softmax(w)_j h_j (Peters et al. 2018, equation 1).

    The layers are the embeddings and the output of each block. All weights are equal at first, and gamma is 1. Paper:
    https://arxiv.org/abs/1802.05365.

    Args:
        num_layers: number of layers to mix.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(num_layers))
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Mix the pooled vectors of all layers, (batch, num_layers * hidden), to one of (batch, hidden)."""
        num_layers = self.weights.shape[0]
        layers = pooled.view(-1, num_layers, pooled.shape[-1] // num_layers)
        mixed: torch.Tensor = self.gamma * (self.weights.softmax(-1).unsqueeze(-1) * layers).sum(1)
        return mixed


def pool_layers(hidden_states: Sequence[torch.Tensor], attention_mask: torch.Tensor) -> torch.Tensor:
    """Take the mean over the tokens in each layer, and put the vectors of the layers side by side.

    Args:
        hidden_states: the output of each layer, (batch, seq_len, hidden).
        attention_mask: (batch, seq_len), 1 for tokens and 0 for padding.

    Returns:
        (batch, layers * hidden).
    """
    return torch.cat([pool(hidden, attention_mask, "mean") for hidden in hidden_states], dim=-1)
