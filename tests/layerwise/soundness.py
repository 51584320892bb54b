"""What must hold for a model of any make, asked from outside: of trials, of freezing, of the partition.

Each question gives the names for which it does not hold; empty when all is well.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


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
