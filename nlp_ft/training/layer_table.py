"""Writes the layer table: modules, sizes and learning rates of each layer, and whether it trains."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nlp_ft.layerwise import LayerMap
from nlp_ft.layerwise.layer_map import common_modules
from nlp_ft.tables import short_count, short_rate, terminal_width, text_table, wrapped


def layer_table(layer_map: LayerMap, groups: Sequence[Mapping[str, Any]], later: Collection[int] = ()) -> str:
    """Make a table with a row for each layer, from the head down, with every number in full, as for a file.

    Args:
        layer_map: the layer map.
        groups: the groups of the optimizer.
        later: ids of the layers that begin to train in a later phase, as `LayerMap.aligned_layer` counts them.
    """
    rows = [
        [
            *_names(layer_map, of_layer),
            f"{_size(of_layer):,}",
            f"{of_layer[0]['lr']:.3g}",
            f"{of_layer[0]['lr_scale']:.4g}",
            f"{max(group['weight_decay'] for group in of_layer):g}",
            _trains(of_layer, layer_map, later),
        ]
        for of_layer in _layers(groups)
    ]
    header = ["layer", "name", "modules", "parameters", "lr", "lr scale", "weight decay", "trainable"]
    return "\n".join([text_table(header, rows, right={0, 3, 4, 5, 6}), *layer_map.notes])


def short_layer_table(layer_map: LayerMap, groups: Sequence[Mapping[str, Any]], later: Collection[int] = ()) -> str:
    """Make the `layer_table` for a screen; the weight decay, which all layers share, stands below it."""
    rows = [
        [
            *_names(layer_map, of_layer),
            short_count(_size(of_layer)),
            short_rate(of_layer[0]["lr"], 2),
            f"{of_layer[0]['lr_scale']:.4g}",
            _trains(of_layer, layer_map, later),
        ]
        for of_layer in _layers(groups)
    ]
    header = ["layer", "name", "modules", "size", "lr", "lr scale", "trains"]
    table = text_table(header, rows, right={0, 3, 4, 5}, width=terminal_width(), shrink={1, 2})
    decay = max(group["weight_decay"] for group in groups)
    without = " (none for norms, biases and other vectors)" if decay else ""
    return "\n".join([table, *map(wrapped, [f"weight decay {decay:g}{without}", *layer_map.notes])])


def _layers(groups: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Put the groups of each layer together, in the order of the groups."""
    layers: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for group in groups:
        layers.setdefault((group["layer_id"], group["stack"]), []).append(group)
    return list(layers.values())


def _names(layer_map: LayerMap, of_layer: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the layer id, the layer's name and its modules."""
    layer_id, stack = of_layer[0]["layer_id"], of_layer[0]["stack"]
    modules = common_modules(name for group in of_layer for name in group["param_names"])
    return [str(layer_id), layer_map.layer_name(layer_id, stack), modules]


def _size(of_layer: Sequence[Mapping[str, Any]], only_trainable: bool = False) -> int:
    return sum(p.numel() for group in of_layer for p in group["params"] if p.requires_grad or not only_trainable)


def _trains(of_layer: Sequence[Mapping[str, Any]], layer_map: LayerMap, later: Collection[int]) -> str:
    trainable = _size(of_layer, only_trainable=True)
    if not trainable:
        return "later" if layer_map.aligned_layer(of_layer[0]["param_names"][0]) in later else "frozen"
    return "yes" if trainable == _size(of_layer) else short_count(trainable)
