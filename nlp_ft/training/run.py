"""From a recipe to a run folder: the only place that knows every part. Read `train`, then `_train`."""

import time
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nlp_ft.data.batching import EpochStream, PaddingCollator
from nlp_ft.data.report import describe_data, format_data_report
from nlp_ft.data.text import TextData, load_text_data
from nlp_ft.errors import RunFolderError
from nlp_ft.layerwise import LayerMap, set_trainable
from nlp_ft.layerwise.freezing import count_parameters
from nlp_ft.models.text import build_classifier, freeze_unused_parameters, load_tokenizer, quiet_transformers
from nlp_ft.recipe import Recipe
from nlp_ft.recipe_loader import dump_yaml, recipe_to_dict
from nlp_ft.training import setup
from nlp_ft.training.agreement import require_equal_weights
from nlp_ft.training.artifacts import model_card, peak_memory_bytes, versions, write_class_tables, write_json
from nlp_ft.training.baselines import score_baselines
from nlp_ft.training.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    load_model_tensors,
    model_tensors,
    save_checkpoint,
)
from nlp_ft.training.describe import layer_table, score_table
from nlp_ft.training.evaluation import Predictions, predict_split
from nlp_ft.training.loop import Loop, LoopHooks, LoopSettings, LoopState
from nlp_ft.training.run_folder import SUMMARY, MetricsLog, RunFolder, writing

COPIES_ON_DISK = 8
"""Room a run may need, in copies of the weights: two checkpoints of weights and two moments, the best, the result."""


@dataclass(frozen=True)
class Parts:
    """What a recipe becomes before training begins."""

    recipe: Recipe
    accelerator: Accelerator
    folder: RunFolder
    tokenizer: PreTrainedTokenizerBase
    data: TextData
    model: PreTrainedModel
    layer_map: LayerMap
    optimizer: torch.optim.Optimizer
    collator: PaddingCollator
    stream: EpochStream
    plan: LoopSettings


def train(recipe: Recipe, *, resume: bool = False, overwrite: bool = False) -> dict[str, Any]:
    """Fine-tune as the recipe says, and leave a run folder in `recipe.output_dir`.

    Args:
        recipe: what to do.
        resume: go on from the last checkpoint of an unfinished run, if there is one.
        overwrite: replace a run that is in `output_dir`.

    Returns:
        What summary.json holds.

    Raises:
        NlpFtError: something that the user can mend; no half-written folder is left.
    """
    folder = RunFolder(recipe.output_dir, resume, overwrite)
    accelerator = setup.start_accelerator(recipe, folder.partial)
    accelerator.wait_for_everyone()
    try:
        return _train(recipe, folder, accelerator)
    except BaseException:
        if accelerator.is_main_process:
            folder.discard_if_useless()
        raise


def _train(recipe: Recipe, folder: RunFolder, accelerator: Accelerator) -> dict[str, Any]:
    started = time.perf_counter()
    parts = _build_parts(recipe, folder, accelerator)
    report = describe_data(parts.data)
    _announce(parts, format_data_report(report))
    _open_folder(parts)
    state = _fit(parts)
    predictions = {split: _predict(parts, split) for split in parts.data.encoded if split != "train"}
    scores = {split: of_split.scores() for split, of_split in predictions.items()}
    baselines = _score_baselines(parts) if recipe.baselines and accelerator.is_main_process else {}
    summary = {
        "strategy": recipe.strategy.name,
        "seed": recipe.seed,
        "metrics": scores,
        "baselines": baselines,
        **_costs(parts, state),
        "weights_hashes": require_equal_weights(accelerator, parts.model),
        "total_seconds": time.perf_counter() - started,
        "data": report,
        "versions": versions(),
    }
    if accelerator.is_main_process:
        with writing(folder.final), quiet_transformers():
            _save(parts, summary, predictions)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return summary


