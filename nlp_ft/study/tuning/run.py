"""Searches the settings of a recipe with Optuna: each trial trains in a process of its own and is judged on validation.

Bad trials are stopped early. The study lies in a journal, so it goes on after a stop or a kill. Test is never read.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nlp_ft.errors import RunFolderError, TrainingError, printable
from nlp_ft.extras import require_optuna
from nlp_ft.recipe.loader import apply_overrides, dump_yaml, read_yaml
from nlp_ft.recipe.yaml_reader import parse_yaml
from nlp_ft.screen import say
from nlp_ft.study.process import DIVERGED, SECONDS_BETWEEN_LOOKS, TAKEN, Running, Start, start_process
from nlp_ft.study.running import error_in, is_lower_better
from nlp_ft.study.stopping import stoppable
from nlp_ft.study.tuning.results import Trial, write_results
from nlp_ft.study.tuning.space import Choice, Space, written
from nlp_ft.study.tuning.study import Study, claim, require_data
from nlp_ft.training import durable, lock
from nlp_ft.training.run_folder import SUMMARY

JOURNAL = "journal.log"
"""The journal of Optuna in the study folder."""
FIRST_TRIALS = 5
"""Trials that are never stopped early."""
FIRST_JUDGED = 2
"""The evaluation of a trial, counted from 1, that may stop it first."""


def tune(study: Study, num_trials: int, jobs: int = 1, start: Start = start_process) -> dict[str, Any]:
    """Run trials until there are so many, print what they found, and write it into the folder.

    Args:
        study: what to search, from `make_study`.
        num_trials: trials in the folder at the end, those of earlier starts included.
        jobs: trials that train at the same time.
        start: starts the training of a recipe.

    Returns:
        The content of result.json.

    Raises:
        NlpFtError: the folder holds another study, or trials cannot be trained.
        Interrupted: Ctrl-C or SIGTERM; the same command goes on from there.
    """
    with stoppable(study.folder) as stop, lock.held(study.folder, "--output"):
        claim(study)
        require_data(study)
        journal = _journal(study)
        with stop.deferred():
            _run_trials(study, journal, num_trials, jobs, start, stop.check)
        return write_results(study.folder, _trials(study, journal), study)


def _journal(study: Study) -> Any:
    """Open the study of Optuna."""
    optuna = require_optuna(TrainingError)
    from optuna.storages.journal import JournalFileBackend

    file = study.folder / JOURNAL
    try:
        journal = optuna.create_study(
            study_name="tune",
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(file))),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=FIRST_TRIALS, n_warmup_steps=FIRST_JUDGED),
            direction="minimize" if is_lower_better(study.metric) else "maximize",
            load_if_exists=True,
        )
    except ValueError as error:
        raise RunFolderError(
            f"{file} is damaged ({error}); put it back, or choose another folder with --output"
        ) from None
    # A second start must not draw what the first one has drawn.
    journal.sampler = optuna.samplers.TPESampler(seed=study.recipe.seed + len(journal.get_trials(deepcopy=False)))
    return journal


def _run_trials(
    study: Study, journal: Any, num_trials: int, jobs: int, start: Start, check_stop: Callable[[], None]
) -> None:
    """Train trials, those first that an earlier start has left."""
    optuna = require_optuna(TrainingError)
    states = optuna.trial.TrialState
    left = [optuna.trial.Trial(journal, one._trial_id) for one in journal.get_trials(states=[states.RUNNING])]
    running: dict[int, tuple[Any, Running]] = {}
    try:
        while True:
            check_stop()
            while len(running) < jobs and (left or len(journal.get_trials(deepcopy=False)) < num_trials):
                trial = left.pop(0) if left else journal.ask(_distributions(study.space))
                _log(study, trial.number).unlink(missing_ok=True)  # of an earlier try
                running[trial.number] = (trial, start(_write_recipe(study, trial), _log(study, trial.number)))
            for number, (trial, process) in list(running.items()):
                ended = process.poll()
                if ended is None:
                    _report(study, journal, trial, process)
                else:
                    del running[number]
                    if process.wait() == TAKEN:  # by one that has not ended yet, such as after a kill
                        left.append(trial)
                    else:
                        _tell(study, journal, trial, process.wait())
            if not running and not left and len(journal.get_trials(deepcopy=False)) >= num_trials:
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        for _, process in running.values():
            with suppress(OSError):
                process.terminate()
        for _, process in running.values():
            process.wait()


def _distributions(space: Space) -> dict[str, Any]:
    optuna = require_optuna(TrainingError)
    found = {}
    for key, where in space.items():
        if isinstance(where, Choice):
            found[key] = optuna.distributions.CategoricalDistribution(where.values)
        elif where.is_whole:
            found[key] = optuna.distributions.IntDistribution(int(where.low), int(where.high), log=where.is_log)
        else:
            found[key] = optuna.distributions.FloatDistribution(where.low, where.high, log=where.is_log)
    return found


def _write_recipe(study: Study, trial: Any) -> Path:
    folder = study.run_folder(trial.number)
    settings = [f"{key}={value}" for key, value in _settings(study, trial).items()]
    values = apply_overrides(study.values, settings)
    file = folder.with_suffix(".yaml")
    text = dump_yaml({**values, "output_dir": str(folder)})
    # The run of another trial would be taken for this one.
    if file.exists() and {**read_yaml(file), "output_dir": ""} != {**parse_yaml(text, file.name), "output_dir": ""}:
        raise RunFolderError(
            f"{file} is not that of trial {trial.number} in {study.folder / JOURNAL}, which is not whole any more; put "
            "it back, or choose another folder with --output"
        )
    durable.write_text(file, text)
    return file


def _settings(study: Study, trial: Any) -> dict[str, str]:
    """Write the settings of a trial, dotted key -> value."""
    return {key: written(study.space[key], value) for key, value in trial.params.items()}


def _log(study: Study, number: int) -> Path:
    return study.run_folder(number).with_suffix(".log")


def _report(study: Study, journal: Any, trial: Any, process: Running) -> None:
    """Give Optuna the scores on validation so far, and end a trial that is worse than most were at that time."""
    partial = study.run_folder(trial.number).with_suffix(".partial")
    known = len(journal.get_trials(deepcopy=False)[trial.number].intermediate_values)
    for number, value in enumerate(scores_in(partial / "metrics.jsonl", study.metric), start=1):
        if number > known:
            trial.report(value, number)
            if trial.should_prune():
                trial.set_user_attr("pruned", True)
                process.terminate()
                return


def scores_in(file: Path, metric: str) -> list[float]:
    """Read the scores on validation of a run so far; NaN counts as none."""
    if not file.exists():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):  # a line that is being written
            value = json.loads(line).get("validation", {}).get(metric)
            if value is not None and not math.isnan(value):
                found.append(float(value))
    return found


def _tell(study: Study, journal: Any, trial: Any, code: int) -> None:
    """Tell Optuna how a trial has ended. Raises: TrainingError: its settings are not the cause."""
    states = require_optuna(TrainingError).trial.TrialState
    folder = study.run_folder(trial.number)
    if (folder / SUMMARY).exists():
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        value = summary["metrics"]["validation"][study.metric]
        trial.set_user_attr("seconds", round(summary["train_seconds"], 1))
        journal.tell(trial, *((None, states.FAIL) if math.isnan(value) else (value, states.COMPLETE)))
        said = f"{study.metric} {value:.4f}"
    elif trial.user_attrs.get("pruned"):
        shutil.rmtree(folder.with_suffix(".partial"), ignore_errors=True)
        journal.tell(trial, state=states.PRUNED)
        said = "stopped early"
    elif code == DIVERGED:
        journal.tell(trial, state=states.FAIL)
        said = "diverged"
    elif code in (130, 143, -2, -15):
        raise KeyboardInterrupt
    else:
        log = _log(study, trial.number)
        raise TrainingError(
            f"trial {trial.number} cannot be trained: {error_in(log, code)} (all of it: {log}); fix this, then start "
            "the same command again"
        )
    settings = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in _settings(study, trial).items())
    say(printable(f"trial {trial.number}: {said}  {settings}"))


def _trials(study: Study, journal: Any) -> list[Trial]:
    """Read all trials that have ended."""
    names = {"COMPLETE": "", "PRUNED": "stopped early", "FAIL": "diverged"}
    return [
        Trial(
            one.number,
            _settings(study, one),
            one.value if one.state.name == "COMPLETE" else None,
            names[one.state.name],
            one.user_attrs.get("seconds"),
        )
        for one in journal.get_trials(deepcopy=False)
        if one.state.name in names
    ]
