"""The order in which the modules of a model run, recorded by hooks on one forward pass."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass
class Execution:
    """Name of a module -> when it was first entered and last left, in events since the start."""

    entered: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)

    def first_entered(self, *paths: str) -> int:
        """When the first module at or under these paths was entered."""
        return min(time for name, time in self.entered.items() if is_at(name, paths))

    def last_left(self, *paths: str) -> int:
        """When the last module at or under these paths was left."""
        return max(time for name, time in self.left.items() if is_at(name, paths))


def is_at(name: str, paths: Iterable[str]) -> bool:
    """Whether a dotted name is one of the paths or lies under one: `layer.1` is not at or under `layer.10`."""
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def record(model: nn.Module, run: Callable[[], Any]) -> Execution:
    """What `run` makes the modules of the model do; no gradients are kept."""
    execution = Execution()
    clock = iter(range(10**9))
    hooks = []
    for name, module in model.named_modules():

        def enter(*_: Any, name: str = name) -> None:
            execution.entered.setdefault(name, next(clock))

        def leave(*_: Any, name: str = name) -> None:
            execution.left[name] = next(clock)

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return execution
