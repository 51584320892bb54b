"""Checkpoints: all that a run needs to continue to bit-identical results, in safetensors and JSON, without pickles.

Learning rates, data order and dropout are functions of the step and the seed, so no generator or scheduler is saved.
A checkpoint is written under another name, synced to the disk and renamed; only then are older ones removed. The hash
of each file is saved too, and a checkpoint that differs by one bit is refused before anything is loaded.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from nlp_ft.errors import RunFolderError
from nlp_ft.training import durable
from nlp_ft.training.optimizer_state import refuse_other_state, restore_optimizer
from nlp_ft.training.whole_tensors import copy_whole

WEIGHTS, OPTIMIZER, METRICS, STATE = "model.safetensors", "optimizer.safetensors", "metrics.jsonl", "state.json"
HASHES = "hashes.json"
ADVICE = "put it back as it was, or pass --overwrite to begin anew"


def save_checkpoint(
    folder: Path,
    step: int,
    weights: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    scalars: Mapping[str, Any],
    state: Mapping[str, Any],
    metrics: str = "",
) -> None:
    """Write `folder/step-XXXXXXXX` and remove the checkpoints before it.

    Args:
        folder: the folder of all checkpoints of the run.
        step: number of optimizer steps done.
        weights: the `model_tensors` of the model, whole.
        moments: the tensors of `optimizer_state`, whole.
        scalars: its entries that are no tensors.
        state: further values to save, which JSON can hold.
        metrics: the present content of metrics.jsonl.
    """
    target, writing = folder / f"step-{step:08d}", folder / "writing"
    folder.mkdir(exist_ok=True)
    shutil.rmtree(writing) if writing.is_dir() else writing.unlink(missing_ok=True)
    writing.mkdir()
    save_file(dict(weights), writing / WEIGHTS)
    save_file(dict(moments), writing / OPTIMIZER)
    (writing / METRICS).write_text(metrics, encoding="utf-8", newline="")
    saved = {"step": step, **state, "optimizer_entries": sorted({*moments, *scalars}), "optimizer_scalars": scalars}
    (writing / STATE).write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
    hashes = {name: durable.content_hash(writing / name) for name in (WEIGHTS, OPTIMIZER, METRICS, STATE)}
    (writing / HASHES).write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")
    durable.sync_tree(writing)
    durable.rename(writing, target)
    for older in folder.glob("step-*"):
        if older != target:
            shutil.rmtree(older)


def latest_checkpoint(folder: Path) -> Path | None:
    """Find the last whole checkpoint; None if there is none."""
    return max((path for path in folder.glob("step-*") if _step_of(path)), default=None)


def step_of_latest(folder: Path) -> int | None:
    """Read the number of steps of the last whole checkpoint; None if there is none."""
    latest = latest_checkpoint(folder)
    return None if latest is None else _step_of(latest)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Check every file of a checkpoint against its hash, and read its values that are not tensors.

    Raises:
        RunFolderError: a file is missing or has another hash, or the step differs from the one in the folder's name.
    """
    hashes = _read_json(checkpoint / HASHES)
    for name in (WEIGHTS, OPTIMIZER, METRICS, STATE):
        require_unchanged(checkpoint / name, hashes.get(name))
    state = _read_json(checkpoint / STATE)
    if state.get("step") != _step_of(checkpoint):
        raise RunFolderError(f"{checkpoint} holds the checkpoint after step {state.get('step')}; {ADVICE}")
    return state


def require_unchanged(file: Path, expected: str | None) -> None:
    """Check a file. Raises: RunFolderError: it is missing, or its content does not have the expected hash."""
    try:
        found = durable.content_hash(file)
    except OSError as error:
        raise RunFolderError(f"{file} cannot be read: {error.strerror}; {ADVICE}") from None
    if found != expected:
        raise RunFolderError(f"{file} is damaged: its content is not what was written; {ADVICE}")


def load_checkpoint(
    checkpoint: Path, state: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Restore weights and optimizer state.

    Args:
        checkpoint: folder of the checkpoint.
        state: what `read_state` returned for it.
        model: the model to change in place.
        optimizer: the optimizer to change in place.

    Raises:
        RunFolderError: the checkpoint belongs to another model or optimizer; nothing has been changed.
    """
    weights, tensors = _read_tensors(checkpoint / WEIGHTS), _read_tensors(checkpoint / OPTIMIZER)
    entries = {**tensors, **state["optimizer_scalars"]}
    _refuse_other_model(checkpoint / WEIGHTS, weights, model)
    refuse_other_state(checkpoint / OPTIMIZER, entries, state["optimizer_entries"], optimizer)
    _copy_tensors(weights, model)
    restore_optimizer(optimizer, entries)


def model_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Collect the parameters of a model (a tied one once) and the buffers of its state dict, as name -> tensor."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    saved = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return {name: tensor.contiguous() for name, tensor in {**parameters, **buffers}.items()}


def load_model_tensors(file: Path, model: nn.Module) -> None:
    """Copy the file's tensors into the model. Raises: RunFolderError: the names, shapes or types differ."""
    tensors = _read_tensors(file)
    _refuse_other_model(file, tensors, model)
    _copy_tensors(tensors, model)


def _copy_tensors(tensors: Mapping[str, torch.Tensor], model: nn.Module) -> None:
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in tensors.items():
        copy_whole(own[name], tensor)


def _refuse_other_model(file: Path, tensors: Mapping[str, torch.Tensor], model: nn.Module) -> None:
    expected = model_tensors(model)
    different = sorted(n for n in tensors.keys() | expected.keys() if _kind(tensors, n) != _kind(expected, n))
    if different:
        raise RunFolderError(
            f"{file} is of another model: {different[0]} is {_kind(tensors, different[0])} there and "
            f"{_kind(expected, different[0])} here, and {len(different) - 1} more differ"
        )


def _kind(tensors: Mapping[str, torch.Tensor], name: str) -> str:
    return f"{tensors[name].dtype} {tuple(tensors[name].shape)}" if name in tensors else "missing"


def _read_tensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"{file} cannot be read: {error}; {ADVICE}") from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{file} cannot be read: {error}; {ADVICE}") from None
    if not isinstance(values, dict):
        raise RunFolderError(f"{file} is damaged: it must hold a JSON object; {ADVICE}")
    return values


def _step_of(checkpoint: Path) -> int | None:
    match = re.fullmatch(r"step-([0-9]{8,12})", checkpoint.name)
    return int(match[1]) if match else None
