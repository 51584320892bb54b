"""The end of a run: writes the summary and all files of the run folder except recipe and metrics."""

import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from nlp_ft.errors import printable
from nlp_ft.layerwise import Unfreezer
from nlp_ft.layerwise.freezing import count_parameters
from nlp_ft.models.loading import quiet_transformers
from nlp_ft.models.lora import FOLDER as ADAPTER_FOLDER
from nlp_ft.recipe.derived import in_words
from nlp_ft.report.run_files import TRAIN_HARDEST
from nlp_ft.screen import program, say, show, typed_command
from nlp_ft.tables import terminal_width
from nlp_ft.tasks.baselines import are_wanted, short_title
from nlp_ft.tasks.outputs import Predictions, score_table
from nlp_ft.tasks.task import Task
from nlp_ft.training.agreement import errors_of_all, require_equal_weights
from nlp_ft.training.build import RunParts
from nlp_ft.training.facts import peak_memory_bytes, versions, write_json
from nlp_ft.training.layer_table import layer_table
from nlp_ft.training.loop_state import LoopState
from nlp_ft.training.model_card import calibration_line, model_card
from nlp_ft.training.precision import precision_name
from nlp_ft.training.probe.table import probe_table
from nlp_ft.training.run_folder import SUMMARY_TO_BE, RunFolder, writing
from nlp_ft.training.verdict.judge import format_verdict, is_useless

REPORT = "report.html"
ROWS_SHOWN = 12
"""Most rows of the table that stands on the screen at the end."""


def summarize(
    parts: RunParts, state: LoopState, predictions: Mapping[str, Predictions], accelerator: Accelerator
) -> dict[str, Any]:
    """Collect the values of summary.json that the parts of the run know; the caller adds the others. Collective.

    `effective_batch_size` is in rows; if batches are counted in tokens, it is the mean number of rows over an epoch.

    Raises:
        TrainingError: the processes no longer hold the same weights.
    """
    recipe, task = parts.recipe, parts.task
    total, trainable = count_parameters(parts.model)
    wants_baselines = accelerator.is_main_process and are_wanted(recipe.baselines, len(task.data.encoded["train"]))
    return {
        "strategy": recipe.strategy.name,
        "seed": recipe.seed,
        "metrics": {split: of_split.scores() for split, of_split in predictions.items()},
        "margins": {split: of_split.margins(recipe.training.metric) for split, of_split in predictions.items()},
        "baselines": task.score_baselines() if wants_baselines else {},
        "train_seconds": state.train_seconds,
        "train_examples_per_second": state.train_examples / state.train_seconds,
        "num_parameters": total,
        "num_trainable_parameters": trainable,
        "peak_memory_bytes": peak_memory_bytes(accelerator.device),
        "global_step": state.global_step,
        "metric": recipe.training.metric if "validation" in predictions else None,
        "best_value": state.best_value,
        "best_step": state.best_step,
        "keep": recipe.training.keep,
        "stopped_early": state.stopped_early,
        "phases": _phases(parts.unfreezer),
        **({} if state.probe is None else {"probe": state.probe}),
        "effective_batch_size": parts.stream.effective_batch_size,
        "num_processes": accelerator.num_processes,
        "device": accelerator.device.type,
        "precision": precision_name(accelerator),
        "command": typed_command(),
        "versions": versions(task.libraries),
        "weights_hashes": require_equal_weights(accelerator, parts.model),
        "data": parts.report,
        "derived": in_words(parts.derived),
    }


def save_run(
    folder: RunFolder,
    parts: RunParts,
    summary: dict[str, Any],
    predictions: Mapping[str, Predictions],
    hardest: Predictions | None,
    accelerator: Accelerator,
) -> None:
    """Fill the partial folder, give it its name, and print the scores; collective.

    Raises:
        RunFolderError: the disk refuses a file.
    """
    with errors_of_all(accelerator):
        if accelerator.is_main_process:
            with writing(folder.final), quiet_transformers():
                _fill(folder.partial, parts, summary, predictions, hardest)
                if parts.recipe.report:
                    _report(folder)
                _share_mode(folder.partial)
                folder.finish()
            _show_result(folder, parts.task, summary, predictions)


