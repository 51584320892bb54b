"""Cheaper random numbers for dropout: on CPU torch's `bernoulli_` takes some 10 ns an element, on one thread always.

All dropout is drawn by `bernoulli_`: of Dropout modules, of attention probabilities, stochastic depth.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import DynamoBackend

NUM_VALUES = 2**16
"""Of the random bits of an element."""


@contextmanager
def fast_random_bits(accelerator: Accelerator) -> Iterator[None]:
    """Inside, `Tensor.bernoulli_(p)` draws by `draw`, process-wide; on CPU and uncompiled, else nothing changes."""
    if accelerator.device.type != "cpu" or accelerator.state.dynamo_plugin.backend != DynamoBackend.NO:
        yield
        return
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("bernoulli_.float", draw, "CPU")
        yield


def draw(target: torch.Tensor, p: float = 0.5, *, generator: torch.Generator | None = None) -> torch.Tensor:
    """Fill the target with 1 with probability p, else 0, by 16 random bits an element.

    p * 65536 is seldom whole, so the threshold of a call is rounded up or down at random: each element is 1 with
    probability p to the precision of float64. Two elements of one call share that rounding, which gives them a
    covariance of at most 6e-11; for p = 0.1 that is a correlation of 6e-10.

    Args:
        target: any shape and type.
        p: in [0, 1].
        generator: None for torch's default one.
    """
    if not 1 <= p * NUM_VALUES <= NUM_VALUES - 1:
        uniform = torch.rand(target.shape, dtype=torch.float64, generator=generator)
        return torch.lt(uniform, p, out=target)
    size = target.numel()
    # Bits are cheapest in words of 64: each serves four elements, and the last one the threshold.
    words = torch.empty(-(-size // 4) + 1, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    bits = words.view(torch.int16)[:size].view(target.shape)
    return torch.lt(bits, threshold(p, int(words[-1])), out=target)


def threshold(p: float, word: int) -> int:
    """The 16 bits, from -32768 to 32767, below which an element is 1.

    Args:
        p: in [1 / 65536, 65535 / 65536].
        word: 64 random bits, from -2**63 to 2**63 - 1, that round p * 65536 up or down.
    """
    whole = math.floor(p * NUM_VALUES)
    is_up = word < (p * NUM_VALUES - whole) * 2**64 - 2**63
    return whole + is_up - NUM_VALUES // 2
