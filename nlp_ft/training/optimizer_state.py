"""Takes the state of an optimizer out by the names of its parameters, checks such a state, and puts it back."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nlp_ft.errors import RunFolderError
from nlp_ft.training.whole_tensors import copy_whole

OF_KERNELS = {"fused": None, "foreach": None, "capturable": False, "differentiable": False}
"""Settings that change how an update is computed but not the state that it leaves."""


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Take the state out as `parameter|entry` -> tensor, and the entries that are not tensors in a second dict."""
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, Any] = {}
    for name, (parameter, _) in _named_parameters(optimizer).items():
        for entry, value in optimizer.state.get(parameter, {}).items():
            target: dict[str, Any] = tensors if isinstance(value, torch.Tensor) else scalars
            target[f"{name}|{entry}"] = value
    return tensors, scalars


def refuse_other_state(
    file: Path, entries: Mapping[str, Any], expected_keys: Iterable[str], optimizer: torch.optim.Optimizer
) -> None:
    """Check that a saved state fits an optimizer.

    Kernels do not check the state: with other shapes they crash the process, or compute with memory behind the tensor.

    Args:
        file: file of the state, for the error message.
        entries: `parameter|entry` -> value.
        expected_keys: the keys that were saved.
        optimizer: the optimizer; its groups have `param_names`.

    Raises:
        RunFolderError: an entry is missing, has another shape or type, or belongs to no parameter.
    """
    different = sorted(entries.keys() ^ set(expected_keys))
    found: dict[str, dict[str, Any]] = {}
    for key, value in entries.items():
        name, _, entry = key.rpartition("|")
        found.setdefault(name, {})[entry] = value
    parameters = _named_parameters(optimizer)
    problems = [f"{key} is missing or too much" for key in different]
    problems += [f"{name} is not a parameter of this run" for name in sorted(found.keys() - parameters.keys())]
    for name in sorted(found.keys() & parameters.keys()):
        wanted = _state_after_one_step(optimizer, *parameters[name])
        kinds = {entry: _kind(value) for entry, value in found[name].items()}
        problems += [
            f"{name}|{entry} is {kinds.get(entry, 'missing')} instead of {wanted.get(entry, 'nothing')}"
            for entry in sorted(wanted.keys() | kinds.keys())
            if wanted.get(entry) != kinds.get(entry)
        ]
    if problems:
        raise RunFolderError(f"{file} is of another optimizer: {problems[0]}, and {len(problems) - 1} more differ")


def restore_optimizer(optimizer: torch.optim.Optimizer, entries: Mapping[str, Any]) -> None:
    """Put the state in place; the keys of `entries` are `parameter|entry`."""
    parameters = _named_parameters(optimizer)
    on_device = bool(optimizer.defaults.get("fused") or optimizer.defaults.get("capturable"))
    optimizer.state.clear()
    for key, value in entries.items():
        name, entry = key.rsplit("|", 1)
        parameter, _ = parameters[name]
        # torch keeps the step counter on the CPU, unless a kernel on the device reads it.
        if isinstance(value, torch.Tensor) and (entry != "step" or on_device):
            value = _like(parameter, value) if value.shape == parameter.shape else value.to(parameter.device)
        optimizer.state[parameter][entry] = value


def _like(parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
    """Copy an entry that has a value for each one of the parameter to where the parameter is, sharded as it is."""
    copied = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
    copy_whole(copied, value)
    return copied


def _named_parameters(optimizer: torch.optim.Optimizer) -> dict[str, tuple[nn.Parameter, dict[str, Any]]]:
    """Map names to parameters and their groups."""
    return {
        name: (parameter, group)
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }


def _state_after_one_step(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, group: Mapping[str, Any]
) -> dict[str, str]:
    """Find the kind of each entry by one step of such an optimizer on a small parameter with as many axes."""
    small = nn.Parameter(torch.zeros([min(size, 2) for size in parameter.shape], dtype=parameter.dtype))
    small.grad = torch.zeros_like(small)
    settings = {key: value for key, value in group.items() if key not in ("params", "param_names")}
    changed = {key: value for key, value in OF_KERNELS.items() if key in settings}
    stand_in = type(optimizer)([{**settings, **changed, "params": [small]}])  # type: ignore[call-arg]
    stand_in.step()
    kinds = {}
    for entry, value in stand_in.state[small].items():
        if isinstance(value, torch.Tensor) and value.dim() == parameter.dim():
            shape = [whole if size == 2 else size for size, whole in zip(value.shape, parameter.shape)]
            kinds[entry] = f"{value.dtype} {tuple(shape)}"
        else:
            kinds[entry] = _kind(value)
    return kinds


def _kind(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
