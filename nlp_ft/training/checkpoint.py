"""Checkpoints: everything a run needs to go on to the bit, in safetensors and JSON. Nothing is pickled.

Learning rates, data order and dropout are functions of the step and the seed, so no generator or scheduler is saved.
A checkpoint is written under another name and renamed: a crash leaves the last whole one.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from nlp_ft.errors import RunFolderError


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write `folder/step-XXXXXXXX` and remove the checkpoints before it."""
    target = folder / f"step-{step:08d}"
    writing = folder / "writing"
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    tensors, scalars = _optimizer_state(optimizer)
    save_file(model_tensors(model), writing / "model.safetensors")
    save_file(tensors, writing / "optimizer.safetensors")
    (writing / "state.json").write_text(json.dumps({**state, "optimizer_scalars": scalars}, indent=2))
    if target.exists():
        shutil.rmtree(target)
    writing.rename(target)
    for older in folder.glob("step-*"):
        if older != target:
            shutil.rmtree(older)


def latest_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint, or None."""
    return max(folder.glob("step-*"), default=None)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint holds beside tensors. Raises: RunFolderError: it cannot be read."""
    try:
        state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{checkpoint / 'state.json'} cannot be read: {error}; pass --overwrite") from None
    return state


def load_checkpoint(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put weights and optimizer state back in place.

    Raises:
        RunFolderError: the checkpoint is of another model or optimizer.
    """
    load_model_tensors(checkpoint / "model.safetensors", model)
    scalars = read_state(checkpoint)["optimizer_scalars"]
    _restore_optimizer(optimizer, _read_tensors(checkpoint / "optimizer.safetensors"), scalars)


def model_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, a tied one once, and the buffers that are saved with a model."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    saved = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return {name: tensor.contiguous() for name, tensor in {**parameters, **buffers}.items()}


def load_model_tensors(file: Path, model: nn.Module) -> None:
    """Copy the file's tensors into the model. Raises: RunFolderError: the names or shapes differ."""
    tensors, own = _read_tensors(file), {**dict(model.named_parameters()), **dict(model.named_buffers())}
    expected = model_tensors(model)
    different = [n for n in tensors.keys() | expected.keys() if _shape(tensors, n) != _shape(expected, n)]
    if different:
        raise RunFolderError(f"{file} is of another model: {sorted(different)[0]} and {len(different) - 1} more differ")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _read_tensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"{file} cannot be read: {error}; pass --overwrite to begin anew") from None


def _shape(tensors: dict[str, torch.Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def _named_parameters(optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    return {
        name: parameter
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }


def _optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state as `parameter|entry` -> tensor, and the entries that are no tensors likewise."""
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, Any] = {}
    for name, parameter in _named_parameters(optimizer).items():
        for entry, value in optimizer.state.get(parameter, {}).items():
            target: dict[str, Any] = tensors if isinstance(value, torch.Tensor) else scalars
            target[f"{name}|{entry}"] = value
    return tensors, scalars


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], scalars: dict[str, Any]
) -> None:
    parameters = _named_parameters(optimizer)
    on_device = bool(optimizer.defaults.get("fused") or optimizer.defaults.get("capturable"))
    optimizer.state.clear()
    for key, value in {**tensors, **scalars}.items():
        name, entry = key.rsplit("|", 1)
        parameter = parameters[name]
        # torch keeps the step counter on the CPU unless a kernel on the device reads it.
        if isinstance(value, torch.Tensor) and (entry != "step" or on_device):
            value = value.to(parameter.device)
        optimizer.state[parameter][entry] = value
