"""Dropout with cheaper random numbers: on CPU torch's `bernoulli_` takes some 10 ns an element, on one thread always.

Only plain Dropout modules are meant. Functional dropout, such as that of attention probabilities, stays torch's.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import DynamoBackend
from torch import nn

NUM_VALUES = 2**16
"""Of the random bits of an element."""


class FastDropout(nn.Dropout):
    """`torch.nn.Dropout` that on CPU draws 16 random bits an element from torch's default generator.

    p * 65536 is seldom whole, so the threshold of a call is rounded up or down at random: each element is dropped with
    probability p to the precision of float64. Two elements of one call share that rounding, which gives them a
    covariance of at most 6e-11; for p = 0.1 that is a correlation of 6e-10.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Any shape -> the same shape."""
        is_drawn = self.training and input.device.type == "cpu" and 1 <= self.p * NUM_VALUES <= NUM_VALUES - 1
        if not is_drawn:
            return super().forward(input)
        factors = draw_factors(input.shape, self.p, input.dtype)
        return input.mul_(factors) if self.inplace else input * factors


def draw_factors(shape: torch.Size, p: float, dtype: torch.dtype) -> torch.Tensor:
    """What to multiply by: 0 with probability p, else 1 / (1 - p).

    Args:
        shape: of the result.
        p: in [1 / 65536, 65535 / 65536].
        dtype: of the result.
    """
    size = shape.numel()
    # Bits are cheapest in words of 64: each serves four elements, and the last one the threshold.
    words = torch.empty(-(-size // 4) + 1, dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[:size].view(shape)
    kept = torch.ge(bits, threshold(p, int(words[-1])), out=torch.empty(shape, dtype=dtype))
    return kept.div_(1 - p)


def threshold(p: float, word: int) -> int:
    """The 16 bits, from -32768 to 32767, below which an element is dropped.

    Args:
        p: in [1 / 65536, 65535 / 65536].
        word: 64 random bits, from -2**63 to 2**63 - 1, that round p * 65536 up or down.
    """
    whole = math.floor(p * NUM_VALUES)
    is_up = word < (p * NUM_VALUES - whole) * 2**64 - 2**63
    return whole + is_up - NUM_VALUES // 2


@contextmanager
def fast_dropout(accelerator: Accelerator, model: nn.Module) -> Iterator[None]:
    """Inside, the model's plain Dropout modules draw as `FastDropout`; on CPU and uncompiled, else nothing changes."""
    is_apt = accelerator.device.type == "cpu" and accelerator.state.dynamo_plugin.backend == DynamoBackend.NO
    plain = [module for module in model.modules() if is_apt and type(module) is nn.Dropout]
    try:
        for module in plain:
            module.__class__ = FastDropout
        yield
    finally:
        for module in plain:
            module.__class__ = nn.Dropout
