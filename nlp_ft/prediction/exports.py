"""Finds the exports that lie beside a run, and chooses the engine that computes its predictions."""

import json
import os
import shlex
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from nlp_ft.errors import RunFolderError
from nlp_ft.screen import note
from nlp_ft.training.durable import content_hash
from nlp_ft.training.run_folder import EXPORT

EXPORTED = {"openvino": "openvino", "onnxruntime": "onnx"}
"""Engine, which is also the name of its package -> the word for its exports in `nlp-ft export --to`."""
ENGINES = ("auto", "torch", *EXPORTED)


def default_place(run: str, engine: str, int8: bool) -> str:
    """Name the export of a run: beside the run, after the engine."""
    # `.` and `runs/mine/..` have no name of their own.
    folder = run if Path(run).name not in ("", "..") else os.path.abspath(run)
    return str(Path(folder).with_name(f"{Path(folder).name}-{engine}{'-int8' if int8 else ''}"))


MADE_FROM = ("*.safetensors", "*config.json", "tokenizer.json", "recipe.yaml")
"""Files of a run that decide what it predicts: weights, labels, tokenizer or image processor, and how texts are cut."""


def made_from(run: Path) -> dict[str, str]:
    """Hash the files of a run from which an export is made."""
    return {file.name: content_hash(file) for file in sorted(file for name in MADE_FROM for file in run.glob(name))}


def engine_of(folder: Path) -> str:
    """Return the engine that computes the model of a run or an export."""
    if not (folder / EXPORT).exists():
        return "torch"
    word = _record(folder).get("engine")
    return next((engine for engine, exported in EXPORTED.items() if exported == word), "unknown")


def folder_with(run: Path, engine: str | None) -> Path:
    """Return the folder whose model an engine computes: the run itself, or its export in float32 beside it.

    Args:
        run: a run folder, or an export.
        engine: one of `ENGINES`; None takes the folder as it is.

    Raises:
        RunFolderError: there is no such export, or it was made from another run; or `run` is an export for another
            engine.
    """
    if engine is not None and engine not in ENGINES:
        raise RunFolderError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if (run / EXPORT).exists():
        if engine not in (None, "auto", own := engine_of(run)):
            raise RunFolderError(
                f"engine {engine}: {run} is an export for {own}; leave the engine out, or name the run it was made from"
            )
        return run
    if engine in (None, "torch"):
        return run
    return _fastest(run) if engine == "auto" else _export_of(run, engine)


def _export_of(run: Path, engine: str) -> Path:
    place = Path(default_place(str(run), EXPORTED[engine], int8=False))
    command = f"nlp-ft export {shlex.quote(str(run))} --to {EXPORTED[engine]}"
    if not (place / EXPORT).exists():
        int8 = Path(f"{place}-int8")
        hint = f", or predict with {int8}, which computes with 8-bit integers" if (int8 / EXPORT).exists() else ""
        raise RunFolderError(f"engine {engine}: there is no export {place} of this run; make it: {command}{hint}")
    if _record(place).get("made_from") != made_from(run):
        raise RunFolderError(
            f"engine {engine}: {place} was not made from {run} as it is now; make it anew: {command} --overwrite"
        )
    return place


def _fastest(run: Path) -> Path:
    """Take the fastest export that changed no prediction, or the run; say which, and why."""
    if torch.accelerator.is_available():
        note("engine: torch, on the accelerator; exports are computed on the processor")
        return run
    places = {engine: Path(default_place(str(run), word, int8=False)) for engine, word in EXPORTED.items()}
    found = {engine: place for engine, place in places.items() if (place / EXPORT).exists()}
    source = made_from(run) if found else {}
    speeds: dict[str, float] = {}
    reasons = []
    for engine, place in found.items():
        if reason := _unfit(_record(place), source, engine):
            reasons.append(f"{place} {reason}")
        else:
            speeds[engine] = _record(place)["check"]["rows_per_second_after"]
    if not speeds:
        note(f"engine: torch; {'; '.join(reasons) or 'no export lies beside the run'}")
        return run
    fastest = max(speeds, key=speeds.__getitem__)
    gain = speeds[fastest] / _record(found[fastest])["check"]["rows_per_second_before"]
    note(
        f"engine: {fastest}, {found[fastest]}: {gain:.1f} times the rows a second of torch when it was exported, and "
        "no prediction changed"
    )
    return found[fastest]


def _unfit(record: Mapping[str, Any], source: Mapping[str, str], engine: str) -> str:
    """Say why an export is not taken of itself; an empty string if it may be."""
    check = record.get("check")
    if not isinstance(check, dict) or record.get("made_from") != source:
        return "was not made from the run as it is now"
    if record["is_int8"]:
        return "computes with 8-bit integers"
    if check["changed"]:
        return "changed predictions"
    if find_spec(engine) is None:
        return f"needs the package {engine}"
    return "" if check["rows_per_second_after"] > check["rows_per_second_before"] else "was slower"


def _record(folder: Path) -> dict[str, Any]:
    """Read export.json; empty if it is damaged."""
    try:
        found = json.loads((folder / EXPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
