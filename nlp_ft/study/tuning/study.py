"""What a search is: the recipe, the space and the folder, and whether they are those of an earlier start."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlp_ft.errors import RecipeError, RunFolderError, TrainingError
from nlp_ft.extras import require_optuna
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import apply_overrides, read_yaml, recipe_from_dict, recipe_to_dict
from nlp_ft.study.cells import without_test
from nlp_ft.study.folder import read_object, require_empty, require_same_rows
from nlp_ft.study.tuning.space import Space, default_space, require_valid
from nlp_ft.tasks.registry import task_of
from nlp_ft.training import build, durable
from nlp_ft.training.identity import hashes_of_data
from nlp_ft.training.run_folder import SUMMARY

PLAN, TRIALS = "tune.json", "trials"
"""What a study folder holds: recipe and space, and the run folders of the trials."""


@dataclass(frozen=True)
class Study:
    """What is searched.

    Args:
        folder: the study folder.
        values: the recipe as nested dicts, see `without_test`.
        recipe: the same, validated.
        space: the settings that are searched.
        given: the recipe as it was read, with its overrides.
    """

    folder: Path
    values: Mapping[str, Any]
    recipe: Recipe
    space: Space
    given: Mapping[str, Any]

    @property
    def metric(self) -> str:
        """The score on validation that is searched."""
        return self.recipe.training.metric

    def run_folder(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.folder / TRIALS / f"{number:04d}"


def make_study(file: str, overrides: tuple[str, ...], folder: Path, space: Space) -> Study:
    """Read the recipe, and check the space or derive one from the model.

    Args:
        file: the recipe.
        overrides: `key=value` that override its settings.
        folder: the study folder.
        space: what to search; an empty one takes `default_space`.

    Raises:
        NlpFtError: recipe, model or space cannot be used, or Optuna is not installed.
    """
    require_optuna(TrainingError)
    given = apply_overrides(read_yaml(file), overrides)
    recipe = recipe_from_dict(given, file)
    if recipe.data.validation is None:
        raise RecipeError(f"{file}: data.validation is missing, which judges the trials; 10% draws it from train")
    if not space:
        task = task_of(recipe)
        rated = build.with_rates(recipe, task, build.structure(recipe, task, task.label_names()))
        space = default_space(recipe_to_dict(rated))
    values = {**given, "data": without_test(given["data"]), "baselines": False, "trackers": [], "report": False}
    require_valid(space, values, file)
    return Study(folder, values, recipe, space, given)


def claim(study: Study) -> None:
    """Make the study folder. Raises: RunFolderError: it holds another study, or something else."""
    file = study.folder / PLAN
    recipe = {key: value for key, value in study.values.items() if key != "output_dir"}
    now = json.loads(json.dumps({"recipe": recipe, "space": {key: vars(of) for key, of in study.space.items()}}))
    if file.exists():
        if read_object(file, "put it back, or choose another folder with --output") != now:
            raise RunFolderError(
                f"--output: {study.folder} holds a study of another recipe or another space; choose another folder"
            )
    else:
        require_empty(study.folder, "study")
    study.folder.mkdir(parents=True, exist_ok=True)
    durable.write_text(file, json.dumps(now, indent=2) + "\n")
    (study.folder / TRIALS).mkdir(exist_ok=True)


def require_data(study: Study) -> None:
    """Check that finished trials have seen the rows that the recipe names now. Raises: RunFolderError."""
    if not (files := sorted((study.folder / TRIALS).glob(f"*/{SUMMARY}"))):
        return
    task = task_of(recipe_from_dict(study.values, "the recipe"))
    hashes = hashes_of_data(task.identity(), ("train", "validation"))
    # Trials may differ in the rows of train, where those are searched, too.
    is_searched = any(key == "seed" or key.startswith("data.") for key in study.space)
    for file in files:
        name, summary = f"trial {int(file.parent.name)}", read_object(file, f"remove {file.parent}")
        require_same_rows(
            study.folder, name, summary, hashes, ["validation"] if is_searched else ["train", "validation"]
        )
