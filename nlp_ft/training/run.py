"""A run, from a recipe to a run folder. Read `train`, then `_train`; build.py makes the objects that they use."""

import time
from typing import Any

from accelerate import Accelerator

from nlp_ft.recipe import Recipe
from nlp_ft.recipe.derived import in_words
from nlp_ft.tasks.registry import task_of
from nlp_ft.training import build
from nlp_ft.training.accelerator import start_accelerator
from nlp_ft.training.announce import announce
from nlp_ft.training.calibrate import calibrate
from nlp_ft.training.checkpoint_manager import CheckpointManager
from nlp_ft.training.claim import claimed, create_folder, interruptions_explained
from nlp_ft.training.features.decide import cache_of_run
from nlp_ft.training.identity import hashes_of_data
from nlp_ft.training.loop import Loop
from nlp_ft.training.loop_state import LoopHooks
from nlp_ft.training.metrics_log import MetricsLog
from nlp_ft.training.probe.solve import Probe
from nlp_ft.training.recorder import Recorder
from nlp_ft.training.row_losses import RowLosses
from nlp_ft.training.run_folder import RunFolder
from nlp_ft.training.save import save_run, summarize
from nlp_ft.training.sharding import placed, unshard
from nlp_ft.training.signals import StopSignals
from nlp_ft.training.verdict.collect import verdict_of_run


def train(recipe: Recipe, *, resume: bool = False, overwrite: bool = False) -> dict[str, Any]:
    """Fine-tune as the recipe says, and leave a run folder in `recipe.output_dir`.

    Args:
        recipe: the settings of the run.
        resume: whether to continue from the last checkpoint of an unfinished run, if there is one.
        overwrite: whether to replace a run in `output_dir`.

    Returns:
        The content of summary.json.

    Raises:
        NlpFtError: an error that the user can fix; no half-written folder is left.
        Interrupted: Ctrl-C or SIGTERM; during training, a checkpoint is written first.
    """
    folder = RunFolder(recipe.output_dir, resume, overwrite, check=False)
    accelerator = start_accelerator(recipe, folder.partial, may_shard=True)
    signals = StopSignals(accelerator)
    with interruptions_explained(folder, signals), signals.watched(), claimed(folder, recipe, accelerator) as finished:
        return _train(recipe, folder, accelerator, signals) if finished is None else finished


def _train(recipe: Recipe, folder: RunFolder, accelerator: Accelerator, signals: StopSignals) -> dict[str, Any]:
    started = time.perf_counter()
    task = task_of(recipe)
    with accelerator.main_process_first():
        data = task.data
    report = task.describe_data()
    example = build.example_inputs(task)
    layered = build.layered_model(recipe, task, data.label_names, example)
    model = placed(layered.model, layered.layer_map, example, accelerator)
    recipe, derived = build.with_derived(recipe, task, layered, data.lengths("train"), accelerator.num_processes)
    stream = build.stream(recipe, task, accelerator)
    settings = build.loop_settings(recipe, stream.steps_per_epoch, "validation" in data.encoded)
    optimizer = build.optimizer(recipe.optimizer, model, layered.layer_map)
    unfreezer = build.unfreezer(recipe, layered, optimizer, settings)
    evaluator = build.evaluator(recipe, task, model, accelerator)
    announce(recipe, accelerator, task, report, derived, layered, optimizer, unfreezer, stream, settings)
    create_folder(folder, recipe, accelerator, model)
    # Before a checkpoint is restored, because drift is counted from the weights of the start.
    recorder = Recorder.of_groups(optimizer.param_groups, settings.total_steps, recipe.report)
    accumulation = recipe.training.gradient_accumulation_steps
    checkpoints = CheckpointManager(folder, accelerator, task, model, optimizer, settings, accumulation)
    state = checkpoints.restore()
    log = MetricsLog(folder, accelerator, recipe, state, checkpoints.metrics_so_far)
    unfreezer.state = state.unfreeze
    unfreezer.begin_step(state.global_step)
    features = cache_of_run(recipe.training, task, layered, unfreezer.plan, settings, state, accelerator, folder.tag)
    hooks = LoopHooks(
        evaluate=(lambda: evaluator.predict("validation", features).scores_with_confidence())
        if settings.metric
        else None,
        save_best=checkpoints.save_best,
        load_best=checkpoints.load_best,
        save=checkpoints.save,
        record=log.record,
        record_layers=log.record_layers,
        shown=task.outputs.progress_metrics,
        asked_to_stop=signals.asked,
    )
    row_losses = RowLosses(data.windows("train"), settings, state, accelerator, recipe.report)
    parts = optimizer, unfreezer, task.make_loss(), stream, settings, hooks, state, features, recorder, row_losses
    probe = Probe.of(recipe, task, model, state, accelerator, hooks)
    with signals.deferred():
        (probe or Loop(accelerator, model, *parts)).run()
    checkpoints.load_kept(state, settings.metric, recipe.training.keep)
    calibration = calibrate(recipe.training.calibration, layered.model, evaluator)
    answers = evaluator.predict_all()
    predictions = {split: of_split for split, of_split in answers.items() if split != "train"}
    hardest = evaluator.predict_hardest(*row_losses.highest(), answers["train"].outputs)
    unshard(model, layered.layer_map, accelerator)
    summary = summarize(recipe, task, model, stream, state, unfreezer, predictions, accelerator)
    summary |= {"total_seconds": time.perf_counter() - started, "data": report, "derived": in_words(derived)}
    summary |= {"data_hashes": hashes_of_data(checkpoints.identity, report), **calibration}
    summary["verdict"] = verdict_of_run(recipe, task, layered, optimizer, settings, state, answers, summary, log.read())
    with signals.deferred():
        log.close(summary["metrics"])
        save_run(folder, recipe, task, layered, optimizer, summary, predictions, hardest, accelerator)
    return summary
