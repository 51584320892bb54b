"""Decides which modules are in eval mode while some layers are frozen, and keeps them there.

A module's mode (train or eval) decides whether it draws random numbers, as `F.dropout(..., training=self.training)`
does. A container such as BART's encoder draws some between its layers; they must not reach a frozen layer.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Set
from functools import partial
from inspect import unwrap
from types import CodeType
from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from nlp_ft.layerwise.layer_map import LayerMap

DRAWING = {"rand", "rand_like", "randn", "bernoulli"}
FUNCTIONAL = {"functional", "F"}
"""Names in the code of a module that draws random numbers itself. `self.dropout(...)` calls a module with a mode of its
own, and `F.batch_norm` draws none."""

Pin = Literal["whole", "own", "inside"]
"""What is kept in eval mode. `whole`: the module and all modules in it. `own`: the module alone. `inside`: the module
alone, and only during its forward pass."""


def modules_to_pin(model: nn.Module, layer_map: LayerMap, layers: Collection[int]) -> dict[nn.Module, Pin]:
    """Find the modules that must be in eval mode while only the given layers train.

    Args:
        model: the model, whose `requires_grad` flags are set already.
        layer_map: the model's layer map.
        layers: ids of the layers that train, as `LayerMap.aligned_layer` counts them.

    Returns:
        Module -> how much of it must be in eval mode.
    """
    held = _layers_within(model, layer_map)
    pinned: dict[nn.Module, Pin] = {}
    before = 0
    for path, module in model.named_modules():
        own = held[path]
        if (own and own.isdisjoint(layers)) or (path in layer_map.embedding_modules and 0 not in layers):
            pinned[module] = "whole"
        elif keeps_statistics(module) and not (_trains(module) if own else before in layers):
            # Its weights are frozen, or without any the layer before it: its running statistics must not move either.
            pinned[module] = "whole"
        elif own - set(layers):
            # The module spans frozen and trainable layers. Children of the one that holds the head belong to the head.
            if layer_map.head_layer not in own:
                between = (child for child in module.children() if not _has_parameters(child))
                pinned.update({child: "whole" for child in between if not keeps_statistics(child)})
            if path and layer_map.head_layer not in own:
                pinned.setdefault(module, "own")
            elif draws_itself(module):
                # Loops read the mode of the whole model to restore it after an evaluation, so it must not be pinned.
                pinned[module] = "inside"
        before = max(own) if own and not module._modules else before
    return pinned


def keep_in_eval(model: nn.Module, pinned: Mapping[nn.Module, Pin]) -> None:
    """Keep the pinned modules in eval mode, whatever `model.train()` says, and release all others.

    Args:
        model: the model.
        pinned: the result of `modules_to_pin`.
    """
    whole = {inner for module, pin in pinned.items() if pin == "whole" for inner in module.modules()}
    for module in model.modules():
        _release(module)
    # `train` and not the flags: a module may have a `train` method that keeps a part of the module in eval mode.
    model.train(model.training)
    for module in model.modules():
        if module in whole:
            _pin(module, _stay)
        elif pinned.get(module) == "own":
            _pin(module, _pass_on)
        elif pinned.get(module) == "inside":
            module.register_forward_pre_hook(_enter)
            module.register_forward_hook(_leave, always_call=True)


def _pin(module: nn.Module, train: Callable[..., nn.Module]) -> None:
    module.__dict__["train"] = partial(train, module, own=module.__dict__.get("train"))
    module.training = False


def draws_itself(module: nn.Module) -> bool:
    """Whether the code of a module itself draws random numbers in train mode, judged by the names in that code."""
    kinds = [kind for kind in type(module).__mro__ if "forward" in vars(kind)]
    methods = vars(kinds[0]).values() if kinds and kinds[0] is not nn.Module else ()
    used = [set(_names(unwrap(method).__code__)) for method in methods if hasattr(unwrap(method), "__code__")]
    return any("training" in names and _has_draw(names) for names in used)


def _has_draw(names: Set[str]) -> bool:
    drops = any("dropout" in name for name in names) and names & FUNCTIONAL
    return bool(drops or names & DRAWING)


def is_kept_inside(module: nn.Module) -> bool:
    """Whether `keep_in_eval` holds the module in eval mode during its forward pass."""
    return _enter in module._forward_pre_hooks.values()


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _layers_within(model: nn.Module, layer_map: LayerMap) -> dict[str, set[int]]:
    """Map the path of each module to the layers of all parameters in it; a tied weight counts under all its names."""
    held: dict[str, set[int]] = {path: set() for path, _ in model.named_modules(remove_duplicate=False)}
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        layer = layer_map.aligned_layer(first[id(parameter)])
        path = name.rpartition(".")[0]
        while path:
            held[path].add(layer)
            path = path.rpartition(".")[0]
        held[""].add(layer)
    return held


def keeps_statistics(module: nn.Module) -> bool:
    """Whether a module itself keeps running statistics of what passes through it, as BatchNorm does."""
    return isinstance(module, _NormBase) and module.running_mean is not None


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _release(module: nn.Module) -> None:
    """Remove what `keep_in_eval` put on a module, and restore a `train` that somebody else had put on it."""
    train = module.__dict__.get("train")
    if isinstance(train, partial) and train.func in (_stay, _pass_on):
        del module.__dict__["train"]
        if train.keywords["own"] is not None:
            module.__dict__["train"] = train.keywords["own"]
    hooks: list[dict[int, Any]] = [module._forward_pre_hooks, module._forward_hooks]
    for ours, kept in zip((_enter, _leave), hooks):
        for key in [key for key, hook in kept.items() if hook is ours]:
            del kept[key]
            module._forward_hooks_always_called.pop(key, None)


def _stay(module: nn.Module, mode: bool = True, own: Any = None) -> nn.Module:
    return module


def _pass_on(module: nn.Module, mode: bool = True, own: Callable[[bool], Any] | None = None) -> nn.Module:
    """Set the mode of the modules inside, and keep the module itself in eval mode."""
    type(module).train(module, mode) if own is None else own(mode)
    module.training = False
    return module


def _enter(module: nn.Module, args: Any) -> None:
    module.__dict__["_mode_outside"] = module.training
    module.training = False


def _leave(module: nn.Module, args: Any, output: Any) -> None:
    module.training = module.__dict__.pop("_mode_outside", module.training)
