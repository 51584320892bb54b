"""What must hold for a model of any make, asked from outside: of trials, of freezing, of the partition.

Each question gives the names for which it does not hold; empty when all is well.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nlp_ft.layerwise import LayerMap, set_trainable


def state_of(model: nn.Module) -> dict[str, Any]:
    """`path: attribute` -> all that can be told of it, configurations and buffers and random numbers included."""
    found: dict[str, Any] = {"random numbers": torch.get_rng_state().tolist()}
    for path, module in model.named_modules(remove_duplicate=False):
        found[f"{path}: class"] = (type(module).__name__, id(module))
        for name, value in vars(module).items():
            found[f"{path}: {name}"] = _told(value)
        for name, buffer in module.named_buffers(recurse=False):
            found[f"{path}: buffer {name}"] = _told(buffer)
    return found


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Keys of what has changed, come or gone."""
    return sorted(key for key in before.keys() | after.keys() if before.get(key, "-") != after.get(key, "-"))


def _told(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return id(value), None if value.is_meta else value.tolist()
    if isinstance(value, dict):
        return [(str(key), id(item) if isinstance(item, nn.Module) else _told(item)) for key, item in value.items()]
    return repr(value.to_dict()) if hasattr(value, "to_dict") else repr(value)


def live_where_frozen(model: nn.Module, layer_map: LayerMap, lowest: int, inputs: Any) -> list[str]:
    """What differs between two passes in train mode though the layers below `lowest` are frozen.

    Told of what the frozen modules with weights of their own give, of what the first module that trains as a whole is
    given (what it draws before its weights is its own), and of what the base model gives where the head alone trains.
    """
    set_trainable(model, layer_map, lowest)
    model.train()
    first, second = (_watched_pass(model, layer_map, lowest, inputs, seed) for seed in (1, 2))
    return [
        name
        for name in first.keys() | second.keys()
        if len(first.get(name, [])) != len(second.get(name, [])) or not all(map(torch.equal, first[name], second[name]))
    ]


def _watched_pass(
    model: nn.Module, layer_map: LayerMap, lowest: int, inputs: Any, seed: int
) -> dict[str, list[torch.Tensor]]:
    seen: dict[str, list[torch.Tensor]] = {}
    entered: set[str] = set()

    def note(name: str, value: Any) -> None:
        if layer_map.shared_layers and name in seen:
            return  # run again after what trains, a frozen block is given something else
        seen.setdefault(name, []).extend(leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))

    def enter(stacks: frozenset[str], module: nn.Module, *given: Any) -> None:
        for stack in stacks - entered:
            note(f"into layer {lowest} of {stack or 'the model'}", given)
        entered.update(stacks)

    hooks: list[Any] = []
    for path, module in model.named_modules():
        names = [f"{path}.{name}".lstrip(".") for name, _ in module.named_parameters()]
        layers = {layer_map.aligned_layer(name) for name in names}
        if next(module.parameters(recurse=False), None) is not None and not _trains(module.parameters()):
            hooks.append(module.register_forward_hook(lambda _, args, out, path=path: note(path, out)))
        elif lowest < layer_map.head_layer and lowest in layers and _trains_whole(module):
            stacks = frozenset(layer_map.stack(name) for name in names)
            hooks.append(module.register_forward_pre_hook(partial(enter, stacks), with_kwargs=True))
    base = getattr(model, "base_model", model)
    if lowest == layer_map.head_layer and base is not model and not any(p.requires_grad for p in base.parameters()):
        hooks.append(base.register_forward_hook(lambda _, args, out: note("base model", out)))
    torch.manual_seed(seed)
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def random_where_frozen(model: nn.Module, layer_map: LayerMap, lowest: int, inputs: Any) -> list[str]:
    """What is drawn at random in train mode before the first module that trains runs, and live batch norms below it.

    The weights may be on the meta device, where there are no numbers to compare.
    """
    set_trainable(model, layer_map, lowest)
    model.train()
    modules = dict(model.named_modules())
    # A head's own dropout may stand before its weights: what holds nothing but what trains is entered there.
    first = [m for m in modules.values() if _trains(m.parameters(recurse=False)) or _trains_whole(m)]
    watch = _Draws()
    hooks = [module.register_forward_pre_hook(lambda *_: watch.stop()) for module in first]
    try:
        with torch.no_grad(), watch:
            model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    frozen = {id(m) for m in modules.values() if not any(p.requires_grad for p in m.parameters())}
    live = [path for path, m in modules.items() if isinstance(m, _NormBase) and m.training and id(m) in frozen]
    return watch.drawn + live


def _trains(parameters: Iterable[nn.Parameter]) -> bool:
    return any(parameter.requires_grad for parameter in parameters)


def _trains_whole(module: nn.Module) -> bool:
    flags = [parameter.requires_grad for parameter in module.parameters()]
    return bool(flags) and all(flags)


class _Draws(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[str] = []
        self._open = True

    def stop(self) -> None:
        self._open = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Attention has the tag at a rate of 0 too.
        is_draw = torch.Tag.nondeterministic_seeded in func.tags and "attention" not in str(func)
        if is_draw and self._open:
            self.drawn.append(str(func))
        return func(*args, **(kwargs or {}))