def _build_parts(recipe: Recipe, folder: RunFolder, accelerator: Accelerator) -> Parts:
    tokenizer = load_tokenizer(recipe.model)
    with accelerator.main_process_first():
        data = load_text_data(recipe.data, tokenizer)
    model = build_classifier(recipe.model, data.label_names, tokenizer)
    layer_map = LayerMap.from_model(model)
    set_trainable(model, layer_map, setup.lowest_trainable_layer(recipe.strategy, layer_map.num_layers))
    keys = [key for key in ("input_ids", "token_type_ids") if key in data.encoded["train"].column_names]
    collator = PaddingCollator(tokenizer, [*keys, "labels"])
    example = collator([data.encoded["train"][0]])
    example.pop("labels")
    unused = freeze_unused_parameters(model, example)
    if unused:
        accelerator.print(f"never used by this model's forward pass, so frozen: {', '.join(unused)}")
    model.to(accelerator.device)
    optimizer = setup.make_optimizer(recipe.optimizer, model, layer_map)
    stream = setup.make_stream(recipe, data, collator, accelerator)
    plan = setup.plan_steps(recipe.training, stream.steps_per_epoch, recipe.seed, "validation" in data.encoded)
    return Parts(recipe, accelerator, folder, tokenizer, data, model, layer_map, optimizer, collator, stream, plan)


def _announce(parts: Parts, data_report: str) -> None:
    """Say once, before training, what was read and decided."""
    total, trainable = count_parameters(parts.model)
    stream, plan, say = parts.stream, parts.plan, parts.accelerator.print
    say(f"{data_report}\n\n{layer_table(parts.layer_map, parts.optimizer.param_groups)}\n")
    say(f"{type(parts.model).__name__}: {trainable:,} of {total:,} parameters train ({trainable / total:.1%})")
    say(
        f"effective batch {stream.effective_batch_size} = {stream.per_device_batch_size} per device x "
        f"{stream.num_processes} process(es) x {stream.gradient_accumulation_steps} accumulated; "
        f"{plan.total_steps} steps, {plan.steps_per_epoch} an epoch; {parts.accelerator.device.type} in "
        f"{_precision(parts.accelerator)} with {torch.get_num_threads()} thread(s)\n"
    )


def _open_folder(parts: Parts) -> None:
    parameter_bytes = sum(p.numel() * p.element_size() for p in parts.model.parameters())
    if parts.accelerator.is_main_process:
        with writing(parts.folder.final):
            parts.folder.create(dump_yaml(recipe_to_dict(parts.recipe)), COPIES_ON_DISK * parameter_bytes)
    parts.accelerator.wait_for_everyone()
    if parts.recipe.trackers:
        name = Path(parts.recipe.output_dir).name
        parts.accelerator.init_trackers(name, config=setup.tracker_config(recipe_to_dict(parts.recipe)))


def _fit(parts: Parts) -> LoopState:
    """Train, from a checkpoint if there is one, and leave the model as it is to be saved."""
    checkpoint = latest_checkpoint(parts.folder.checkpoints)
    state = _restore(parts, checkpoint) if checkpoint else LoopState()
    log = MetricsLog(parts.folder.partial / "metrics.jsonl", parts.accelerator.is_main_process, state.global_step)
    has_validation = "validation" in parts.data.encoded
    model, optimizer = parts.accelerator.prepare(parts.model, parts.optimizer)

    def record(values: dict[str, Any]) -> None:
        with writing(parts.folder.final):
            log.write(values)
        if parts.recipe.trackers:
            parts.accelerator.log(setup.tracker_config(values), step=values["step"])

    Loop(
        parts.accelerator,
        model,
        optimizer,
        setup.make_schedule(parts.recipe.schedule, parts.plan),
        setup.make_loss(parts.recipe.loss, parts.data),
        parts.stream,
        parts.plan,
        LoopHooks(
            evaluate=(lambda: _predict(parts, "validation").scores()) if has_validation else None,
            save_best=partial(_save_best, parts),
            save=partial(_save_checkpoint, parts),
            record=record,
        ),
        state,
    ).run()
    if has_validation and parts.recipe.training.keep == "best":
        parts.accelerator.wait_for_everyone()
        load_model_tensors(_best_file(parts, state.best_step), parts.model)
    return state


