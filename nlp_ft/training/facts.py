"""Collects facts for the summary of a run, and writes it: versions, peak memory, JSON."""

import json
import platform
import resource
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nlp_ft

LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "evaluate", "numpy", "scikit-learn")


def versions(of_task: Sequence[str] = ()) -> dict[str, str]:
    """Collect the versions of nlp_ft, Python and the libraries that a result depends on, those of the task included."""
    return {
        "nlp_ft": nlp_ft.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in (*LIBRARIES, *of_task)},
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Measure the peak memory in bytes: of the accelerator if there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Read from /proc, because on Linux getrusage includes the memory of the process that started this one.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write JSON with line breaks, for people to read."""
    file.write_text(json.dumps(values, indent=2, default=_plain) + "\n", encoding="utf-8")


def _plain(value: object) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")
