"""Records the course of a run in metrics.jsonl and in the trackers of the recipe."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import recipe_to_dict
from nlp_ft.training import durable
from nlp_ft.training.checkpoint import METRICS
from nlp_ft.training.loop_state import LoopState
from nlp_ft.training.run_folder import RunFolder, writing

LAYERS = "layers.jsonl"


class MetricsLog:
    """Writes metrics.jsonl, one JSON object with a `step` on each line, and starts and feeds the trackers.

    The main process writes.

    Args:
        folder: the run folder.
        accelerator: the accelerator of the run, which has the trackers.
        recipe: the settings, which the trackers show.
        state: the state of the loop, which knows the speed.
        text: content of the file at the last checkpoint; the resumed run writes the later lines again.

    Raises:
        RunFolderError: the disk refuses the file.
    """

    def __init__(
        self, folder: RunFolder, accelerator: Accelerator, recipe: Recipe, state: LoopState, text: str
    ) -> None:
        self.folder, self.accelerator, self.state = folder, accelerator, state
        self.file = folder.partial / METRICS
        if accelerator.is_main_process:
            with writing(folder.final):
                durable.write_text(self.file, text)
        if recipe.trackers:
            _start_trackers(accelerator, recipe, folder.run_id, state.global_step)

    def record(self, values: dict[str, Any]) -> None:
        """Append one record; `values` has a `step`. Raises: RunFolderError: the disk refuses it."""
        if self.accelerator.is_main_process:
            with writing(self.folder.final), self.file.open("a", encoding="utf-8", newline="") as stream:
                stream.write(json.dumps(values) + "\n")
        if self.accelerator.trackers:
            speed = self.state.train_examples / self.state.train_seconds
            self.accelerator.log(tracked(values, speed), step=values["step"])

    def record_layers(self, record: Mapping[str, Any]) -> None:
        """Give the trackers a record of the layers; layers.jsonl is written at the end, from the state of the loop."""
        if self.accelerator.trackers:
            self.accelerator.log(tracked_layers(record), step=record["step"])

    def read(self) -> str:
        """Return the records so far, one JSON object a line; an empty text on processes other than the main one."""
        return self.file.read_text(encoding="utf-8") if self.accelerator.is_main_process else ""

    def close(self, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Write layers.jsonl, give the trackers the scores of the splits that were not seen, and let them finish.

        Call it before the folder gets its final name: the writer of TensorBoard opens its file by name.

        Args:
            scores: split -> metric -> value.

        Raises:
            RunFolderError: the disk refuses the file.
        """
        if self.accelerator.is_main_process and self.state.layer_records:
            lines = [json.dumps(record) for record in self.state.layer_records]
            with writing(self.folder.final):
                (self.folder.partial / LAYERS).write_text("\n".join([*lines, ""]), encoding="utf-8", newline="")
        final = {f"{split}/{key}": v for split, of in scores.items() if split != "validation" for key, v in of.items()}
        # Not `accelerator.end_training`, which would cut a second run in this process off from the other processes.
        for tracker in self.accelerator.trackers:
            if final:
                tracker.log(final, step=self.state.global_step)
            tracker.finish()


def tracked(values: Mapping[str, Any], examples_per_second: float) -> dict[str, float]:
    """Name the values of a record for the trackers: `train/loss`, `lr/block 6`, `validation/accuracy`, ..."""
    named: dict[str, float] = {"epoch": values["epoch"]}
    if "loss" in values:
        named |= {"train/loss": values["loss"], "train/examples_per_second": examples_per_second}
        named |= {"phase": values["phase"], **{f"lr/{name}": rate for name, rate in values["learning_rates"].items()}}
    return named | {f"validation/{name}": value for name, value in values.get("validation", {}).items()}


def tracked_layers(record: Mapping[str, Any]) -> dict[str, float]:
    """Name the values of a record of layers for the trackers: `gradient_norm/block 6`, `seconds/forward`, ..."""
    return {f"{what}/{name}": value for what, of in record.items() if what != "step" for name, value in of.items()}


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to `a.b` -> value, a form that every tracker can show."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat


def _start_trackers(accelerator: Accelerator, recipe: Recipe, run_id: str, done: int) -> None:
    """Start the trackers so that each shows one run, also after `done` steps before a resume."""
    again = {"resume": "allow"}
    options = {
        # TensorBoard hides what an interrupted process wrote after the checkpoint.
        "tensorboard": {"purge_step": done + 1 if done else None},
        "wandb": {"id": run_id, **again},
        "trackio": {"name": run_id, **again},
    }
    accelerator.init_trackers(Path(recipe.output_dir).name, init_kwargs=options)
    settings = flat_settings(recipe_to_dict(recipe))
    for tracker in accelerator.trackers:
        if tracker.name != "tensorboard":
            tracker.store_init_configuration(settings)
        elif accelerator.is_main_process:
            _show_settings(tracker.tracker, settings)


def _show_settings(writer: Any, settings: dict[str, Any]) -> None:
    """Write settings for the page HPARAMS of TensorBoard into the events of the run.

    `SummaryWriter.add_hparams`, which Accelerate calls, would write them as a second run, in a folder of its own.
    """
    from torch.utils.tensorboard.summary import hparams

    for summary in hparams(settings, {}):  # type: ignore[no-untyped-call]
        writer.file_writer.add_summary(summary)
    writer.flush()
