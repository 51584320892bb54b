"""Reads the logits of a model's output, whatever the head is."""

from typing import Any

import torch


def output_logits(output: Any) -> torch.Tensor:
    """Read the logits of a model's output, (batch, ...); those of an answer's start and end are stacked last."""
    if getattr(output, "start_logits", None) is not None:
        return torch.stack([output.start_logits, output.end_logits], -1)
    logits: torch.Tensor = output.logits
    return logits
