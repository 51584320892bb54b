"""Top blocks that begin anew, as on a freshly built model."""

import torch
from torch import nn

from nlp_ft.layerwise import LayerMap


def reinit_top(model: nn.Module, fresh: nn.Module, layer_map: LayerMap, blocks: int) -> None:
    """Copy the top blocks, and all above them such as a pooler, from a model of random weights.

    On few samples it helps more than layer-wise decay (Zhang et al. 2021, https://arxiv.org/abs/2006.05987).

    Args:
        model: changed in place: parameters, and the buffers beside them.
        fresh: a model of the same structure.
        layer_map: of both.
        blocks: how many, counted from the top; of each tower.
    """
    lowest = layer_map.num_layers - blocks + 1
    top = {name for name, _ in model.named_parameters() if layer_map.aligned_layer(name) >= lowest}
    modules = dict(fresh.named_modules())
    with torch.no_grad():
        for module_name, module in model.named_modules():
            own = dict(module.named_parameters(recurse=False))
            if own and all(f"{module_name}.{name}".lstrip(".") in top for name in own):
                other = modules[module_name]
                for name, tensor in [*own.items(), *module.named_buffers(recurse=False)]:
                    tensor.copy_(getattr(other, name))
