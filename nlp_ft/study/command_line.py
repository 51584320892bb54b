"""The study commands, `compare`, `advise`, `tune` and `find-lr`: from parsed options to what is printed."""

import argparse
import os
import shlex
from pathlib import Path

from nlp_ft.errors import Interrupted, RecipeError, RunFolderError, printable
from nlp_ft.exits import INTERRUPTED
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.study.on_ray import Cluster
from nlp_ft.study.process import at_a_time
from nlp_ft.tables import wrapped


def compare(options: argparse.Namespace) -> int:
    """Run `nlp-ft compare`; return the exit code."""
    # Settings may follow the names of strategies, as in `--strategies full llrd optimizer.lr=1e-4`.
    overrides = [*options.overrides, *(word for word in options.strategies if "=" in word)]
    strategies = [name for word in options.strategies if "=" not in word for name in word.split(",") if name]
    if options.executor == "none" and options.budget is not None:
        raise RecipeError("--executor none: nothing is trained that a --budget could end; leave it out, or train here")
    # Loaded first, so that an error comes before the seconds of importing torch.
    recipe = load_recipe(options.recipe, overrides)
    folder = Path(options.output or f"{recipe.output_dir}-compare")
    start = Cluster().start if options.executor == "ray" else at_a_time(options.jobs)
    from nlp_ft.study.cells import make_plan
    from nlp_ft.study.compare import compare, prepare

    plan = make_plan(
        options.recipe, overrides, folder, strategies, options.rates, options.seeds, options.baseline, options.equal
    )
    if options.executor == "none":
        prepare(plan)
    else:
        compare(plan, options.margin, options.jobs, start, options.budget)
    return 0


def advise(options: argparse.Namespace) -> int:
    """Run `nlp-ft advise`; return the exit code."""
    file = options.output and Path(options.output)
    if file:
        _check_recipe_file(file, options.recipe, options.overwrite)
    load_recipe(options.recipe, options.overrides)
    from nlp_ft.study.advise.advise import advise
    from nlp_ft.study.advise.settings import advised_recipe
    from nlp_ft.study.advise.tables import recipe_comments, screen
    from nlp_ft.training import durable

    try:
        found = advise(options.recipe, options.overrides, options.budget)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; nothing was written", INTERRUPTED) from None
    print(f"\n{screen(found)}\n")
    command = shlex.join(["nlp-ft", "advise", options.recipe, *options.overrides])
    if file:
        text = advised_recipe(
            found.values, found.choice.strategy, found.own, found.settings, recipe_comments(found, command)
        )
        durable.write_text(file, text)
        print(f"recipe: {printable(str(file))}\nnext: nlp-ft train {printable(shlex.quote(str(file)))}")
    else:
        print(wrapped("next: the same with --output advised.yaml writes the recipe"))
    print(wrapped("trials are short: where the choice matters, nlp-ft compare trains and judges the candidates"))
    return 0


def tune(options: argparse.Namespace) -> int:
    """Run `nlp-ft tune`; return the exit code."""
    recipe = load_recipe(options.recipe, options.overrides)
    folder = Path(options.output or f"{recipe.output_dir}-tune")
    from nlp_ft.study.tuning.run import tune
    from nlp_ft.study.tuning.space import read_space
    from nlp_ft.study.tuning.study import make_study

    study = make_study(options.recipe, tuple(options.overrides), folder, read_space(options.space))
    tune(study, options.trials, options.jobs, at_a_time(options.jobs))
    return 0


def _check_recipe_file(file: Path, recipe: str, overwrite: bool) -> None:
    """Check, before minutes of trials, that the advised recipe can be written. Raises: RunFolderError."""
    if file.is_dir():
        raise RunFolderError(f"--output: {file}: Is a directory")
    if file.suffix not in (".yaml", ".yml"):
        raise RunFolderError(f"--output: a recipe's name must end in .yaml or .yml, got {file}")
    if not file.absolute().parent.is_dir():
        raise RunFolderError(f"--output: {file}: No such file or directory")
    if file.resolve() == Path(recipe).resolve():
        raise RunFolderError(f"--output: {file} is the recipe that is advised on, which stays as it is; choose another")
    if file.exists() and not overwrite:
        raise RunFolderError(f"--output: {file} exists; choose another, or pass --overwrite to replace it")
    if not os.access(file.absolute().parent, os.W_OK):
        raise RunFolderError(f"--output: nothing can be written in {file.absolute().parent}")


def find_lr(options: argparse.Namespace) -> int:
    """Run `nlp-ft find-lr`; return the exit code."""
    recipe = load_recipe(options.recipe, options.overrides)
    from nlp_ft.study.lr_plot import check_plot, write_plot

    # Before torch is imported, which takes seconds.
    if options.plot:
        check_plot(options.plot)
    from nlp_ft.study.find_lr import DEFAULT_STEPS, find_rates

    try:
        found = find_rates(recipe, options.steps)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; nothing was written", INTERRUPTED) from None
    print(f"{found}\n")
    if options.steps < DEFAULT_STEPS:
        said = f"look: in {options.steps} steps a head learns little at low rates, so its suggestion is often too high"
        print(wrapped(f"{said}; {DEFAULT_STEPS} are the default"))
    if options.plot:
        write_plot(found, options.plot)
        print(f"plot: {printable(options.plot)}\n")
    if found.settings:
        print(
            f"next: {printable(shlex.join(['nlp-ft', 'train', options.recipe, *options.overrides, *found.settings]))}"
        )
    print(
        wrapped(
            "a few batches at each rate say less than runs that are scored on validation: nlp-ft compare makes them"
        )
    )
    return 0
