"""A run, from a recipe to a run folder. Read `train`, then `_train`; build.py makes the objects that they use."""

import time
from typing import Any

from accelerate import Accelerator

from nlp_ft.recipe import Recipe
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
from nlp_ft.training.sharding import unshard
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
    parts = build.run_parts(recipe, accelerator)
    announce(parts, accelerator)
    create_folder(folder, parts.recipe, accelerator, parts.model)
    # Before a checkpoint is restored, because drift is counted from the weights of the start.
    recorder = Recorder.of_groups(parts.optimizer.param_groups, parts.settings.total_steps, recipe.report)
    checkpoints = CheckpointManager(folder, accelerator, parts)
    state = checkpoints.restore()
    log = MetricsLog(folder, accelerator, parts.recipe, state, checkpoints.metrics_so_far)
    parts.unfreezer.state = state.unfreeze
    parts.unfreezer.begin_step(state.global_step)
    features = cache_of_run(parts, state, accelerator, folder.tag)
    row_losses = RowLosses(parts.task.data.windows("train"), parts.settings, state, accelerator, recipe.report)
    hooks = LoopHooks(
        evaluate=lambda: parts.evaluator.predict("validation", features).scores_with_confidence(),
        save_best=checkpoints.save_best,
        load_best=checkpoints.load_best,
        save=checkpoints.save,
        record=log.record,
        record_layers=log.record_layers,
        shown=parts.task.outputs.progress_metrics,
        asked_to_stop=signals.asked,
    )
    with signals.deferred():
        if recipe.strategy.probe is not None:
            Probe(recipe.strategy.probe, parts.recipe, parts.task, parts.model, state, accelerator, hooks).run()
        else:
            loss = parts.task.make_loss()
            trained = accelerator, parts.model, parts.optimizer, parts.unfreezer, loss, parts.stream, parts.settings
            Loop(*trained, hooks, state, features, recorder, row_losses).run()
    checkpoints.load_kept(state)
    calibration = calibrate(recipe.training.calibration, parts.model, parts.evaluator)
    answers = parts.evaluator.predict_all()
    predictions = {split: of_split for split, of_split in answers.items() if split != "train"}
    hardest = parts.evaluator.predict_hardest(*row_losses.highest(), answers["train"].outputs)
    unshard(parts.model, parts.layered.layer_map, accelerator)
    summary = summarize(parts, state, predictions, accelerator) | {"total_seconds": time.perf_counter() - started}
    summary |= {"data_hashes": hashes_of_data(checkpoints.identity, parts.report), **calibration}
    summary["verdict"] = verdict_of_run(parts, state, answers, summary, log.read())
    with signals.deferred():
        log.close(summary["metrics"])
        save_run(folder, parts, summary, predictions, hardest, accelerator)
    return summary
