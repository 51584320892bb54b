"""How far results may differ that the same weights give: only weights are compared to the bit.

The order of a float32 sum depends on the processor, on the number of threads and on the addresses: weights that
safetensors maps from a file lie 16 to 56 bytes off a multiple of 64, and MKL then adds in another order.
"""

from typing import Any

import torch

ROUNDING: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
"""For logits near 1 of sums of a few thousand terms; float32 has a relative precision of 6e-8."""


def assert_equal_but_for_rounding(found: Any, expected: Any) -> None:
    """Tensors, or lists of numbers, whose values differ by rounding alone."""
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), **ROUNDING)
