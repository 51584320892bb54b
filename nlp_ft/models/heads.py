"""Heads: the task layers, which turn a pooled vector into logits."""

import torch
from torch import nn
from transformers.activations import ACT2FN

from nlp_ft.defaults import HeadType as HeadType


class ClassificationHead(nn.Module):
    """The task layers on top of an encoder.

    A `linear` head is a dropout and a linear layer. A `bottleneck` head is a linear layer, an activation, a dropout and
    a second linear layer.

    Args:
        hidden_size: units of the pooled vector.
        num_labels: units of the logits.
        head_type: `linear` or `bottleneck`.
        bottleneck_size: units between the two layers of a bottleneck.
        activation: name of the bottleneck's activation in Transformers, such as `relu`.
        dropout: share of units dropped before the last layer, in [0, 1).
    """

    def __init__(
        self,
        hidden_size: int,
        num_labels: int,
        head_type: HeadType = "linear",
        bottleneck_size: int = 128,
        activation: str = "relu",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        is_bottleneck = head_type == "bottleneck"
        self.bottleneck = nn.Linear(hidden_size, bottleneck_size) if is_bottleneck else None
        self.activation = ACT2FN[activation] if is_bottleneck else None
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(bottleneck_size if is_bottleneck else hidden_size, num_labels)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Compute logits, (batch, num_labels), from pooled vectors, (batch, hidden)."""
        if self.bottleneck is not None and self.activation is not None:
            pooled = self.activation(self.bottleneck(pooled))
        logits: torch.Tensor = self.out_proj(self.dropout(pooled))
        return logits
