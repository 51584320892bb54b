"""Traces a model once, for any batch size and length; every format of export is made from the result."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch.export import Dim, ExportedProgram

from nlp_ft.data.batch import output_logits
from nlp_ft.errors import ModelError
from nlp_ft.layerwise.eval_mode import evaluating


class _Logits(torch.nn.Module):
    """The model from its inputs, in a fixed order, to its logits alone."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return output_logits(self.model(**dict(zip(self.names, inputs, strict=True))))


def traced(model: torch.nn.Module, example: Mapping[str, torch.Tensor]) -> ExportedProgram:
    """Trace the forward pass of a model, without gradients and dropout.

    Args:
        model: the model, on the CPU, in float32.
        example: its inputs, (batch, ...). The batch size may be another one later, and so may the other axes of ids and
            masks; those of pixels are fixed.

    Raises:
        ModelError: the model does something that cannot be traced.
    """
    example = {name: _without_axes_of_one(tensor) for name, tensor in example.items()}
    axes = tuple(
        dict.fromkeys(range(1 if tensor.is_floating_point() else tensor.ndim), Dim.DYNAMIC)
        for tensor in example.values()
    )
    module = _Logits(model, list(example))
    try:
        with evaluating(module), _without_cache(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(module, tuple(example.values()), dynamic_shapes=(axes,), strict=False)
    except Exception as error:  # torch.export raises what it likes
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{type(model).__name__} cannot be exported: {reason[0][:300]}") from None


def _without_axes_of_one(tensor: torch.Tensor) -> torch.Tensor:
    """Repeat what an axis holds once, as tracing would take a size of 1 for one that never changes."""
    for axis in range(1 if tensor.is_floating_point() else tensor.ndim):
        if tensor.shape[axis] == 1:
            tensor = torch.cat([tensor, tensor], axis)
    return tensor


@contextmanager
def _without_cache(model: torch.nn.Module) -> Iterator[None]:
    """Keep a decoder from storing keys and values, which a single pass never reads, inside the block."""
    configs = {id(config): config for module in model.modules() if (config := getattr(module, "config", None))}
    changed = [config for config in configs.values() if getattr(config, "use_cache", False)]
    for config in changed:
        config.use_cache = False
    try:
        yield
    finally:
        for config in changed:
            config.use_cache = True
