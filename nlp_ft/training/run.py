"""From a recipe to a run folder: the only place that knows every part. Read `train`, then `_train`."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from nlp_ft.errors import Interrupted, RunFolderError
from nlp_ft.layerwise.first_token import first_token_only
from nlp_ft.models.text import quiet_transformers
from nlp_ft.models.vocabulary import UsedVocabulary
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import recipe_to_dict
from nlp_ft.training import lock, setup
from nlp_ft.training.agreement import errors_of_all, require_equal_weights
from nlp_ft.training.checkpoint import METRICS, step_of_latest
from nlp_ft.training.features.decide import cache_of_run
from nlp_ft.training.keeper import Keeper
from nlp_ft.training.loop import Loop, LoopHooks, LoopState
from nlp_ft.training.parts import Parts, announce, build_parts
from nlp_ft.training.random_bits import fast_random_bits
from nlp_ft.training.run_folder import MetricsLog, RunFolder, writing
from nlp_ft.training.save import save_run, summarize
from nlp_ft.training.signals import StopSignals
from nlp_ft.training.trimming import trimmed, used_vocabulary, whole

COPIES_ON_DISK = 8
"""Room a run may need, in copies of the weights: two checkpoints of weights and two moments, the best, the result."""


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
        Interrupted: Ctrl-C or SIGTERM; within the steps a checkpoint is written first.
    """
    folder = RunFolder(recipe.output_dir, resume, overwrite, check=False)
    accelerator = setup.start_accelerator(recipe, folder.partial)
    signals = StopSignals(accelerator)
    try:
        with signals.watched(), _claimed(folder, recipe, accelerator) as finished:
            if finished is not None:
                accelerator.print(f"{folder.final} was finished already, but for its name and what had to be tidied up")
                return finished
            return _train(recipe, folder, accelerator, signals)
    except KeyboardInterrupt:
        raise _interrupted(folder, signals.received) from None


@contextmanager
def _claimed(folder: RunFolder, recipe: Recipe, accelerator: Accelerator) -> Iterator[dict[str, Any] | None]:
    """Inside, the folder is this run's alone; gives the summary where the run to resume is finished."""
    with ExitStack() as held:
        finished = None
        with errors_of_all(accelerator):
            if accelerator.is_main_process:
                folder.check()
                held.enter_context(lock.held(folder.final))
                with writing(folder.final):
                    finished = folder.claim(recipe_to_dict(recipe))
        [finished, *_] = gather_object([finished])
        try:
            yield finished
        except BaseException:
            if accelerator.is_main_process:
                folder.discard_if_useless()
            raise


def _interrupted(folder: RunFolder, number: int) -> Interrupted:
    """What the user is told; number is that of the signal."""
    step = step_of_latest(folder.checkpoints)
    kept = (
        "no checkpoint had been written, so there is nothing to go on from"
        if step is None
        else f"the checkpoint after step {step} is kept in {folder.partial}; pass --resume to go on from there"
    )
    name = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
    return Interrupted(f"stopped by {name}; {kept}", 128 + (number or signal.SIGINT))


def _train(recipe: Recipe, folder: RunFolder, accelerator: Accelerator, signals: StopSignals) -> dict[str, Any]:
    started = time.perf_counter()
    parts = build_parts(recipe, folder, accelerator)
    report = parts.task.describe_data()
    announce(parts, parts.task.format_report(report))
    _open_folder(parts)
    vocabulary = used_vocabulary(parts)
    with first_token_only(parts.first_token):
        with trimmed(vocabulary):
            state = _fit(parts, vocabulary, signals)
        predictions = {split: parts.predict(split) for split in parts.data.encoded if split != "train"}
    summary = {
        **summarize(parts, state, predictions),
        "weights_hashes": require_equal_weights(accelerator, parts.model),
        "total_seconds": time.perf_counter() - started,
        "data": report,
    }
    with errors_of_all(accelerator):
        if accelerator.is_main_process:
            with signals.deferred(), writing(folder.final), quiet_transformers():
                save_run(parts, summary, predictions)
    # Not `accelerator.end_training`, after which no second run of this process could reach the others.
    for tracker in accelerator.trackers:
        tracker.finish()
    return summary


def _open_folder(parts: Parts) -> None:
    parameter_bytes = sum(p.numel() * p.element_size() for p in parts.model.parameters())
    with errors_of_all(parts.accelerator):
        if parts.accelerator.is_main_process:
            with writing(parts.folder.final):
                parts.folder.create(recipe_to_dict(parts.recipe), COPIES_ON_DISK * parameter_bytes)
    if not all(gather_object([parts.folder.partial.exists()])):
        raise RunFolderError(
            f"output_dir: {parts.folder.final} must lie on a disk that all machines see: some do not find "
            f"{parts.folder.partial}, which the first one made"
        )
    # Each process compares the checkpoint's run with its own.
    [parts.folder.run_id, *_] = gather_object([parts.folder.run_id])
    if parts.recipe.trackers:
        name = Path(parts.recipe.output_dir).name
        parts.accelerator.init_trackers(name, config=setup.tracker_config(recipe_to_dict(parts.recipe)))


def _fit(parts: Parts, vocabulary: UsedVocabulary | None, signals: StopSignals) -> LoopState:
    """Train, from a checkpoint if there is one, and leave the model as it is to be saved."""
    keeper = Keeper(parts, vocabulary)
    state = keeper.restore()
    with writing(parts.folder.final):
        log = MetricsLog(parts.folder.partial / METRICS, parts.accelerator.is_main_process, keeper.metrics_so_far)
    has_validation = "validation" in parts.data.encoded
    parts.unfreezer.state = state.unfreeze
    # What trains must be known before the model is wrapped.
    parts.unfreezer.begin_step(state.global_step)
    started = time.perf_counter()
    with whole(vocabulary):
        features = cache_of_run(parts, state)
    state.train_seconds += time.perf_counter() - started
    model, optimizer = parts.accelerator.prepare(parts.model, parts.optimizer)

    def record(values: dict[str, Any]) -> None:
        with writing(parts.folder.final):
            log.write(values)
        if parts.recipe.trackers:
            parts.accelerator.log(setup.tracker_config(values), step=values["step"])

    loop = Loop(
        parts.accelerator,
        model,
        optimizer,
        parts.unfreezer,
        parts.task.make_loss(),
        parts.stream,
        parts.plan,
        LoopHooks(
            evaluate=(lambda: parts.predict("validation", features).scores()) if has_validation else None,
            save_best=keeper.save_best,
            load_best=keeper.load_best,
            save=keeper.save,
            record=record,
            asked_to_stop=signals.asked,
        ),
        state,
        features,
    )
    # The loop puts new wrappers in the place of this one; what lives on of it would answer to the gradients too.
    del model
    with fast_random_bits(parts.accelerator), signals.deferred():
        loop.run()
    if loop.was_stopped:
        raise KeyboardInterrupt
    if has_validation and parts.recipe.training.keep == "best":
        if state.best_value is None:
            parts.accelerator.print(f"look: {parts.plan.metric} was NaN at each evaluation; the last weights are kept")
        else:
            keeper.load_best(state.best_step)
    return state
