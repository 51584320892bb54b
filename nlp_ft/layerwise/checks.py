"""Checks that a layer map and an optimizer are those of a model, since each may be made of another one."""

from collections.abc import Collection

import torch
from torch import nn

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise.layer_map import LayerMap


def check_fits(model: nn.Module, layer_map: LayerMap) -> None:
    """Check that a layer map is that of a model, which has the same names of parameters.

    Raises:
        LayerMapError: the map has another parameter, or lacks one; the message names it.
    """
    for value, kind in ((model, nn.Module), (layer_map, LayerMap)):
        if not isinstance(value, kind):
            raise LayerMapError(f"expected a {kind.__name__}, got {type(value).__name__}")
    names = dict(model.named_parameters(remove_duplicate=False)).keys()
    for name in names:
        layer_map.layer_id(name)
    foreign = [name for name in layer_map.names if name not in names]
    if foreign:
        raise LayerMapError(
            f"{foreign[0]} is in the layer map but not in the model: the map is of another model, or the model has "
            "changed since; make a new one with LayerMap.from_model(model)"
        )


def check_optimizer(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    layer_map: LayerMap,
    layers: Collection[int],
    never: Collection[str] = (),
) -> None:
    """Check that an optimizer holds every parameter of the given layers, except those that never train.

    Args:
        optimizer: the optimizer of the run.
        model: the model without wrappers.
        layer_map: the model's layer map.
        layers: ids of the layers that will train.
        never: names of parameters that never train.

    Raises:
        LayerMapError: the optimizer lacks some: it was made while layers were frozen, or before the model changed.
    """
    if not hasattr(optimizer, "param_groups"):
        raise LayerMapError(f"expected an optimizer, got {type(optimizer).__name__}")
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    known |= {id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False) if name in never}
    lacking = [
        name
        for name, parameter in model.named_parameters()
        if id(parameter) not in known and layer_map.aligned_layer(name) in layers
    ]
    if lacking:
        raise LayerMapError(
            f"{len(lacking)} parameters that will train are in no group of the optimizer, such as {lacking[0]}; make "
            "the optimizer with build_optimizer, which takes all parameters, once the model is complete"
        )
