"""Re-initializes the top blocks of a pretrained model."""

import torch
from torch import nn

from nlp_ft.layerwise import LayerMap


def reinit_top(model: nn.Module, fresh: nn.Module, layer_map: LayerMap, blocks: int) -> None:
    """Copy the top blocks, and all layers above them such as a pooler, from a model with random weights.

    With little training data it helps more than layer-wise learning-rate decay (Zhang et al. 2021,
    https://arxiv.org/abs/2006.05987).

    Args:
        model: the model to change in place: parameters, and buffers in the same modules.
        fresh: a model of the same structure with random weights.
        layer_map: the layer map of both.
        blocks: number of blocks from the top; with two towers, in each of them.
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
