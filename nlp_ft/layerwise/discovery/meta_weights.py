"""Gives a model on the meta device weights for one forward pass: zeros that need no memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def zeros_for_meta_tensors(model: nn.Module) -> Iterator[dict[int, torch.Tensor]]:
    """Replace all meta tensors of a model by zeros on the CPU inside the `with` block, then put them back.

    Each replacement is one number, expanded to the shape. The forward pass then computes values, which takes longer
    than on the meta device, but lets masks and checks of the input read values and count nonzero ones.

    Yields:
        The replacement of each meta tensor, by the tensor's `id`; tied tensors share one.
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
