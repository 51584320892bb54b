"""The end of a run: its summary, and everything that its folder holds beside recipe and metrics."""

import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nlp_ft.errors import printable
from nlp_ft.layerwise.freezing import count_parameters
from nlp_ft.tasks.outputs import Predictions, score_table
from nlp_ft.training.layer_table import layer_table
from nlp_ft.training.loop import LoopState
from nlp_ft.training.model_card import model_card, peak_memory_bytes, versions, write_json
from nlp_ft.training.parts import Parts
from nlp_ft.training.precision import precision_name
from nlp_ft.training.run_folder import SUMMARY_TO_BE


def summarize(parts: Parts, state: LoopState, predictions: Mapping[str, Predictions]) -> dict[str, Any]:
    """What summary.json holds, but for what other parts of the run add.

    `effective_batch_size` is in rows; with a number of tokens for each batch, their mean over an epoch.
    """
    total, trainable = count_parameters(parts.model)
    wants_baselines = parts.recipe.baselines and parts.accelerator.is_main_process
    return {
        "strategy": parts.recipe.strategy.name,
        "seed": parts.recipe.seed,
        "metrics": {split: of_split.scores() for split, of_split in predictions.items()},
        "baselines": parts.task.score_baselines() if wants_baselines else {},
        "train_seconds": state.train_seconds,
        "train_examples_per_second": state.train_examples / state.train_seconds,
        "num_parameters": total,
        "num_trainable_parameters": trainable,
        "peak_memory_bytes": peak_memory_bytes(parts.accelerator.device),
        "global_step": state.global_step,
        "best_step": state.best_step,
        "stopped_early": state.stopped_early,
        "effective_batch_size": parts.stream.effective_batch_size,
        "num_processes": parts.accelerator.num_processes,
        "device": parts.accelerator.device.type,
        "precision": precision_name(parts.accelerator),
        "versions": versions(parts.task.libraries),
    }


def save_run(parts: Parts, summary: dict[str, Any], predictions: Mapping[str, Predictions]) -> None:
    """Fill the partial folder and give it its name."""
    folder = parts.folder.partial
    parts.model.save_pretrained(folder)
    parts.task.save_preprocessor(folder)
    for split, of_split in predictions.items():
        of_split.write_tables(folder, split)
    scores = {**summary["metrics"], **{f"baseline: {name}": s for name, s in summary["baselines"].items()}}
    table = score_table(scores, parts.outputs.shown_metrics)
    (folder / "layers.txt").write_text(layer_table(parts.layer_map, _initial(parts.optimizer)) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(parts.task.card(parts.model), summary, table), encoding="utf-8")
    write_json(folder / SUMMARY_TO_BE, summary)
    _share_mode(folder)
    parts.folder.finish()
    print(
        f"\n{table}\n\n{summary['train_seconds']:.1f} s of training, "
        f"{summary['train_examples_per_second']:.0f} examples/s; the run folder is {parts.folder.final}\n"
        f"next: nlp-ft predict {printable(shlex.quote(parts.recipe.output_dir))} {parts.task.example_input}"
    )


def _share_mode(folder: Path) -> None:
    """Let every file have the mode that an open file got here: safetensors writes for the owner alone."""
    mode = stat.S_IMODE((folder / SUMMARY_TO_BE).stat().st_mode)
    for file in folder.iterdir():
        if file.is_file() and not file.is_symlink():
            file.chmod(mode)


def _initial(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{**group, "lr": group["initial_lr"]} for group in optimizer.param_groups]
