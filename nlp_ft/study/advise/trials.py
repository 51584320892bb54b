"""Short runs of strategies, each with a whole learning-rate schedule, scored on the same rows of validation.

They use the objects of a run and its loop, and leave out what a run writes: nothing is put on the disk.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlp_ft.durations import Duration
from nlp_ft.recipe import Recipe
from nlp_ft.screen import at_level
from nlp_ft.study import statistics
from nlp_ft.study.advise.curves import Estimate
from nlp_ft.study.advise.probing import is_share
from nlp_ft.study.scoring import right_rows
from nlp_ft.tasks.outputs import Outputs, Predictions
from nlp_ft.tasks.registry import task_of
from nlp_ft.training import build
from nlp_ft.training.accelerator import start_accelerator
from nlp_ft.training.evaluation import Evaluator
from nlp_ft.training.facts import peak_memory_bytes
from nlp_ft.training.loop import Loop
from nlp_ft.training.loop_state import LoopHooks, LoopState

MOST_GROUPS = 20
"""Groups of rows that are left out in turn; the score is computed as often."""
NEVER = Duration(1_000_000, "st")


@dataclass(frozen=True)
class Trial:
    """A short run.

    Args:
        steps: optimizer steps of it.
        full_steps: those of the whole run.
        points: (step, score) on the scored rows of validation.
        parts: what each group of the scored rows adds to the score, (groups,), with mean 0.
        least_error: the error of a score, and of a difference, is at least this: few rows may happen to agree.
        outputs: the meaning of the outputs of the model.
        step_seconds: seconds of each step but the first.
        row_seconds: seconds to score a row.
        memory: peak of the process, or of the accelerator, in bytes.
        evaluations: evaluations of the whole run.
    """

    steps: int
    full_steps: int
    points: Sequence[tuple[int, float]]
    parts: np.ndarray
    least_error: float
    outputs: Outputs
    step_seconds: np.ndarray
    row_seconds: float
    memory: int
    evaluations: int

    @property
    def score(self) -> float:
        """The score of the last step."""
        return self.points[-1][1]


def run_trial(recipe: Recipe, steps: int, rows: np.ndarray, points: int = 2) -> Trial:
    """Train for so many steps, at most as many as the whole run has, and score rows of validation.

    Args:
        recipe: the recipe of the strategy, without a test split.
        steps: length of the trial.
        rows: numbers of the rows of validation that are scored.
        points: times at which they are scored, the end included.

    Raises:
        NlpFtError: data or model cannot be used, or the loss is not finite.
    """
    with at_level("quiet"):
        accelerator = start_accelerator(recipe, Path(recipe.output_dir))
        task = task_of(recipe)
        layered = build.layered_model(recipe, task, task.data.label_names, build.example_inputs(task))
        model = layered.model.to(accelerator.device)
        lengths = task.data.lengths("train")
        whole, _ = build.with_derived(recipe, task, layered, lengths, accelerator.num_processes)
        stream = build.stream(whole, task, accelerator)
        of_whole = build.loop_settings(whole, stream.steps_per_epoch, True)
        short = _shortened(whole, min(steps, of_whole.total_steps), points)
        settings = build.loop_settings(short, stream.steps_per_epoch, True)
        optimizer = build.optimizer(short.optimizer, model, layered.layer_map)
        unfreezer = build.unfreezer(short, layered, optimizer, settings)
        course = _Course(build.evaluator(short, task, model, accelerator), rows, short.training.metric)
        loop = Loop(
            accelerator, model, optimizer, unfreezer, task.make_loss(), stream, settings, course.hooks(), LoopState()
        )
        course.state = loop.state
        unfreezer.begin_step(0)
        loop.run()
    assert course.predictions is not None
    return Trial(
        steps=settings.total_steps,
        full_steps=of_whole.total_steps,
        points=course.points,
        parts=parts_of(course.predictions, short.training.metric),
        least_error=1 / len(rows) if is_share(short.training.metric) else 0.0,
        outputs=course.predictions.outputs,
        step_seconds=np.diff(course.seconds) if len(course.seconds) > 1 else np.array(course.seconds),
        row_seconds=course.evaluation_seconds / max(1, len(course.points) * len(rows)),
        memory=peak_memory_bytes(accelerator.device),
        evaluations=math.ceil(of_whole.total_steps / of_whole.evaluate_every),
    )


class _Course:
    """What the hooks of a trial see: the seconds of its steps, and its scores."""

    def __init__(self, evaluator: Evaluator, rows: np.ndarray, metric: str) -> None:
        self.evaluator, self.rows, self.metric = evaluator, rows, metric
        self.state = LoopState()
        self.points: list[tuple[int, float]] = []
        self.seconds: list[float] = []
        self.evaluation_seconds = 0.0
        self.predictions: Predictions | None = None

    def hooks(self) -> LoopHooks:
        """The functions for the loop."""
        return LoopHooks(
            evaluate=self._evaluate,
            save_best=lambda step: None,
            load_best=lambda step: None,
            save=lambda state: None,
            record=lambda values: None,
            asked_to_stop=self._note_seconds,
        )

    def _evaluate(self) -> dict[str, float]:
        begun = time.perf_counter()
        self.predictions = self.evaluator.predict("validation", rows=self.rows)
        scores = self.predictions.scores()
        self.evaluation_seconds += time.perf_counter() - begun
        self.points.append((self.state.global_step, known(scores[self.metric])))
        return scores

    def _note_seconds(self) -> bool:
        self.seconds.append(self.state.train_seconds)
        return False


def difference(trial: Trial, other: Trial, sign: int) -> Estimate:
    """Compute by how much a trial is better than another on the same rows; the error is that of other rows.

    Args:
        trial: a trial.
        other: the one to compare with, with as many steps.
        sign: -1 if a lower score is better, else 1.
    """
    error = max(_error(trial.parts - other.parts), trial.least_error)
    return Estimate(sign * (trial.score - other.score), error)


def score_error(trial: Trial) -> float:
    """Compute the standard error of the score of a trial: that of other rows."""
    return max(_error(trial.parts), trial.least_error)


def row_score(predictions: Predictions, metric: str) -> Callable[[np.ndarray], float]:
    """Return the function that scores some rows, given by a mask, (rows,)."""

    def score(rows: np.ndarray) -> float:
        if metric == "loss":
            return float(predictions.losses[rows].mean())
        scores = predictions.outputs.score(predictions.predicted[rows], predictions.references[rows])
        return known(scores[metric])

    return score


def known(value: float) -> float:
    """Count a correlation with a constant, which is NaN, as 0."""
    return 0.0 if value != value else float(value)


def parts_of(predictions: Predictions, metric: str) -> np.ndarray:
    """Compute what each group of rows adds to a score, (groups,), with mean 0; for accuracy each row is a group."""
    hits = right_rows(predictions, metric)
    if hits is not None:
        return np.asarray(hits - hits.mean())
    groups = statistics.groups_of(range(len(predictions.references)), MOST_GROUPS)
    score = row_score(predictions, metric)
    whole = np.array([score(np.ones(len(groups), dtype=bool))])
    return np.asarray(statistics.deviations(whole, statistics.without_each(score, groups)[None])[0])


def _error(parts: np.ndarray) -> float:
    """Compute the standard error of a score from the parts of groups, (groups,)."""
    return float(np.sqrt((parts**2).sum() / len(parts) / max(1, len(parts) - 1)))


def _shortened(recipe: Recipe, steps: int, points: int) -> Recipe:
    """Give a recipe so many steps and evaluations; nothing stops it early, and no weights are kept."""
    training: Mapping[str, Any] = {
        "duration": Duration(steps, "st"),
        "evaluate_every": Duration(math.ceil(steps / points), "st"),
        "checkpoint_every": NEVER,
        "early_stopping": None,
    }
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=dict(training))})
