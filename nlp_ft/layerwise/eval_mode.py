"""A guard that runs a model in eval mode for a while and restores the modes afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a model in eval mode and without gradients inside the `with` block, then restore each module's mode.

    Modules that are in eval mode before, such as those of frozen layers, are so afterwards too.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            # Not `model.eval()`: a frozen module may have a `train` method of its own.
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
