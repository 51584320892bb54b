"""Exports a run: traces the model, writes the graph, compares it with the original, and only then keeps it."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from nlp_ft.errors import DataError, ModelError, RunFolderError
from nlp_ft.export.check import Check, batches, compared
from nlp_ft.export.formats import WRITERS, Arrays
from nlp_ft.export.place import require_free_place, writing_graph, written_whole
from nlp_ft.export.program import traced
from nlp_ft.layerwise.unfreezing.triggers import LOWER_IS_BETTER
from nlp_ft.prediction.engines import FILES
from nlp_ft.prediction.exports import made_from
from nlp_ft.prediction.predict import labelled_rows, load_run
from nlp_ft.prediction.trained_run import TrainedRun
from nlp_ft.report.run_files import read_summary
from nlp_ft.training import durable
from nlp_ft.training.run_folder import EXPORT

MOST_DIFFERENCE = 1e-3
"""Difference of a logit from that of the original, up to which a graph in float32 computes the same."""
CALIBRATION_ROWS = 320
EXAMPLE_ROWS = 3
FEWEST_ROWS = 2
"""Rows that an interval can be computed from."""
LEFT_OUT = (".safetensors", ".csv", ".html", ".jsonl", ".md")
"""Endings of the files of a run that belong to the training or to the original weights."""
PACKAGES = {"openvino": ("openvino", "nncf"), "onnx": ("onnx", "onnxruntime")}


def export_run(
    folder: str | Path,
    output: str | Path,
    engine: str,
    *,
    int8: bool = False,
    max_loss: float = 0.5,
    data: str | None = None,
    overwrite: bool = False,
) -> Check:
    """Export a run for another engine.

    Args:
        folder: a run folder.
        output: the folder to write: the graph, the tokenizer or image processor, labels, recipe and summary.
        engine: `openvino` or `onnx`.
        int8: whether to compute with 8-bit integers. OpenVINO's are calibrated on rows of train.
        max_loss: how much of the run's metric 8-bit integers may cost: points of 100; percent for errors and losses.
        data: labelled file(s) to compare on; None takes the validation split of the recipe.
        overwrite: whether to replace an export in `output`.

    Returns:
        The comparison with the original, which export.json holds, too.

    Raises:
        RunFolderError: `folder` is no finished run, or `output` is taken.
        ModelError: the model cannot be traced, or the export computes something else, or costs too much.
        MachineError: the engine is not installed.
        DataError: the rows cannot be read.
    """
    source, place = Path(folder), Path(output)
    require_free_place(place, source, overwrite)
    run = _run_to_export(source, data)
    rows = labelled_rows(run, data, "validation")
    if rows.windows("validation").num_rows < FEWEST_ROWS:
        raise DataError(f"{data or 'data.validation'} must hold {FEWEST_ROWS} rows or more to compare on, got 1")
    with written_whole(place, source, overwrite) as partial:
        example = next(batches(run, rows, "validation", EXAMPLE_ROWS))
        calibration = None if not int8 else _calibration(run) if engine == "openvino" else []
        _write(run, source, partial, engine, example, calibration)
        check = compared(run, load_run(partial), data, "validation")
        require_same(check, int8, max_loss)
        if int8:
            _note_scores(partial, {} if data else {"validation": {check.metric: check.after}})
        settings = json.loads((partial / EXPORT).read_text(encoding="utf-8"))
        durable.write_text(partial / EXPORT, json.dumps({**settings, "check": asdict(check)}, indent=2) + "\n")
    return check


def _run_to_export(folder: Path, data: str | None) -> TrainedRun:
    """Load a run, in float32 on the CPU. Raises: RunFolderError, DataError: it is an export, or has no rows."""
    run = load_run(folder)
    if (folder / EXPORT).exists():
        raise RunFolderError(f"{folder} is an export itself; export the run that it came from")
    if data is None and run.recipe.data.validation is None:
        raise DataError("the recipe of this run has no validation split; name labelled files with --data")
    read_summary(folder)  # the scores of an export are read from it
    run.model.cpu().float().eval()
    return run


def _write(
    run: TrainedRun,
    folder: Path,
    place: Path,
    engine: str,
    example: Mapping[str, torch.Tensor],
    calibration: Sequence[Arrays] | None,
) -> None:
    """Write an export that is not checked yet."""
    for file in folder.iterdir():
        if file.is_file() and file.suffix not in LEFT_OUT and file.name != "layers.txt":
            shutil.copy(file, place)
    program = traced(run.model, example)
    with writing_graph(place.with_suffix("")):
        WRITERS[engine](program, list(example), place, calibration)
    graph = [file for file in place.iterdir() if file.stem == Path(FILES[engine]).stem]
    settings = {
        "engine": engine,
        "inputs": list(example),
        "is_int8": calibration is not None,
        "hashes": {file.name: durable.content_hash(file) for file in graph},
        "made_from": made_from(folder),
        "versions": {name: version(name) for name in PACKAGES[engine]},
        "weights_hashes": json.loads((folder / "summary.json").read_text(encoding="utf-8")).get("weights_hashes"),
    }
    (place / EXPORT).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _calibration(run: TrainedRun) -> list[Arrays]:
    made = batches(run, run.labelled(None, "train"), "train", CALIBRATION_ROWS)
    return [{name: tensor.numpy() for name, tensor in batch.items()} for batch in made]


def _note_scores(folder: Path, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Replace the scores in the summary, which are those of the original weights."""
    file = folder / "summary.json"
    summary = json.loads(file.read_text(encoding="utf-8"))
    durable.write_text(file, json.dumps({**summary, "metrics": scores}, indent=2) + "\n")


def require_same(check: Check, int8: bool, max_loss: float) -> None:
    """Check that an export is worth keeping. Raises: ModelError."""
    if not int8:
        if not check.largest_difference <= MOST_DIFFERENCE:
            raise ModelError(
                f"the exported model computes something else: logits differ by up to {check.largest_difference:.2g}; "
                "nothing was written"
            )
        return
    lower_is_better = check.metric.endswith(LOWER_IS_BETTER)
    lost = 100 * (_growth(check.before, check.after) if lower_is_better else check.before - check.after)
    if not lost <= max_loss:
        unit = "percent" if lower_is_better else "points"
        raise ModelError(
            f"8-bit integers cost {lost:.2f} {unit} of {check.metric.replace('_', ' ')} on {check.rows:,} rows "
            f"({check.before:.4f} -> {check.after:.4f}), more than --max-loss {max_loss:g}; nothing was written"
        )


def _growth(before: float, after: float) -> float:
    """Compute by which share an error grows; what grows from 0 grows without limit."""
    return after / before - 1 if before else (math.inf if after else 0.0)
