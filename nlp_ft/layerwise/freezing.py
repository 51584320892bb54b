"""Frozen means frozen: no gradient, no dropout, no running statistics, and `model.train()` does not undo it."""

from collections.abc import Collection
from functools import partial

from torch import nn

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise.layer_map import LayerMap


def set_trainable(model: nn.Module, layer_map: LayerMap, lowest_trainable_layer: int) -> None:
    """Train the layers from `lowest_trainable_layer` up to the head and freeze those below.

    A frozen parameter has `requires_grad=False` and `grad=None`. A module whose parameters are all frozen is put in
    eval mode and stays there whatever `model.train()` says, until a later call makes it trainable.

    Args:
        model: the model; its flags and modes are changed, its weights are not.
        layer_map: its layer map.
        lowest_trainable_layer: layer id, 0 (everything trains) to L+1 (only the head trains).

    Raises:
        LayerMapError: there is no such layer.
    """
    if not 0 <= lowest_trainable_layer <= layer_map.head_layer:
        raise LayerMapError(
            f"lowest_trainable_layer must lie between 0 and {layer_map.head_layer}, got {lowest_trainable_layer}"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(layer_map.is_trainable(name, lowest_trainable_layer))
        if not parameter.requires_grad:
            parameter.grad = None
    embeddings = layer_map.embedding_modules if lowest_trainable_layer > 0 else frozenset()
    _keep_frozen_modules_in_eval(model, embeddings)


def _keep_frozen_modules_in_eval(model: nn.Module, also: Collection[str]) -> None:
    """Pin the modules whose parameters are all frozen, and those named, to eval with all in them; release others."""
    pinned = [module for name, module in model.named_modules() if name in also or _is_frozen(module)]
    frozen = {id(inner) for module in pinned for inner in module.modules()}
    for module in model.modules():
        module.__dict__.pop("train", None)
    for module in model.modules():
        if id(module) in frozen:
            module.training = False
            module.__dict__["train"] = partial(_stay_in_eval, module)
        else:
            module.training = model.training


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(number of all parameters, number of trainable ones); a tied weight counts once."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trainable in sizes if trainable)


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
