"""Writes a traced model as a graph of OpenVINO or ONNX, in float32 or with 8-bit integers."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram

from nlp_ft.errors import ModelError
from nlp_ft.extras import require_engine
from nlp_ft.models.loading import reason_of
from nlp_ft.prediction.engines import FILES

Arrays = Mapping[str, np.ndarray]


def write_openvino(
    program: ExportedProgram, names: Sequence[str], folder: Path, calibration: Sequence[Arrays] | None = None
) -> None:
    """Write `openvino_model.xml` and `.bin`.

    Args:
        program: the traced model.
        names: names of its inputs.
        folder: where to write.
        calibration: batches that show the range of every activation, for 8-bit integers; None keeps float32.

    Raises:
        MachineError: OpenVINO or, for 8-bit integers, NNCF is not installed.
    """
    openvino = require_engine("openvino")
    with quiet():
        model = openvino.convert_model(program)
        for port, name in zip(model.inputs, names, strict=True):
            port.get_tensor().set_names({name})
        model.outputs[0].get_tensor().set_names({"logits"})
        if calibration is not None:
            nncf = require_engine("nncf")
            model = nncf.quantize(
                model,
                nncf.Dataset([dict(arrays) for arrays in calibration]),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(calibration),
            )
        openvino.save_model(model, folder / FILES["openvino"], compress_to_fp16=False)


def write_onnx(
    program: ExportedProgram, names: Sequence[str], folder: Path, calibration: Sequence[Arrays] | None = None
) -> None:
    """Write `model.onnx`; with 8-bit integers, ONNX Runtime finds the range of the activations in each batch.

    See `write_openvino` for the arguments; of `calibration` only counts whether it is None.

    Raises:
        MachineError: a package is not installed.
        ModelError: ONNX has no form for something that the model does.
    """
    require_engine("onnxscript")
    file = folder / FILES["onnx"]
    with quiet():
        try:
            torch.onnx.export(program, (), file, input_names=list(names), output_names=["logits"], external_data=False)
        except torch.onnx.OnnxExporterError as error:
            raise ModelError(
                f"this model cannot be written as ONNX: {reason_of(error.__cause__ or error)}; nothing was written. "
                "--to openvino may take it"
            ) from None
        if calibration is not None:
            quantization = require_engine("onnxruntime.quantization")
            whole = file.with_name("float32.onnx")
            file.rename(whole)
            quantization.quantize_dynamic(whole, file, weight_type=quantization.QuantType.QInt8)
            whole.unlink()


WRITERS = {"openvino": write_openvino, "onnx": write_onnx}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries from printing their progress and their remarks inside the block."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
