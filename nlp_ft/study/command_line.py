"""The commands `compare`, `tune` and `find-lr`: from parsed options to what is printed."""

import argparse
from pathlib import Path

from nlp_ft.recipe.loader import load_recipe
from nlp_ft.tables import wrapped


def compare(options: argparse.Namespace) -> int:
    """Run `nlp-ft compare`; return the exit code."""
    # Settings may follow the names of strategies, as in `--strategies full llrd optimizer.lr=1e-4`.
    overrides = [*options.overrides, *(word for word in options.strategies if "=" in word)]
    strategies = [name for word in options.strategies if "=" not in word for name in word.split(",") if name]
    # Loaded first, so that an error comes before the seconds of importing torch.
    recipe = load_recipe(options.recipe, overrides)
    folder = Path(options.output or f"{recipe.output_dir}-compare")
    from nlp_ft.study.cells import make_plan
    from nlp_ft.study.compare import compare

    plan = make_plan(
        options.recipe, overrides, folder, strategies, options.rates, options.seeds, options.baseline, options.equal
    )
    compare(plan, options.margin, options.jobs, budget=options.budget)
    return 0


def tune(options: argparse.Namespace) -> int:
    """Run `nlp-ft tune`; return the exit code."""
    recipe = load_recipe(options.recipe, options.overrides)
    folder = Path(options.output or f"{recipe.output_dir}-tune")
    from nlp_ft.study.tuning.run import make_study, tune
    from nlp_ft.study.tuning.space import read_space

    study = make_study(options.recipe, tuple(options.overrides), folder, read_space(options.space))
    tune(study, options.trials, options.jobs)
    return 0


def find_lr(options: argparse.Namespace) -> int:
    """Run `nlp-ft find-lr`; return the exit code."""
    recipe = load_recipe(options.recipe, options.overrides)
    from nlp_ft.study.find_lr import find_rates

    found = find_rates(recipe, options.steps)
    print(f"{found}\n")
    if found.settings:
        print(wrapped(f"next: nlp-ft train {options.recipe} {' '.join([*options.overrides, *found.settings])}"))
    print(
        wrapped(
            "a few batches at each rate say less than runs that are scored on validation: nlp-ft compare makes them"
        )
    )
    return 0
