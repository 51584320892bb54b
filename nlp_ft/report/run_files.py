"""Reads the files of a finished run folder; what a run of an older version did not write is left out."""

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nlp_ft.errors import RecipeError, RunFolderError
from nlp_ft.recipe.loader import read_yaml

SUMMARY, RECIPE, METRICS, LAYERS = "summary.json", "recipe.yaml", "metrics.jsonl", "layers.jsonl"
EXPORT = "export.json"
TRAIN_HARDEST = "train_hardest.csv"
STUDIES = {"nlp-ft compare": ("comparison.json", "cells"), "nlp-ft tune": ("tune.json", "trials")}
"""Command -> the file that its folder has, and the folder of its runs there."""


def read_summary(folder: Path, file: str = SUMMARY) -> dict[str, Any]:
    """Read the summary of a run. Raises: RunFolderError: the folder is no finished run."""
    refuse_export(folder)
    try:
        summary: dict[str, Any] = json.loads((folder / file).read_text(encoding="utf-8"))
        metrics = summary["metrics"]
        if not isinstance(metrics, Mapping) or not all(isinstance(of_split, Mapping) for of_split in metrics.values()):
            raise ValueError("its metrics are no section")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{folder} is not a finished run that can be read: {error}; {_instead(folder)}") from None
    return summary


def _instead(folder: Path) -> str:
    """Say what to name instead of a folder that is no run."""
    for kind, (file, runs) in STUDIES.items():
        if (folder / file).exists():
            return f"it is the folder of {kind}, whose runs lie in {folder / runs}; name one of these, or several"
    return "name a folder that nlp-ft train has written"


def refuse_export(folder: Path) -> None:
    """Check that a folder is no export, whose scores are those of its run. Raises: RunFolderError."""
    if (folder / EXPORT).exists():
        raise RunFolderError(
            f"{folder} is an export, and the files in it are those of its run; name the run that it was made of, or "
            "score the export with nlp-ft eval"
        )


def read_recipe(folder: Path) -> dict[str, Any]:
    """Read the recipe of a run as nested settings. Raises: RunFolderError: it is missing or damaged."""
    try:
        return dict(read_yaml(folder / RECIPE))
    except RecipeError as error:
        raise RunFolderError(f"{folder} is not a finished run that can be read: {error}") from None


def read_records(file: Path) -> list[dict[str, Any]]:
    """Read a file of JSON Lines; none if it does not exist. Raises: RunFolderError: a line is no JSON object."""
    if not file.exists():
        return []
    records = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            float(record["step"])
        except (ValueError, KeyError, TypeError):
            raise RunFolderError(f"{file}, line {number}: must be a JSON object with a step") from None
        records.append(record)
    return records


def read_table(file: Path) -> tuple[list[str], list[list[str]]]:
    """Read a CSV file: its header, and its rows, each as long as the header; both empty if there is no file."""
    if not file.exists():
        return [], []
    with _long_fields(), file.open(newline="", encoding="utf-8") as stream:
        header, *rows = [*csv.reader(stream)] or [[]]
    return header, [row for row in rows if len(row) == len(header)]


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let CSV fields be of any length: a text may be longer than the 131,072 characters that Python allows."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
