"""Freezes layers: no gradient, no dropout, no update of running statistics; `model.train()` does not undo it."""

from collections.abc import Collection, Mapping
from numbers import Integral

import torch
from torch import nn

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise.checks import check_fits
from nlp_ft.layerwise.eval_mode import evaluating
from nlp_ft.layerwise.layer_map import LayerMap
from nlp_ft.layerwise.model_outputs import output_logits
from nlp_ft.layerwise.modes import keep_in_eval, modules_to_pin


def set_trainable(model: nn.Module, layer_map: LayerMap, lowest_trainable_layer: int) -> None:
    """Train the layers from `lowest_trainable_layer` up to the head, and freeze the layers below.

    A frozen parameter has `requires_grad=False` and `grad=None`. Modules in a frozen layer, or between frozen layers,
    are in eval mode and stay there, whatever `model.train()` says, until a later call makes them trainable.

    Args:
        model: the model; its flags and modes are changed, its weights are not.
        layer_map: the model's layer map.
        lowest_trainable_layer: layer id, from 0 (everything trains) to L+1 (only the head trains).

    Raises:
        LayerMapError: there is no such layer, or the map is of another model.
    """
    check_fits(model, layer_map)
    is_layer = isinstance(lowest_trainable_layer, Integral) and not isinstance(lowest_trainable_layer, bool)
    if not is_layer or not 0 <= lowest_trainable_layer <= layer_map.head_layer:
        raise LayerMapError(
            f"lowest_trainable_layer must lie between 0 and {layer_map.head_layer}, got {lowest_trainable_layer!r}"
        )
    set_trainable_layers(model, layer_map, range(lowest_trainable_layer, layer_map.head_layer + 1))


def set_trainable_layers(
    model: nn.Module, layer_map: LayerMap, layers: Collection[int], never: Collection[str] = ()
) -> None:
    """Train the given layers and freeze all others, as `set_trainable` does.

    Args:
        model: the model; its flags and modes are changed, its weights are not.
        layer_map: the model's layer map.
        layers: ids of the layers that train; with several stacks, as `LayerMap.aligned_layer` counts them.
        never: names of parameters that stay frozen in any layer, such as the base weights under LoRA. Dropout beside
            them is active if their layer trains.

    Raises:
        LayerMapError: there is no such layer or parameter, or the map is of another model.
    """
    check_fits(model, layer_map)
    layer_map.check_layers(layers)
    if unknown := sorted(set(never) - layer_map.names):
        raise LayerMapError(f"never: {unknown[0]!r} is not a parameter of the model")
    # Compared as objects: a tied weight may be named by any of its names.
    frozen = {id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False) if name in never}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameter) not in frozen and layer_map.aligned_layer(name) in layers)
        if not parameter.requires_grad:
            parameter.grad = None
    keep_in_eval(model, modules_to_pin(model, layer_map, layers))


def unused_parameters(model: nn.Module, example: Mapping[str, torch.Tensor]) -> list[str]:
    """List the parameters that get no gradient from an example when everything trains; afterwards all require one.

    Some architectures hold parameters that classification never reads (XLNet's `mask_emb`): no training would move
    them, and DistributedDataParallel would wait for their gradients.

    Args:
        model: the model; its forward pass returns an object with `logits`, or with `start_logits` and `end_logits`.
        example: keyword arguments of a forward pass over a few rows, each (batch, ...).
    """
    model.requires_grad_(True)
    with evaluating(model), torch.enable_grad():
        output_logits(model(**example)).sum().backward()  # type: ignore[no-untyped-call]
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    model.zero_grad(set_to_none=True)
    return unused


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Count all parameters and the trainable ones; a tied weight counts once.

    Returns:
        The number of all parameters, and the number of trainable parameters.
    """
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trainable in sizes if trainable)
