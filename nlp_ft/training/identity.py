"""Identifies a run, so that a resumed run can compare itself with its checkpoint.

A difference in data, model or settings is refused by name; one that changes results by rounding alone gives a warning.
"""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from nlp_ft.data.columns import content_of
from nlp_ft.errors import RunFolderError
from nlp_ft.tasks.task import Task
from nlp_ft.training.facts import versions
from nlp_ft.training.loop_state import LoopSettings

VERSION_KEYS = ("transformers_version", "_name_or_path")
"""Keys of a model's configuration that say which version wrote it and where it was loaded from."""


def identity_of(task: Task, model: PreTrainedModel, settings: LoopSettings, micro_batches: int) -> dict[str, Any]:
    """Collect what must be equal on a resume; the keys are words for an error message, the values JSON."""
    config = {key: value for key, value in model.config.to_dict().items() if key not in VERSION_KEYS}
    return {
        "micro-batches of an effective batch, over all processes": micro_batches,
        "steps of the run": settings.total_steps,
        "steps of an epoch": settings.steps_per_epoch,
        "label names": content_of(task.data.label_names),
        **task.identity(),
        "configuration of the model": content_of(sorted(config.items(), key=str)),
    }


def hashes_of_data(identity: Mapping[str, Any], splits: Iterable[str]) -> dict[str, str]:
    """Hash the inputs and labels of each split, as they are without a tokenizer: split -> hash."""
    return {
        split: content_of(
            [
                (name, value)
                for name, value in sorted(identity.items())
                if name.endswith(f" of {split}") and not name.startswith("token ids")
            ]
        )
        for split in splits
    }


def refuse_other_identity(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare identities. Raises: RunFolderError: naming everything that differs from what `folder` was begun with."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if names:
        shown = [
            f"{name} ({before.get(name)} then, {now.get(name)} now)" if isinstance(now.get(name), int) else name
            for name in names
        ]
        raise RunFolderError(
            f"--resume: {folder} was begun with other data or on other terms; different: {', '.join(shown)}; "
            "put them back as they were, or pass --overwrite to begin anew"
        )


def environment_of(device: torch.device, precision: str, libraries: Sequence[str]) -> dict[str, str]:
    """Collect what can change results by rounding: threads, processor, device, precision, versions."""
    return {
        "threads": str(torch.get_num_threads()),
        "processor": f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})",
        "device": str(torch.cuda.get_device_name(device)) if device.type == "cuda" else device.type,
        "precision": precision,
        "MKL_CBWR": os.environ.get("MKL_CBWR", "not set"),
        **versions(libraries),
    }


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """List the differences, as in `threads: 1 then, 2 now`."""
    return [
        f"{name}: {before.get(name)} then, {now.get(name)} now"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()
