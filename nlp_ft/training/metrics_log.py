"""The course of a run: metrics.jsonl, and the trackers that the recipe names."""

import json
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator

from nlp_ft.training import durable
from nlp_ft.training.checkpoint import METRICS
from nlp_ft.training.run_folder import RunFolder, writing


class MetricsLog:
    """metrics.jsonl holds one JSON object a line, each with its `step`; the main process writes it.

    Args:
        folder: of the run.
        accelerator: of the run; its trackers get each record too.
        text: what the file holds up to the last checkpoint; lines after that are written again.

    Raises:
        RunFolderError: the disk refuses it.
    """

    def __init__(self, folder: RunFolder, accelerator: Accelerator, text: str) -> None:
        self.folder, self.accelerator = folder, accelerator
        self.file = folder.partial / METRICS
        if accelerator.is_main_process:
            with writing(folder.final):
                durable.write_text(self.file, text)

    def record(self, values: dict[str, Any]) -> None:
        """Append one record, which has a `step`. Raises: RunFolderError: the disk refuses it."""
        if self.accelerator.is_main_process:
            with writing(self.folder.final), self.file.open("a", encoding="utf-8", newline="") as stream:
                stream.write(json.dumps(values) + "\n")
        if self.accelerator.trackers:
            self.accelerator.log(flat_settings(values), step=values["step"])

    def close(self) -> None:
        """Let the trackers finish."""
        # Not `accelerator.end_training`, after which no second run of this process could reach the others.
        for tracker in self.accelerator.trackers:
            tracker.finish()


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `a.b` -> value, which every tracker can show."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat
