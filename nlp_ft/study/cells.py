"""The cells of a comparison: a strategy, a learning rate and a seed each, with a recipe of their own.

All cells read the same splits, but none has the test split: a rate is chosen on validation, and test is scored after.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from nlp_ft.errors import RecipeError, RunFolderError, listed
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import apply_overrides, dump_yaml, read_yaml, recipe_from_dict, recipe_to_dict
from nlp_ft.recipe.presets import StrategyName
from nlp_ft.suggest import nearest
from nlp_ft.tasks.registry import task_of
from nlp_ft.training import build, durable

DEFAULT_STRATEGIES = ("full", "head_only", "llrd", "top_layers", "gradual", "lp_ft", "lora", "scratch")
STEP = 3.0
"""Factor from one learning rate of the grid to the next."""
RATES = {"lr", "head_lr"}
OF_STRATEGY = {*RATES, "layer_decay", "convention"}
"""Settings of the optimizer that were chosen for the recipe's own strategy; the others take those of their presets."""
PLAN, CELLS, TEST = "comparison.json", "cells", "test"
"""What a comparison folder holds: the plan, the run folders, and the test scores of the chosen cells."""


@dataclass(frozen=True)
class Cell:
    """One run of a comparison: `factor` multiplies the rates of the strategy's preset."""

    strategy: str
    factor: float
    seed: int

    @property
    def name(self) -> str:
        """The name of the run folder."""
        return f"{self.strategy}-x{self.factor:.2g}-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """What a comparison runs.

    Args:
        folder: the comparison folder.
        recipe: the recipe, with all splits.
        recipes: strategy -> its recipe with the rates of its preset and no test split, as nested dicts.
        factors: factors on these rates.
        num_seeds: seeds 0, 1, ... of each strategy and rate.
        baseline: the strategy that the others are compared with.
        equal: what all strategies have the same of: `epochs`, `steps` or `seconds`.
    """

    folder: Path
    recipe: Recipe
    recipes: Mapping[str, dict[str, Any]]
    factors: Sequence[float]
    num_seeds: int
    baseline: str
    equal: str = "epochs"

    @property
    def metric(self) -> str:
        """The score that chooses rates and is compared."""
        return self.recipe.training.metric

    @property
    def cells(self) -> list[Cell]:
        """All cells in the order they run: seed by seed, every second one backwards, so that none is always first."""
        ordered = []
        for seed in range(self.num_seeds):
            of_seed = [
                Cell(strategy, factor, seed)
                for factor in self.factors
                for strategy in self.recipes
                if factor in self.factors_of(strategy)
            ]
            ordered += of_seed if seed % 2 == 0 else of_seed[::-1]
        return ordered

    def factors_of(self, strategy: str) -> Sequence[float]:
        """The factors on the rates of a strategy; a probe has no rate, so one cell a seed is enough."""
        return (1.0,) if self.recipes[strategy]["strategy"]["probe"] else self.factors

    def folder_of(self, cell: Cell) -> Path:
        """The run folder of a cell."""
        return self.folder / CELLS / cell.name

    def recipe_file(self, cell: Cell) -> Path:
        """The recipe of a cell; `nlp-ft train FILE --resume` runs it."""
        return self.folder / CELLS / f"{cell.name}.yaml"

    def rate(self, cell: Cell) -> float | None:
        """The base learning rate of a cell; None for a probe."""
        recipe = self.recipe_of(cell)
        return None if recipe["strategy"]["probe"] else float(recipe["optimizer"]["lr"])

    def recipe_of(self, cell: Cell) -> dict[str, Any]:
        """The recipe of a cell, as nested dicts."""
        values = self.recipes[cell.strategy]
        rates = {
            key: float(f"{cell.factor * rate:.2g}")
            for key in ("lr", "head_lr")
            if (rate := values["optimizer"][key]) is not None
        }
        return {
            **values,
            "optimizer": {**values["optimizer"], **rates},
            "seed": cell.seed,
            "output_dir": str(self.folder_of(cell)),
        }


def make_plan(
    file: str,
    overrides: Sequence[str],
    folder: Path,
    strategies: Sequence[str] = (),
    num_rates: int = 3,
    num_seeds: int = 5,
    baseline: str = "",
    equal: str = "epochs",
) -> Plan:
    """Read the recipe, and derive the rates of each strategy from the model.

    Args:
        file: the recipe.
        overrides: `key=value` that override its settings.
        folder: the comparison folder.
        strategies: names of strategies; none takes those of `DEFAULT_STRATEGIES` that are possible here.
        num_rates: rates of each strategy, around that of its preset.
        num_seeds: seeds of each strategy and rate.
        baseline: the strategy to compare with; an empty text takes `full`, or else the first one.
        equal: `epochs`, `steps` or `seconds`, see `Plan`; the last two turn early stopping off.

    Raises:
        NlpFtError: the recipe, its data or its model cannot be used, or a strategy is not known.
    """
    never_early = [] if equal == "epochs" else ["training.early_stopping=null"]
    values = apply_overrides(read_yaml(file), [*overrides, *never_early])
    recipe = recipe_from_dict(values, file)
    _require_splits(recipe, file)
    strategies = list(dict.fromkeys(strategies)) or _possible(recipe)
    for name in [*strategies, *([baseline] if baseline else [])]:
        _require_strategy(name)
    baseline = baseline or ("full" if "full" in strategies else strategies[0])
    if baseline not in strategies:
        raise RecipeError(f"--baseline {baseline} is not compared; add it to --strategies, or name one of these")
    task = task_of(recipe)
    names = task.label_names()
    _require_learned(recipe, names, file)
    recipes = {strategy: _of_strategy(values, strategy, recipe.strategy.name, file, names) for strategy in strategies}
    middle = num_rates // 2
    factors = [STEP ** (i - middle) for i in range(num_rates)]
    plan = Plan(folder, recipe, recipes, factors, num_seeds, baseline, equal)
    for cell in (cell for cell in plan.cells if cell.seed == 0):
        recipe_from_dict(plan.recipe_of(cell), f"{file} with strategy {cell.strategy} and {cell.factor:.2g} x its rate")
    return plan


def write_recipes(plan: Plan) -> None:
    """Write the recipes of the cells into the claimed folder. Raises: RunFolderError: they are not those there."""
    for cell in plan.cells:
        text = dump_yaml(plan.recipe_of(cell))
        recipe = plan.recipe_file(cell)
        if not recipe.exists():
            durable.write_text(recipe, text)
        elif recipe.read_text(encoding="utf-8") != text:
            raise RunFolderError(f"--output: {recipe} was written by another comparison; choose another folder")


def claim_folder(plan: Plan) -> None:
    """Make the comparison folder with the plan; strategies and seeds may be added to a plan that is there.

    Raises:
        RunFolderError: the folder holds another comparison, or something else.
    """
    settings = recipe_to_dict(plan.recipe)
    # The strategy and its rates stand in the recipes of the cells.
    shared = {key: value for key, value in settings.items() if key not in ("output_dir", "seed")}
    now = json.loads(json.dumps({"recipe": shared, "factors": list(plan.factors), "equal": plan.equal}))
    file = plan.folder / PLAN
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        different = _different(before.get("recipe", {}), now["recipe"])
        if before.get("factors") != now["factors"]:
            different.append("--rates")
        if before.get("equal", "epochs") != plan.equal:
            different.append("--equal")
        if different:
            raise RunFolderError(
                f"--output: {plan.folder} holds a comparison of another recipe or with other rates; different: "
                f"{', '.join(different)}; choose another folder"
            )
    elif plan.folder.exists() and any(plan.folder.iterdir()):
        raise RunFolderError(f"--output: {plan.folder} holds other things than a comparison; choose another folder")
    (plan.folder / CELLS).mkdir(parents=True, exist_ok=True)
    (plan.folder / TEST).mkdir(exist_ok=True)
    durable.write_text(file, json.dumps(now, indent=2) + "\n")


def _require_splits(recipe: Recipe, file: str) -> None:
    needed = {"validation": "which chooses the learning rates; 10% draws it from train", "test": "which is scored once"}
    for split, why in needed.items():
        if getattr(recipe.data, split) is None:
            raise RecipeError(f"{file}: data.{split} is missing, {why}")


def _require_learned(recipe: Recipe, names: Sequence[str], file: str) -> None:
    """Check that the cells, which train without test, have all labels. Raises: RecipeError: one is in test alone."""
    of_cell = recipe.model_copy(update={"data": recipe.data.model_copy(update={"test": None})})
    learned = set(task_of(of_cell).label_names())
    if alone := [name for name in names if name not in learned]:
        raise RecipeError(
            f"{file}: {listed(alone)} occurs in data.test alone, and the cells train without it; list every label in "
            "data.label_names"
        )


def _require_strategy(name: str) -> None:
    if name not in get_args(StrategyName):
        near = nearest(name, get_args(StrategyName))
        hint = f"; did you mean {near}?" if near else ""
        raise RecipeError(f"--strategies: {name} is none of {', '.join(get_args(StrategyName))}{hint}")


def _possible(recipe: Recipe) -> list[str]:
    is_text = hasattr(recipe.model, "pooling")
    has_lora = is_text and find_spec("peft") is not None
    return [name for name in DEFAULT_STRATEGIES if name != "lora" or has_lora]


def _of_strategy(
    values: Mapping[str, Any], strategy: str, own: str, file: str, label_names: Sequence[str]
) -> dict[str, Any]:
    """Lay the preset of a strategy over the recipe, derive its rates, and leave out what only a single run needs."""
    recipe = recipe_from_dict(with_strategy(values, strategy, own), f"{file} with strategy {strategy}")
    task = task_of(recipe)
    recipe = build.with_rates(recipe, task, build.structure(recipe, task, label_names))
    found = recipe_to_dict(recipe)
    return {**found, "data": {**found["data"], "test": None}, "baselines": False, "trackers": []}


def with_strategy(values: Mapping[str, Any], strategy: str, own: str) -> dict[str, Any]:
    """Put a strategy into a recipe, as nested dicts; the settings that belong to its own strategy are left out.

    The rates of SGD are kept, because none are derived for it.
    """
    if strategy == own:
        return dict(values)
    optimizer = values.get("optimizer") or {}
    left_out = OF_STRATEGY - RATES if optimizer.get("name") == "sgd" else OF_STRATEGY
    kept = {key: value for key, value in optimizer.items() if key not in left_out}
    return {**values, "strategy": strategy, "optimizer": kept}


def _different(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the dotted keys in which nested settings differ."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        first, second = before.get(key), now.get(key)
        if isinstance(first, dict) and isinstance(second, dict):
            found += _different(first, second, f"{prefix}{key}.")
        elif first != second:
            found.append(f"{prefix}{key}")
    return found
