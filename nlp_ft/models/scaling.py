"""Scales the outputs of a model by changing the weights of its last layer, and computes that layer exactly."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F


def last_linear(model: nn.Module, num_outputs: int) -> nn.Linear | None:
    """Find the linear layer that gives the outputs: the last one with that number of units; None if there is none."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == num_outputs]
    return layers[-1] if layers else None


def output_layer(model: nn.Module, num_outputs: int) -> nn.Linear | nn.Conv2d | None:
    """Find the layer that gives the outputs, which is a convolution in some image networks; None if there is none."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) and len(m.weight) == num_outputs]
    return layers[-1] if layers else None


@torch.no_grad()
def scale_outputs(model: nn.Module, factors: torch.Tensor, offsets: torch.Tensor) -> None:
    """Change the model so that it gives `factors * output + offsets`; both are (outputs,).

    If its last layer has no bias, the offsets must be 0.
    """
    layer = last_linear(model, len(factors))
    assert layer is not None
    factors, offsets = (values.to(layer.weight.device, torch.float64) for values in (factors, offsets))
    layer.weight.copy_(layer.weight.double() * factors[:, None])
    if layer.bias is None:
        assert not offsets.any()
        return
    layer.bias.copy_(layer.bias.double() * factors + offsets)


@contextmanager
def in_float32(layer: nn.Linear) -> Iterator[None]:
    """Compute a layer in float32 inside the block, whatever autocast is on.

    bf16 has 8 significant bits: a scaled output of 1990 would become a multiple of 8. A hook, unlike another forward
    pass, may come and go while other threads predict.
    """

    def exact(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        with torch.autocast(output.device.type, enabled=False):
            return F.linear(inputs[0].float(), layer.weight, layer.bias)

    hook = layer.register_forward_hook(exact)
    try:
        yield
    finally:
        hook.remove()
