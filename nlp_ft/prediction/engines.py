"""Models that OpenVINO or ONNX Runtime computes, out of the folders that `nlp-ft export` writes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from transformers import PreTrainedConfig

from nlp_ft.errors import ModelError
from nlp_ft.extras import require_engine
from nlp_ft.training.durable import content_hash
from nlp_ft.training.run_folder import EXPORT

Compute = Callable[[Mapping[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Export:
    """What export.json holds.

    Args:
        engine: `openvino` or `onnx`.
        inputs: names of the inputs in the order of the graph.
        is_int8: whether weights and activations are 8-bit integers.
        hashes: file name of each part of the graph -> hash of its content.
    """

    engine: str
    inputs: tuple[str, ...]
    is_int8: bool
    hashes: Mapping[str, str]

    @staticmethod
    def of_folder(folder: Path) -> "Export":
        """Read it. Raises: ModelError: it is damaged, or the graph is not the one that was checked."""
        try:
            found = json.loads((folder / EXPORT).read_text(encoding="utf-8"))
            names = ("engine", "inputs", "is_int8", "hashes")
            export = Export(**{name: found[name] for name in names})
            known = export.engine in FILES and FILES[export.engine] in export.hashes
        except (OSError, ValueError, TypeError, KeyError):
            known = False
        if not known:
            raise ModelError(f"{EXPORT} is damaged; export the run again")
        for name, expected in export.hashes.items():
            if not (folder / name).is_file() or content_hash(folder / name) != expected:
                raise ModelError(f"{name} is not the file that was checked when it was exported; export the run again")
        return export


class EngineModel(torch.nn.Module):
    """A model whose forward pass another engine computes, on the CPU; it cannot be trained.

    Args:
        folder: the export.
        config: its config.json, which holds the labels.

    Raises:
        ModelError: the export is damaged.
        MachineError: the engine is not installed.
    """

    def __init__(self, folder: Path, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.export = Export.of_folder(folder)
        self._compute = ENGINES[self.export.engine](folder / FILES[self.export.engine])

    def get_input_embeddings(self) -> torch.nn.Module:
        """Raise NotImplementedError: the engine shows no layers."""
        raise NotImplementedError

    def forward(self, **inputs: torch.Tensor) -> SimpleNamespace:
        """Compute the `logits`, (batch, ...), of inputs as the original model takes them, (batch, ...)."""
        arrays = {name: inputs[name].cpu().numpy() for name in self.export.inputs}
        return SimpleNamespace(logits=torch.from_numpy(self._compute(arrays)))


def openvino_compute(file: Path) -> Compute:
    """Load a graph of OpenVINO, for float32 where it has no integers. Raises: MachineError: it is not installed.

    Not for bf16: OpenVINO 2026.4 is suspected of writing over the memory of others there.
    """
    openvino = require_engine("openvino")
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(file, "CPU", settings)
    # A copy, as the engine writes the next result into the same memory.
    return lambda arrays: np.array(compiled(dict(arrays))[0])


def onnx_compute(file: Path) -> Compute:
    """Load a graph of ONNX, which ONNX Runtime computes in float32. Raises: MachineError: it is not installed."""
    onnxruntime = require_engine("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def compute(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        logits: np.ndarray = session.run(None, dict(arrays))[0]
        return logits

    return compute


FILES = {"openvino": "openvino_model.xml", "onnx": "model.onnx"}
"""Engine -> the file of its graph; the names are those that Optimum looks for."""
ENGINES: dict[str, Callable[[Path], Compute]] = {"openvino": openvino_compute, "onnx": onnx_compute}
