"""Builds optimizer groups with layer-wise learning-rate decay (LLRD), and an optimizer over them.

The groups cover ALL parameters, the frozen ones too, and are built once: no group is added or removed later, so
schedules and checkpoints stay valid. An optimizer skips a parameter that has no gradient.
"""

import inspect
import math
from collections.abc import Sequence
from itertools import zip_longest
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import nn

from nlp_ft.defaults import (
    DEEP_HEAD_LR_RATIO,
    LAYER_DECAY,
    LINEAR_HEAD_LR_RATIO,
    LR,
    TAG_HEAD_LR_RATIO,
    WEIGHT_DECAY,
)
from nlp_ft.defaults import Convention as Convention
from nlp_ft.errors import LayerMapError, TrainingError
from nlp_ft.layerwise.checks import check_fits
from nlp_ft.layerwise.layer_map import LayerMap

ULMFIT_GROUPS = 3
NORM_MODULES = (nn.LayerNorm, nn.RMSNorm)


def lr_scales(num_layers: int, layer_decay: float, convention: Convention = "top") -> list[float]:
    """Compute the factor on the base learning rate for the layers 0 (embeddings) to L+1 (head).

    With L blocks and decay d, the factor of block l is, by convention:

    - `top`: d^(L-l). The top block has the base rate; the head has factor 1, or its own rate (`head_lr`).
    - `beit`: d^(L+1-l). The head has the base rate (Bao et al. 2021, https://arxiv.org/abs/2106.08254; MAE and timm).
    - `electra`: d^(L+2-l), as in google-research/electra (Clark et al. 2020, https://arxiv.org/abs/2003.10555).
    - `ulmfit`: the blocks form three groups, the top one has the base rate, and each group below has d times the rate
      of the group above (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, use d = 1/2.6 between the three
      layers of their encoder). With up to three blocks it equals `top`.

    The embeddings have the factor that block 0 would have; under `ulmfit` they come below the lowest group.

    Args:
        num_layers: L, the number of blocks.
        layer_decay: d, in (0, 1]; 1 gives all blocks the same rate.
        convention: one of the names above.

    Returns:
        The factors of the layers 0 to L+1, in order.

    Raises:
        TrainingError: the decay lies outside (0, 1], or the convention is unknown.
    """
    offsets = {"top": 0, "beit": 1, "electra": 2, "ulmfit": 0}
    if convention not in offsets:
        raise TrainingError(f"convention must be one of {', '.join(offsets)}, got {convention!r}")
    if not isinstance(layer_decay, Real) or not 0 < layer_decay <= 1:
        raise TrainingError(f"layer_decay must be in (0, 1], got {layer_decay!r}")
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
    """Group the parameters of a model by layer and by whether they decay, from the head down to the embeddings.

    Args:
        model: the model; it is not changed.
        layer_map: the model's layer map; None builds it.
        lr: base learning rate, above 0.
        layer_decay: factor on the rate from one block to the next below, in (0, 1]; 1 gives all blocks the same rate.
        head_lr: learning rate of the head; None takes `lr`.
        weight_decay: weight decay, at least 0; norms, biases and other parameters of one dimension get none.
        convention: how the factors are counted, see `lr_scales`.

    Returns:
        Groups with `params`, absolute `lr` and `initial_lr`, `weight_decay`, and the labels `name`, `layer_id`,
        `stack` ("" if there is one stack), `lr_scale` (lr / base lr) and `param_names`.

    Raises:
        LayerMapError: a parameter has no layer, or the map is of another model.
        TrainingError: a rate or decay is out of range.
    """
    _check_rates(lr, head_lr, weight_decay)
    layer_map = LayerMap.from_model(model) if layer_map is None else layer_map
    check_fits(model, layer_map)
    heights = {stack: layer_map.blocks_to_head(stack) for stack in layer_map.stacks}
    scales = {stack: lr_scales(height, layer_decay, convention) for stack, height in heights.items()}
    groups = []
    for key, members in _members(model, layer_map):
        lr_scale = scales[key.stack][key.layer_id] if key.below_head else 1.0
        rate = lr * lr_scale
        if head_lr is not None and not key.below_head:
            rate, lr_scale = head_lr, head_lr / lr
        decay = 0.0 if key.is_undecayed else weight_decay
        options = {"lr": rate, "initial_lr": rate, "weight_decay": decay, "lr_scale": lr_scale}
        groups.append(
            {"params": list(members.values()), **options, **key.labels(layer_map), "param_names": list(members)}
        )
    check_partition(model, groups)
    return groups


