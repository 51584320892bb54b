"""Weights for a model on the meta device, for as long as one forward pass takes: zeros that need no memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def stand_ins(model: nn.Module) -> Iterator[dict[int, torch.Tensor]]:
    """Put zeros on the CPU in the place of all meta tensors of a model, and take them away again.

    Every tensor is one number, expanded to the shape. The pass then computes for real, which takes longer than on meta,
    but can read values and count what is not zero, as masks and checks of the input do.

    Yields:
        id of each tensor of the model on meta -> what stands in for it; tied tensors share one.
    """
    kept = [
        (store, name, tensor)
        for module in model.modules()
        for store in (module._parameters, module._buffers)
        for name, tensor in store.items()
        if tensor is not None and tensor.is_meta
    ]
    made: dict[int, torch.Tensor] = {}
    for _, _, tensor in kept:
        zeros = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        is_parameter = isinstance(tensor, nn.Parameter)
        made.setdefault(id(tensor), nn.Parameter(zeros, requires_grad=False) if is_parameter else zeros)
    try:
        for store, name, tensor in kept:
            store[name] = made[id(tensor)]  # type: ignore[assignment]
        yield made
    finally:
        for store, name, tensor in kept:
            store[name] = tensor  # type: ignore[assignment]