def _restore(parts: Parts, checkpoint: Path) -> LoopState:
    saved = load_checkpoint(checkpoint, parts.model, parts.optimizer)
    if saved["data"] != _data_identity(parts.data):
        raise RunFolderError(f"--resume: the training data are not those that {parts.folder.partial} was begun with")
    state = LoopState(**saved["loop"])
    parts.accelerator.print(f"resuming after step {state.global_step} of {parts.plan.total_steps}")
    return state


def _save_checkpoint(parts: Parts, state: LoopState) -> None:
    require_equal_weights(parts.accelerator, parts.model)
    if not parts.accelerator.is_main_process:
        return
    saved = {"loop": asdict(state), "data": _data_identity(parts.data)}
    with writing(parts.folder.final):
        save_checkpoint(parts.folder.checkpoints, state.global_step, parts.model, parts.optimizer, saved)
        for file in parts.folder.checkpoints.glob("best-*.safetensors"):
            if file != _best_file(parts, state.best_step):
                file.unlink()


def _save_best(parts: Parts, step: int) -> None:
    if not parts.accelerator.is_main_process:
        return
    file = _best_file(parts, step)
    with writing(parts.folder.final):
        file.parent.mkdir(exist_ok=True)
        save_file(model_tensors(parts.model), file.with_suffix(".writing"))
        file.with_suffix(".writing").rename(file)


def _best_file(parts: Parts, step: int) -> Path:
    return parts.folder.checkpoints / f"best-{step:08d}.safetensors"


def _predict(parts: Parts, split: str) -> Predictions:
    return predict_split(
        parts.accelerator,
        parts.model,
        parts.data.encoded[split],
        parts.data.lengths(split),
        parts.collator,
        parts.recipe.training.eval_batch_size,
    )


def _score_baselines(parts: Parts) -> dict[str, dict[str, float]]:
    split = "test" if "test" in parts.data.raw else "validation"
    data = parts.data
    return score_baselines(data.texts("train"), data.labels("train"), data.texts(split), data.labels(split))


def _costs(parts: Parts, state: LoopState) -> dict[str, Any]:
    total, trainable = count_parameters(parts.model)
    return {
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
        "precision": _precision(parts.accelerator),
    }


def _save(parts: Parts, summary: dict[str, Any], predictions: dict[str, Predictions]) -> None:
    """Fill the partial folder and give it its name."""
    folder, data = parts.folder.partial, parts.data
    parts.model.save_pretrained(folder)
    parts.tokenizer.model_max_length = data.max_length
    parts.tokenizer.truncation_side = "left" if parts.recipe.data.truncation == "tail" else "right"
    parts.tokenizer.save_pretrained(folder)
    for split, of_split in predictions.items():
        write_class_tables(folder, split, of_split, data.label_names)
    scores = {**summary["metrics"], **{f"baseline: {name}": s for name, s in summary["baselines"].items()}}
    (folder / "layers.txt").write_text(layer_table(parts.layer_map, _initial(parts.optimizer)) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(
        model_card(parts.model, parts.recipe.model.name, summary, scores), encoding="utf-8"
    )
    write_json(folder / SUMMARY, summary)
    parts.folder.finish()
    print(
        f"\n{score_table(scores)}\n\n{summary['train_seconds']:.1f} s of training, "
        f"{summary['train_examples_per_second']:.0f} examples/s; the run folder is {parts.folder.final}"
    )


def _initial(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{**group, "lr": group["initial_lr"]} for group in optimizer.param_groups]


def _precision(accelerator: Accelerator) -> str:
    return "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision


def _data_identity(data: TextData) -> str:
    columns = data.encoded["train"].with_format("numpy")
    hashes = np.ascontiguousarray(columns["text_hash"][:]), np.ascontiguousarray(columns["labels"][:])
    return blake2b(b"".join(array.tobytes() for array in hashes), digest_size=16).hexdigest()