def head_lr_ratio(model: nn.Module, layer_map: LayerMap, *, trains_alone: bool = False) -> int:
    """Return the rate of a new head divided by the base rate: 100 for one linear layer, 10 for several or for tags.

    A model for tags is told by its class, such as `BertForTokenClassification`; where its head trains alone, it has
    the rate of any other head. The reasons are in docs/defaults.md. A head of several layers may hold a pretrained
    pooler.
    """
    named = model.named_parameters()
    head = [parameter for name, parameter in named if layer_map.aligned_layer(name) == layer_map.head_layer]
    is_linear = sum(parameter.dim() > 1 for parameter in head) == 1
    if not is_linear:
        return DEEP_HEAD_LR_RATIO
    is_for_tags = not trains_alone and type(model).__name__.endswith("ForTokenClassification")
    return TAG_HEAD_LR_RATIO if is_for_tags else LINEAR_HEAD_LR_RATIO


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
    """Build an optimizer with layer-wise learning rates over all parameters of a model.

    The fused kernel is used if the class has one and all parameters are floats on one kind of device; on CPU it is
    several times faster than the plain loop.

    Args:
        model: the model; it is not changed.
        lr: base learning rate, above 0.
        layer_decay: factor on the rate from one block to the next below, in (0, 1].
        head_lr: learning rate of the head; None takes `lr`.
        weight_decay: weight decay, at least 0; norms, biases and other parameters of one dimension get none.
        convention: how the factors are counted, see `lr_scales`.
        layer_map: the model's layer map; None builds it.
        optimizer_class: class of the optimizer.
        **optimizer_kwargs: further keyword arguments of that class.

    Returns:
        An optimizer over the groups of `layerwise_param_groups`.

    Raises:
        LayerMapError: a parameter has no layer.
        TrainingError: a rate or decay is out of range.
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
    if not callable(optimizer_class):
        raise TrainingError(f"optimizer_class must be a class such as torch.optim.AdamW, got {optimizer_class!r}")
    excludes_fused = optimizer_kwargs.get("foreach") or optimizer_kwargs.get("differentiable")
    if not excludes_fused and "fused" in inspect.signature(optimizer_class).parameters:
        optimizer_kwargs.setdefault("fused", _can_fuse(model, optimizer_class))
    return optimizer_class(groups, lr=lr, **optimizer_kwargs)  # type: ignore[call-arg]  # Optimizer itself has no lr


def no_weight_decay_names(model: nn.Module) -> set[str]:
    """List the parameters without weight decay: those of norm modules, biases, and all with fewer than 2 dimensions."""
    names = set()
    for module_name, module in model.named_modules():
        is_norm = isinstance(module, NORM_MODULES) or type(module).__name__.endswith("Norm")
        for name, parameter in module.named_parameters(recurse=False):
            if is_norm or parameter.ndim < 2 or name.endswith("bias"):
                names.add(f"{module_name}.{name}".lstrip("."))
    return names


def check_partition(model: nn.Module, groups: Sequence[dict[str, Any]]) -> None:
    """Check that each parameter of a model is in exactly one group, and that the groups hold no others.

    Raises:
        LayerMapError: a parameter is in no group, in several, or not of this model; the message names it.
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
            "the groups must hold each parameter once: "
            f"in no group: {missing or 'none'}; in several: {repeated or 'none'}; "
            f"not of this model: {foreign or 'none'}"
        )


class _Key(NamedTuple):
    """What the parameters of one group have in common; groups are sorted by it, from the head down."""

    below_head: int
    stack: str
    layer_id: int
    is_undecayed: bool

    def labels(self, layer_map: LayerMap) -> dict[str, Any]:
        """Return the labels `name`, `layer_id` and `stack` of the group."""
        name = layer_map.layer_name(self.layer_id, self.stack) + (", no_weight_decay" if self.is_undecayed else "")
        return {"name": name, "layer_id": self.layer_id, "stack": self.stack}


def _members(model: nn.Module, layer_map: LayerMap) -> list[tuple[_Key, dict[str, nn.Parameter]]]:
    """Sort the parameters of a model into groups; each group holds its parameters by name."""
    no_decay = no_weight_decay_names(model)
    members: dict[_Key, dict[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        below_head = layer_map.below_head(name)
        stack = layer_map.stack(name) if below_head else ""
        key = _Key(below_head, stack, layer_map.layer_id(name), name in no_decay)
        members.setdefault(key, {})[name] = parameter
    return sorted(members.items(), key=lambda item: item[0])


def _check_rates(lr: float, head_lr: float | None, weight_decay: float) -> None:
    given = {"lr": lr, "weight_decay": weight_decay} | ({} if head_lr is None else {"head_lr": head_lr})
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Real | torch.Tensor):
            raise TrainingError(f"{name} must be a number, got {value!r}")
    if not 0 < lr < math.inf:
        raise TrainingError(f"lr must be above 0, got {lr}")
    if head_lr is not None and not 0 < head_lr < math.inf:
        raise TrainingError(f"head_lr must be above 0, got {head_lr}; freeze the head with set_trainable_layers")
    if not 0 <= weight_decay < math.inf:
        raise TrainingError(f"weight_decay must be at least 0, got {weight_decay}")


def _can_fuse(model: nn.Module, optimizer_class: type[torch.optim.Optimizer]) -> bool:
    # For sharded parameters, torch (2.14) has the fused kernel of Adam alone.
    if any(hasattr(parameter, "device_mesh") for parameter in model.parameters()):
        return issubclass(optimizer_class, torch.optim.Adam)
    devices = {parameter.device.type for parameter in model.parameters()}
    floats = all(parameter.is_floating_point() for parameter in model.parameters())
    return floats and len(devices) == 1 and devices <= {"cpu", "cuda", "mps", "xpu"}
