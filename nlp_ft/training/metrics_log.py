"""Records the course of a run in metrics.jsonl and in the trackers of the recipe."""

import json
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator

from nlp_ft.training import durable
from nlp_ft.training.checkpoint import METRICS
from nlp_ft.training.run_folder import RunFolder, writing


class MetricsLog:
    """Writes metrics.jsonl, one JSON object with a `step` on each line; the main process writes.

    Args:
        folder: the run folder.
        accelerator: the accelerator of the run; its trackers also get each record.
        text: content of the file at the last checkpoint; the resumed run writes the later lines again.

    Raises:
        RunFolderError: the disk refuses the file.
    """

    def __init__(self, folder: RunFolder, accelerator: Accelerator, text: str) -> None:
        self.folder, self.accelerator = folder, accelerator
        self.file = folder.partial / METRICS
        if accelerator.is_main_process:
            with writing(folder.final):
                durable.write_text(self.file, text)

    def record(self, values: dict[str, Any]) -> None:
        """Append one record; `values` has a `step`. Raises: RunFolderError: the disk refuses it."""
        if self.accelerator.is_main_process:
            with writing(self.folder.final), self.file.open("a", encoding="utf-8", newline="") as stream:
                stream.write(json.dumps(values) + "\n")
        if self.accelerator.trackers:
            self.accelerator.log(flat_settings(values), step=values["step"])

    def read(self) -> str:
        """Return the records so far, one JSON object a line; an empty text on processes other than the main one."""
        return self.file.read_text(encoding="utf-8") if self.accelerator.is_main_process else ""

    def close(self) -> None:
        """Let the trackers finish."""
        # Not `accelerator.end_training`, which would cut a second run in this process off from the other processes.
        for tracker in self.accelerator.trackers:
            tracker.finish()


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to `a.b` -> value, a form that every tracker can show."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat
