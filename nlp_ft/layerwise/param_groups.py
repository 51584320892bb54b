"""Optimizer groups with layer-wise learning-rate decay (LLRD), and a builder for the optimizer over them.

The groups cover ALL parameters, the frozen ones too, and are built once: no group is added or removed later, so that
schedules and checkpoints stay valid. An optimizer skips a parameter that has no gradient.
"""

import inspect
import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import nn

from nlp_ft.defaults import LAYER_DECAY, LR, WEIGHT_DECAY
from nlp_ft.defaults import Convention as Convention
from nlp_ft.errors import LayerMapError, TrainingError
from nlp_ft.layerwise.layer_map import LayerMap

ULMFIT_GROUPS = 3
NORM_MODULES = (nn.LayerNorm, nn.RMSNorm)


def lr_scales(num_layers: int, layer_decay: float, convention: Convention = "top") -> list[float]:
    """Factor on the base learning rate of layers 0 (embeddings) to L+1 (head).

    With L blocks and decay d, block l has the factor
        "top"      d^(L-l)    the top block has the base rate; the head its own (factor 1, see `head_lr`)
        "beit"     d^(L+1-l)  the head has the base rate (Bao et al. 2021, https://arxiv.org/abs/2106.08254; MAE, timm)
        "electra"  d^(L+2-l)  as google-research/electra does it (Clark et al. 2020, https://arxiv.org/abs/2003.10555)
    and the embeddings that of a block 0. Under "ulmfit" d stands between thirds of the blocks, of which the top one has
    the base rate, and the embeddings come below the last (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, have
    d = 1/2.6 between the three layers of their encoder); with fewer than three blocks it is "top".

    Raises:
        TrainingError: the decay lies outside (0, 1], or the convention has another name.
    """
    offsets = {"top": 0, "beit": 1, "electra": 2, "ulmfit": 0}
    if convention not in offsets:
        raise TrainingError(f"convention must be one of {', '.join(offsets)}, got {convention!r}")
    if not 0 < layer_decay <= 1:
        raise TrainingError(f"layer_decay must be in (0, 1], got {layer_decay}")
    if convention == "ulmfit" and num_layers > ULMFIT_GROUPS:
        below_top = [(num_layers - layer_id) * ULMFIT_GROUPS // num_layers for layer_id in range(num_layers + 1)]
        return [layer_decay**groups for groups in below_top] + [1.0]
    top = num_layers + offsets[convention]
    return [layer_decay ** (top - layer_id) for layer_id in range(num_layers + 1)] + [1.0]


def layerwise_param_groups(
    model: nn.Module,
    layer_map: LayerMap | None = None,
    *,
    lr: float = LR,
    layer_decay: float = LAYER_DECAY,
    head_lr: float | None = None,
    weight_decay: float = WEIGHT_DECAY,
    convention: Convention = "top",
) -> list[dict[str, Any]]:
    """One group for each layer and for decayed or not, from the head down to the embeddings.

    Args:
        model: the model; it is not changed.
        layer_map: its layer map; None builds it.
        lr: base learning rate, above 0.
        layer_decay: factor from one block to the next below, in (0, 1]; 1 gives all blocks the same rate.
        head_lr: learning rate of the head; None takes `lr`.
        weight_decay: at least 0; norms, biases and other parameters of one dimension get none.
        convention: how the factors are counted, see `lr_scales`.

    Returns:
        Groups with `params`, absolute `lr` and `initial_lr`, `weight_decay`, and the labels `name`, `layer_id`,
        `stack` (the tower, "" where there is one), `lr_scale` (lr / base lr) and `param_names`.

    Raises: LayerMapError: a parameter has no layer. TrainingError: a rate or decay is out of range.
    """
    _check_rates(lr, head_lr, weight_decay)
    layer_map = layer_map or LayerMap.from_model(model)
    heights = {stack: layer_map.blocks_to_head(stack) for stack in layer_map.stacks}
    scales = {stack: lr_scales(height, layer_decay, convention) for stack, height in heights.items()}
    no_decay = no_weight_decay_names(model)
    members: dict[tuple[int, str, int, bool], dict[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        below_head, layer_id = layer_map.below_head(name), layer_map.layer_id(name)
        stack = layer_map.stack(name) if below_head else ""
        members.setdefault((below_head, stack, layer_id, name in no_decay), {})[name] = parameter
    groups = []
    for (below_head, stack, layer_id, undecayed), of_group in sorted(members.items(), key=lambda item: item[0]):
        scale = scales[stack][layer_id] if below_head else 1.0
        rate = lr * scale if below_head or head_lr is None else head_lr
        groups.append(
            {
                "params": list(of_group.values()),
                "lr": rate,
                "initial_lr": rate,
                "weight_decay": 0.0 if undecayed else weight_decay,
                "name": layer_map.layer_name(layer_id, stack) + (", no_weight_decay" if undecayed else ""),
                "layer_id": layer_id,
                "stack": stack,
                "lr_scale": scale if below_head or head_lr is None else head_lr / lr,
                "param_names": list(of_group),
            }
        )
    check_partition(model, groups)
    return groups


def build_optimizer(
    model: nn.Module,
    *,
    lr: float = LR,
    layer_decay: float = LAYER_DECAY,
    head_lr: float | None = None,
    weight_decay: float = WEIGHT_DECAY,
    convention: Convention = "top",
    layer_map: LayerMap | None = None,
    optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
    **optimizer_kwargs: Any,
) -> torch.optim.Optimizer:
    """An optimizer over `layerwise_param_groups` of all parameters; AdamW unless another class is given.

    The fused kernel is used where the class has one and all parameters are floats on one kind of device; on CPU it is
    several times faster than the plain loop. Further keywords go to the optimizer's class.
    """
    groups = layerwise_param_groups(
        model,
        layer_map,
        lr=lr,
        layer_decay=layer_decay,
        head_lr=head_lr,
        weight_decay=weight_decay,
        convention=convention,
    )
    if "fused" in inspect.signature(optimizer_class).parameters:
        optimizer_kwargs.setdefault("fused", _can_fuse(model))
    return optimizer_class(groups, lr=lr, **optimizer_kwargs)  # type: ignore[call-arg]  # Optimizer itself has no lr


def no_weight_decay_names(model: nn.Module) -> set[str]:
    """Names of the parameters that are not decayed: those of norm modules, biases, and all of one dimension or none."""
    names = set()
    for module_name, module in model.named_modules():
        is_norm = isinstance(module, NORM_MODULES) or type(module).__name__.endswith("Norm")
        for name, parameter in module.named_parameters(recurse=False):
            if is_norm or parameter.ndim < 2 or name.endswith("bias"):
                names.add(f"{module_name}.{name}".lstrip("."))
    return names


def check_partition(model: nn.Module, groups: Sequence[dict[str, Any]]) -> None:
    """Prove that each parameter of the model is in exactly one group, and nothing else is.

    Raises:
        LayerMapError: with the names of the parameters that are in no group, in several, or in none of this model.
    """
    count: dict[int, int] = {}
    for group in groups:
        for parameter in group["params"]:
            count[id(parameter)] = count.get(id(parameter), 0) + 1
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    missing = [name for key, name in names.items() if key not in count]
    repeated = [names.get(key, "a parameter of another model") for key, times in count.items() if times > 1]
    labelled = [pair for group in groups for pair in zip_longest(group["params"], group.get("param_names", ()))]
    foreign = [name or "unnamed" for parameter, name in labelled if id(parameter) not in names]
    if missing or repeated or foreign:
        raise LayerMapError(
            "the groups are no partition of the parameters: "
            f"in no group: {missing or 'none'}; in several: {repeated or 'none'}; "
            f"not of this model: {foreign or 'none'}"
        )


def _check_rates(lr: float, head_lr: float | None, weight_decay: float) -> None:
    if not 0 < lr < math.inf:
        raise TrainingError(f"lr must be above 0, got {lr}")
    if head_lr is not None and not 0 < head_lr < math.inf:
        raise TrainingError(f"head_lr must be above 0, got {head_lr}; to freeze the head is not a matter of its rate")
    if not 0 <= weight_decay < math.inf:
        raise TrainingError(f"weight_decay must be at least 0, got {weight_decay}")


def _can_fuse(model: nn.Module) -> bool:
    devices = {parameter.device.type for parameter in model.parameters()}
    floats = all(parameter.is_floating_point() for parameter in model.parameters())
    return floats and len(devices) == 1 and devices <= {"cpu", "cuda", "mps", "xpu"}
