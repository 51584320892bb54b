"""The cells of a comparison: a strategy, a learning rate and a seed each, with a recipe of their own.

All cells read the same splits, but none has a test split of its own: a rate is chosen on validation, and test is scored
after. A test split that is a share of train is held out of each cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from nlp_ft.errors import NlpFtError, RecipeError, listed
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import apply_overrides, read_yaml, recipe_from_dict, recipe_to_dict
from nlp_ft.recipe.presets import StrategyName
from nlp_ft.recipe.sections import is_share
from nlp_ft.screen import say
from nlp_ft.suggest import nearest
from nlp_ft.tables import wrapped
from nlp_ft.tasks.registry import task_of
from nlp_ft.training import build

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
        recipes: strategy -> its recipe with the rates of its preset, see `without_test`, as nested dicts.
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
    is_default = not strategies
    strategies = list(dict.fromkeys(strategies)) or _possible(recipe)
    for option, names in (("--strategies", strategies), ("--baseline", [baseline] if baseline else [])):
        for name in names:
            _require_strategy(option, name)
    baseline = baseline or ("full" if "full" in strategies else strategies[0])
    if baseline not in strategies:
        raise RecipeError(f"--baseline {baseline} is not compared; add it to --strategies, or name one of these")
    task = task_of(recipe)
    label_names = task.label_names()
    _require_learned(recipe, label_names, file)
    recipes = _recipes(values, strategies, recipe.strategy.name, file, label_names, is_default=is_default)
    if baseline not in recipes:
        raise RecipeError(f"--baseline {baseline} is not possible here; name one of {', '.join(recipes)}")
    middle = num_rates // 2
    factors = [STEP ** (i - middle) for i in range(num_rates)]
    plan = Plan(folder, recipe, recipes, factors, num_seeds, baseline, equal)
    for cell in (cell for cell in plan.cells if cell.seed == 0):
        recipe_from_dict(plan.recipe_of(cell), f"{file} with strategy {cell.strategy} and {cell.factor:.2g} x its rate")
    return plan


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


def _require_strategy(option: str, name: str) -> None:
    if name not in get_args(StrategyName):
        near = nearest(name, get_args(StrategyName))
        hint = f"; did you mean {near}?" if near else ""
        raise RecipeError(f"{option}: {name} is none of {', '.join(get_args(StrategyName))}{hint}")


def _possible(recipe: Recipe) -> list[str]:
    is_text = hasattr(recipe.model, "pooling")
    has_lora = is_text and find_spec("peft") is not None
    return [name for name in DEFAULT_STRATEGIES if name != "lora" or has_lora]


def _recipes(
    values: Mapping[str, Any], strategies: Sequence[str], own: str, file: str, label_names: Sequence[str],
    *, is_default: bool,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Make the recipe of each strategy; by default, one that this model cannot have is left out, and that is said."""
    recipes, errors = {}, {}
    for strategy in strategies:
        try:
            recipes[strategy] = _of_strategy(values, strategy, own, file, label_names)
        except NlpFtError as error:
            if not is_default:
                raise
            errors[strategy] = error
    if not recipes:
        raise errors[strategies[0]]
    for strategy, why in errors.items():
        say(wrapped(f"look: {strategy} is not possible here and is left out: {why}"))
    return recipes


def _of_strategy(
    values: Mapping[str, Any], strategy: str, own: str, file: str, label_names: Sequence[str]
) -> dict[str, Any]:
    """Lay the preset of a strategy over the recipe, derive its rates, and leave out what only a single run needs."""
    recipe = recipe_from_dict(with_strategy(values, strategy, own), f"{file} with strategy {strategy}")
    task = task_of(recipe)
    recipe = build.with_rates(recipe, task, build.structure(recipe, task, label_names))
    found = recipe_to_dict(recipe)
    return {**found, "data": without_test(found["data"]), "baselines": False, "trackers": []}


def without_test(data: Mapping[str, Any]) -> dict[str, Any]:
    """Leave test out of a section `data`; a share stays, or its rows would be those of train and validation."""
    return {**data, "test": data["test"] if is_share(data.get("test")) else None}


def with_strategy(values: Mapping[str, Any], strategy: str, own: str) -> dict[str, Any]:
    """Put a strategy into a recipe, as nested dicts; the settings that belong to its own strategy are left out.

    The rates of SGD are kept, because none are derived for it; and what counts as a layer, so that strategies compare.
    """
    if strategy == own:
        return dict(values)
    optimizer = values.get("optimizer") or {}
    left_out = OF_STRATEGY - RATES if optimizer.get("name") == "sgd" else OF_STRATEGY
    kept = {key: value for key, value in optimizer.items() if key not in left_out}
    section = values.get("strategy")
    grain = section.get("grain") if isinstance(section, Mapping) else None
    return {
        **values,
        "strategy": strategy if grain is None else {"name": strategy, "grain": grain},
        "optimizer": kept,
    }