def _show_result(
    folder: RunFolder, task: Task, summary: dict[str, Any], predictions: Mapping[str, Predictions]
) -> None:
    """Show the table of the last split, the scores, and where they are; on a quiet screen the scores alone."""
    place = printable(str(folder.final))
    for split, of_split in list(predictions.items())[-1:]:
        if table := of_split.table(most=ROWS_SHOWN):
            say(f"\n{split} (as a file: {split}_{of_split.outputs.table_file} in the run folder)\n{table}")
    if scores := _titled(summary):
        say("")
        show(score_table(scores, task.outputs.shown_metrics, terminal_width()))
    for split, of_split in list(predictions.items())[-1:]:
        say(f"\n{split}: {of_split.intervals(summary['margins'][split])}")
    if summary["best_step"]:
        name, step = summary["metric"].replace("_", " "), f"step {summary['best_step']} of {summary['global_step']}"
        kept = "that model" if summary["keep"] == "best" else "the last model"
        say(f"\nthe best {name} on validation, {summary['best_value']:.4f}, was at {step}; {kept} is kept")
    if "calibration" in summary:
        say(f"\n{calibration_line(summary['calibration'])}")
    say(f"\n{format_verdict(summary['verdict'])}\n")
    say(f"{summary['train_seconds']:.1f} s of training, {summary['train_examples_per_second']:.0f} examples/s")
    say(f"run folder: {place}")
    if (folder.final / REPORT).exists():
        say(f"report: {printable(str(folder.final / REPORT))}")
    if is_useless(summary["verdict"]):
        say("next: make the first change above, and train again with --overwrite")
    else:
        say(f"next: {program()} predict {printable(shlex.quote(str(folder.final)))} {task.example_input}")


def _fill(
    place: Path,
    parts: RunParts,
    summary: dict[str, Any],
    predictions: Mapping[str, Predictions],
    hardest: Predictions | None,
) -> None:
    """Write model, preprocessor, tables, model card and summary; adapters go into a folder and into the weights."""
    task, layered = parts.task, parts.layered
    outputs = next((of_split.outputs for of_split in predictions.values()), task.outputs)
    # Before the adapter is saved: the outputs may change the head, which the adapter holds too.
    outputs.write_to(layered.model)
    if layered.adapters is not None:
        layered.adapters.save_and_merge(layered.model, place / ADAPTER_FOLDER)
    layered.model.save_pretrained(place)
    task.save_preprocessor(place)
    for split, of_split in predictions.items():
        of_split.write_tables(place, split)
    if hardest is not None:
        hardest.write_rows(place / TRAIN_HARDEST)
    scores = score_table(_titled(summary), task.outputs.shown_metrics)
    has_probe = "probe" in summary
    layers = probe_table(summary["probe"]) if has_probe else layer_table(layered.layer_map, _initial(parts.optimizer))
    (place / "layers.txt").write_text(f"{layers}\n", encoding="utf-8")
    card = model_card(task.card(layered.model), parts.recipe, summary, scores, layers)
    (place / "README.md").write_text(card, encoding="utf-8")
    write_json(place / SUMMARY_TO_BE, summary)


def _report(folder: RunFolder) -> None:
    """Write the report of the run; a run whose report fails is finished all the same."""
    # Imported here: matplotlib takes a second.
    try:
        from nlp_ft.report.write import write_report

        name = folder.final.name
        write_report(folder.partial, folder.partial / REPORT, summary_file=SUMMARY_TO_BE, name=name)
    except Exception as error:
        show(f"warning: no report was written ({type(error).__name__}: {error}); all else of the run is there")


def _phases(unfreezer: Unfreezer) -> list[dict[str, Any]]:
    """Say of each phase after which step it began, why, and which layers train in it."""
    plan, state = unfreezer.plan, unfreezer.state
    layers = [plan.schedule.layer_names(phase.layers) for phase in plan.schedule.phases]
    return [
        {"step": step, "layers": names, "why": why}
        for step, names, why in zip(state.starts, layers, plan.reasons(state))
    ]


def _titled(summary: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the scores of the splits, and of the baselines on the last one, under the titles of their rows."""
    _, baselines = next(reversed(summary["baselines"].items()), ("", {}))
    return {**summary["metrics"], **{f"vs {short_title(name)}": of for name, of in baselines.items()}}


def _share_mode(folder: Path) -> None:
    """Give every file the mode of a file opened here: safetensors makes files that only the owner can read."""
    mode = stat.S_IMODE((folder / SUMMARY_TO_BE).stat().st_mode)
    for file in (*folder.iterdir(), *(folder / ADAPTER_FOLDER).glob("*")):
        if file.is_file() and not file.is_symlink():
            file.chmod(mode)


def _initial(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{**group, "lr": group["initial_lr"]} for group in optimizer.param_groups]
