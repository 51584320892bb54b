"""Looking before training: every problem of a recipe at once, its audit, the layer table of a model or recipe."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from transformers import PreTrainedModel

from nlp_ft.data.splits import progress_bars
from nlp_ft.environment import launching
from nlp_ft.errors import DataError, NlpFtError
from nlp_ft.layerwise import AuditReport, LayerMap, UnfreezeSchedule, audit, set_trainable_layers
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import apply_overrides, load_recipe, recipe_from_dict
from nlp_ft.tasks.registry import task_of
from nlp_ft.tasks.task import Task
from nlp_ft.training import setup
from nlp_ft.training.layer_table import layer_table
from nlp_ft.training.precision import mixed_precision
from nlp_ft.training.run_folder import RunFolder


def find_problems(recipe: Recipe) -> list[str]:
    """Everything that would stop the recipe from training here, one line each; nothing is written or trained."""
    try:
        task = task_of(recipe)
    except NlpFtError as error:
        return [str(error)]
    rows: dict[str, int] = {}
    schedules: list[UnfreezeSchedule] = []

    def check_data() -> None:
        rows.update(task.label_counts())

    def check_model() -> None:
        model = task.build_model(list(rows) or ["0", "1"])
        schedules.append(setup.make_unfreeze_schedule(recipe.strategy, task.map_layers(model).num_layers))

    def check_plan() -> None:
        if rows:
            task.make_loss()
            batches = setup.make_effective_batches(recipe, task, num_processes=1)
            plan = setup.plan_steps(recipe, batches.steps_per_epoch(_lengths(recipe, task, sum(rows.values()))), False)
            setup.make_lr_schedule(recipe.schedule, plan)
            for schedule in schedules:
                setup.make_unfreeze_plan(schedule, plan)

    checks: list[Callable[[], object]] = [
        check_data,
        check_model,
        check_plan,
        lambda: setup.optimizer_class(recipe.optimizer.name),
        lambda: mixed_precision(recipe.training.precision, _device()),
        lambda: setup.check_trackers(recipe),
        # A run that is there already is no fault of the recipe.
        lambda: RunFolder(recipe.output_dir, overwrite=True),
    ]
    problems = []
    for check in checks:
        try:
            check()
        except NlpFtError as error:
            problems.append(str(error))
    return list(dict.fromkeys(problems))


def _device() -> torch.device:
    with launching():
        device: torch.device = PartialState().device
    return device


def _lengths(recipe: Recipe, task: Task, num_rows: int) -> np.ndarray:
    """Tokens of each row of train, (num_rows,); zeros where the batches go by rows: to tokenize takes its time."""
    if recipe.training.max_tokens_per_batch is None:
        return np.zeros(num_rows, np.int64)
    with progress_bars(False):
        return task.data.lengths("train")


def describe_layers(model_or_recipe: str, overrides: Sequence[str] = ()) -> str:
    """The layer table of a recipe, or of a model with the default settings; no weights are loaded.

    Where the data of a recipe cannot be read, the head is shown for two labels, and that is said.

    Raises:
        NlpFtError: the recipe or the model cannot be read, or the model has no layer map.
    """
    labels, note = ["0", "1"], ""
    if Path(model_or_recipe).suffix in (".yaml", ".yml"):
        recipe = load_recipe(model_or_recipe, overrides)
        task = task_of(recipe)
        try:
            labels = task.label_names()
        except DataError as error:
            note = f"\nthe head is that of two labels, because the data cannot be read: {error}"
    else:
        values = {"data": {"train": "-"}, "model": {"name": model_or_recipe}, "output_dir": "-"}
        recipe = recipe_from_dict(apply_overrides(values, overrides), model_or_recipe)
        task = task_of(recipe)
    _, layer_map, optimizer = _without_weights(recipe, task, labels)
    return layer_table(layer_map, optimizer.param_groups) + note


def audit_recipe(file: str, overrides: Sequence[str] = ()) -> AuditReport:
    """What will silently go wrong in the run of a recipe; no weights are loaded and nothing is trained.

    Looked at are the model with its frozen layers in train mode, and the optimizer; a run has no scheduler object, it
    sets the rates itself. Parameters that the model never uses are frozen only in the run.

    Raises:
        NlpFtError: the recipe, its data or the model cannot be read, or the model has no layer map.
    """
    recipe = load_recipe(file, overrides)
    task = task_of(recipe)
    model, layer_map, optimizer = _without_weights(recipe, task, task.label_names())
    return audit(model.train(), optimizer, layer_map=layer_map)


def _without_weights(
    recipe: Recipe, task: Task, labels: Sequence[str]
) -> tuple[PreTrainedModel, LayerMap, torch.optim.Optimizer]:
    """Model on the meta device, layer map and optimizer, frozen as in the run."""
    with torch.device("meta"):
        model = task.build_model(labels, pretrained=False)
    layer_map = task.map_layers(model)
    schedule = setup.make_unfreeze_schedule(recipe.strategy, layer_map.num_layers)
    set_trainable_layers(model, layer_map, schedule.phases[0].layers)
    return model, layer_map, setup.make_optimizer(recipe.optimizer, model, layer_map)
