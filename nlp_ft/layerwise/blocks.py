"""The blocks of a model as modules: which they are, what goes into them, and how one is skipped."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from nlp_ft.layerwise.discovery.undisturbed import pre_hook
from nlp_ft.layerwise.eval_mode import evaluating
from nlp_ft.layerwise.layer_map import LayerMap


def block_modules(model: nn.Module, layer_map: LayerMap) -> dict[int, nn.Module]:
    """Find the module of each block.

    Returns:
        Layer id -> the module that holds all parameters of the block. The module of the last block may lack a final
        norm. Blocks without such a module are left out.
    """
    found: dict[int, nn.Module] = {}
    for layer in range(1, layer_map.num_layers + 1):
        names = set(layer_map.parameters(layer))
        best = 0
        for path, module in model.named_modules():
            own = {f"{path}.{name}" for name, _ in module.named_parameters()}
            if own and own <= names and len(own) > best:
                found[layer], best = module, len(own)
        if layer < layer_map.num_layers and best < len(names):
            found.pop(layer, None)
    return found


def first_of_head(model: nn.Module, layer_map: LayerMap, example: Mapping[str, torch.Tensor]) -> nn.Module | None:
    """Find the module of the head that runs first, among the largest modules that hold only parameters of the head."""
    names = set(layer_map.parameters(layer_map.head_layer))
    candidates: list[nn.Module] = []
    for path, module in model.named_modules():
        own = {f"{path}.{name}" for name, _ in module.named_parameters()}
        if own and own <= names and not any(module in set(other.modules()) for other in candidates):
            candidates.append(module)
    order: list[nn.Module] = []
    with ExitStack() as stack, evaluating(model):
        for module in candidates:
            stack.enter_context(pre_hook(module, lambda module, args, kwargs: order.append(module)))
        model(**example)
    return order[0] if order else None


def hidden_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """Return the first floating-point tensor among the arguments of a block: its hidden states."""
    tensors = (value for value in [*args, *kwargs.values()] if isinstance(value, torch.Tensor))
    return next(tensor for tensor in tensors if tensor.is_floating_point())


def with_hidden(
    args: tuple[Any, ...], kwargs: dict[str, Any], hidden: torch.Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a block with other hidden states."""
    replaced = hidden_of(args, kwargs)
    return (
        tuple(hidden if value is replaced else value for value in args),
        {key: hidden if value is replaced else value for key, value in kwargs.items()},
    )


def output_forms(
    model: nn.Module, blocks: Iterable[nn.Module], example: Mapping[str, torch.Tensor]
) -> dict[nn.Module, int]:
    """Find the form of each block's output in one pass: the length of its tuple, or 0 if it is a tensor."""
    forms: dict[nn.Module, int] = {}

    def note(block: nn.Module, args: Any, output: Any) -> None:
        forms[block] = len(output) if isinstance(output, tuple) else 0

    with ExitStack() as stack, evaluating(model):
        for block in blocks:
            stack.callback(block.register_forward_hook(note).remove)
        model(**example)
    return forms


@contextmanager
def skipped(block: nn.Module, length: int) -> Iterator[None]:
    """Make a block pass its hidden states on: as a tensor if `length` is 0, else as the first entry of a tuple."""

    def hand_on(*args: Any, **kwargs: Any) -> Any:
        hidden = hidden_of(args, kwargs)
        return (hidden, *[None] * (length - 1)) if length else hidden

    own = block.__dict__.get("forward")
    block.forward = hand_on
    try:
        yield
    finally:
        del block.forward
        if own is not None:
            block.forward = own
