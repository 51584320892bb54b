"""Writes the layer table: modules, sizes and learning rates of each layer, and whether it trains."""

from collections.abc import Mapping, Sequence
from typing import Any

from nlp_ft.layerwise import LayerMap
from nlp_ft.layerwise.layer_map import common_modules
from nlp_ft.tables import text_table


def layer_table(layer_map: LayerMap, groups: Sequence[Mapping[str, Any]]) -> str:
    """Make a table with a row for each layer, from the head down: modules, size, rates, weight decay, trainable."""
    rows = []
    for layer_id, stack in dict.fromkeys((group["layer_id"], group["stack"]) for group in groups):
        of_layer = [group for group in groups if (group["layer_id"], group["stack"]) == (layer_id, stack)]
        parameters = [parameter for group in of_layer for parameter in group["params"]]
        trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        size = sum(parameter.numel() for parameter in parameters)
        rows.append(
            [
                str(layer_id),
                layer_map.layer_name(layer_id, stack),
                common_modules(name for group in of_layer for name in group["param_names"]),
                f"{size:,}",
                f"{of_layer[0]['lr']:.3g}",
                f"{of_layer[0]['lr_scale']:.4g}",
                f"{max(group['weight_decay'] for group in of_layer):g}",
                "yes" if trainable == size else "frozen" if trainable == 0 else f"{trainable:,}",
            ]
        )
    header = ["layer", "name", "modules", "parameters", "lr", "lr scale", "weight decay", "trainable"]
    return "\n".join([text_table(header, rows, right={0, 3, 4, 5, 6}), *layer_map.notes])
