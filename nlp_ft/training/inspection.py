"""Inspects a run before training: all problems of a recipe, its audit, and the layer table of a model or recipe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

from nlp_ft.environment import launching
from nlp_ft.errors import DataError, NlpFtError
from nlp_ft.layerwise import AuditReport, audit
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.derived import Derived, format_derived
from nlp_ft.recipe.loader import apply_overrides, load_recipe, recipe_from_dict
from nlp_ft.screen import is_verbose
from nlp_ft.tables import wrapped
from nlp_ft.tasks.registry import task_of
from nlp_ft.tasks.task import Task
from nlp_ft.training import build, schedules
from nlp_ft.training.accelerator import check_trackers
from nlp_ft.training.layer_table import layer_table, short_layer_table
from nlp_ft.training.precision import mixed_precision
from nlp_ft.training.probe.solve import require_layer
from nlp_ft.training.run_folder import RunFolder


@dataclass(frozen=True)
class Inspection:
    """What a recipe is found to be before training."""

    problems: list[str]
    """Everything that would stop it, one line each."""
    report: str
    """The data report that training would print; empty if the data cannot be read."""
    derived: list[Derived]
    """The settings that the recipe leaves out; empty if data or model cannot be read."""

    def lines(self, with_derived: bool) -> list[str]:
        """Write the data report and, if asked for, the derived settings, as lines."""
        derived = ["", *format_derived(self.derived).split("\n")] if with_derived and self.derived else []
        return [*self.report.split("\n"), *derived]


def find_problems(recipe: Recipe) -> list[str]:
    """Find everything that would stop the recipe from training here, one line each; nothing is trained."""
    return inspect_recipe(recipe).problems


def inspect_recipe(recipe: Recipe) -> Inspection:
    """Read the data and the model as training does, and look for everything that would stop it."""
    try:
        task = task_of(recipe)
    except NlpFtError as error:
        return Inspection([str(error)], "", [])
    inspector = _Inspector(recipe, task)
    problems = []
    for check in inspector.checks():
        try:
            check()
        except NlpFtError as error:
            problems.append(str(error))
    return Inspection(list(dict.fromkeys(problems)), inspector.report, inspector.derived)


class _Inspector:
    """Checks one part of a recipe after another; a check that needs what an earlier one could not read does nothing."""

    def __init__(self, recipe: Recipe, task: Task) -> None:
        self.recipe = recipe
        self.task = task
        self.labels: list[str] = []
        self.layered: build.LayeredModel | None = None
        self.report = ""
        self.derived: list[Derived] = []

    def checks(self) -> list[Callable[[], object]]:
        """List the checks in their order."""
        recipe = self.recipe
        return [
            self.read_data,
            self.encode,
            self.load_model,
            self.plan,
            self.check_probe,
            lambda: build.optimizer_class(recipe.optimizer.name),
            lambda: mixed_precision(recipe.training.precision, _device()),
            lambda: check_trackers(recipe),
            # `overwrite`, because an existing run in output_dir is not a problem of the recipe.
            lambda: RunFolder(recipe.output_dir, overwrite=True),
        ]

    def read_data(self) -> None:
        self.labels = list(self.task.label_counts())

    def encode(self) -> None:
        if self.labels:
            self.report = self.task.format_report(self.task.describe_data())

    def load_model(self) -> None:
        self.layered = build.layered_model(self.recipe, self.task, self.labels or ["0", "1"])

    def plan(self) -> None:
        if not self.labels:
            return
        self.task.make_loss()
        lengths = _lengths(self.recipe, self.task, None if self.report else self.task.num_rows())
        if self.layered:
            settled, self.derived = build.with_derived(self.recipe, self.task, self.layered, lengths, num_processes=1)
        else:
            settled, _ = build.with_lengths(self.recipe, self.task, lengths, num_processes=1)
        steps_per_epoch = build.effective_batches(settled, self.task, num_processes=1).steps_per_epoch(lengths)
        settings = build.loop_settings(settled, steps_per_epoch, has_validation=False)
        schedules.lr_schedule(self.recipe.schedule, settings)
        if self.layered:
            schedules.unfreeze_plan(self.layered.schedule, settings)

    def check_probe(self) -> None:
        if (probe := self.recipe.strategy.probe) and self.layered:
            pooling = getattr(self.layered.model.config, "pooling", None)
            require_layer(probe.layer, self.layered.layer_map.num_layers, pooling)


def _device() -> torch.device:
    with launching():
        device: torch.device = PartialState().device
    return device


def _lengths(recipe: Recipe, task: Task, num_raw_rows: int | None) -> np.ndarray:
    """Count the tokens of each row of train, (rows,); zeros where only raw rows could be read and these are enough."""
    if num_raw_rows is None or recipe.training.max_tokens_per_batch is not None:
        return task.data.lengths("train")
    return np.zeros(num_raw_rows, np.int64)


def describe_layers(model_or_recipe: str, overrides: Sequence[str] = ()) -> str:
    """Make the layer table of a recipe, or of a model with the default settings; no weights are loaded.

    If the data of a recipe cannot be read, the table shows the head for two labels and a note says so.

    Args:
        model_or_recipe: a YAML file, or a model as in `model.name`.
        overrides: settings as `key=value`, which override those of the recipe.

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
            note = "\n" + wrapped(f"the head is that of two labels, because the data cannot be read: {error}")
    else:
        values = {"data": {"train": "-"}, "model": {"name": model_or_recipe}, "output_dir": "-"}
        recipe = recipe_from_dict(apply_overrides(values, overrides), model_or_recipe)
        task = task_of(recipe)
    layered = build.structure(recipe, task, labels)
    optimizer = build.optimizer(build.with_rates(recipe, task, layered).optimizer, layered.model, layered.layer_map)
    table = layer_table if is_verbose() else short_layer_table
    return table(layered.layer_map, optimizer.param_groups) + note


def audit_recipe(file: str, overrides: Sequence[str] = ()) -> AuditReport:
    """Find what would silently go wrong in the run of a recipe; no weights are loaded and nothing is trained.

    The audit checks the optimizer and the model, whose frozen layers are as in the first phase, in train mode. There is
    no scheduler to check, because a run sets the learning rates itself. Parameters that the model never uses are not
    frozen here, because only a run looks for them.

    Args:
        file: the recipe.
        overrides: settings as `key=value`, which override those of the recipe.

    Raises:
        NlpFtError: the recipe, its data or the model cannot be read, or the model has no layer map.
    """
    recipe = load_recipe(file, overrides)
    task = task_of(recipe)
    layered = build.structure(recipe, task, task.label_names())
    optimizer = build.optimizer(build.with_rates(recipe, task, layered).optimizer, layered.model, layered.layer_map)
    return audit(layered.model.train(), optimizer, layer_map=layered.layer_map)
