"""What each command of `nlp-ft` does with its parsed options; each returns the exit code.

A command imports what it needs when it runs, so that `--help` answers at once.
"""

import argparse
import shlex
from pathlib import Path

from nlp_ft.environment import is_main_process
from nlp_ft.errors import DataError, printable
from nlp_ft.exits import fail
from nlp_ft.screen import is_verbose, say
from nlp_ft.tables import terminal_width, wrapped


def run_init(options: argparse.Namespace) -> int:
    """Write a recipe for a file of data."""
    file = Path(options.output)
    if file.exists() and not options.overwrite:
        raise DataError(f"--output: {file} exists; choose another, or pass --overwrite to replace it")
    from nlp_ft.api.draft import write_draft

    text = write_draft(file, options.data, options.model)
    print(f"{text}\nrecipe: {printable(str(file))}")
    print(f"next: nlp-ft validate {printable(shlex.quote(str(file)))}")
    return 0


def run_runs(options: argparse.Namespace) -> int:
    """List runs, or what they differ in."""
    from nlp_ft.api.run_list import compare_runs, list_runs

    is_one = len(options.folders) == 1
    width = terminal_width()
    print(list_runs(options.folders[0], width) if is_one else compare_runs(options.folders, width))
    return 0


def run_report(options: argparse.Namespace) -> int:
    """Write a report of a run, or of several."""
    from nlp_ft.report.write import format_of, report_file, write_comparison, write_report

    form = format_of(options.output, options.format)
    file = report_file(options.runs, options.output, form, options.overwrite)
    if len(options.runs) == 1:
        write_report(options.runs[0], file, form, texts=not options.no_texts)
    else:
        write_comparison(options.runs, file, form)
    print(f"report: {printable(str(file))} ({file.stat().st_size / 1000:,.0f} kB)")
    return 0


def run_train(options: argparse.Namespace) -> int:
    """Fine-tune as a recipe says."""
    from nlp_ft.recipe.loader import load_recipe_with_layers
    from nlp_ft.recipe.origins import resolved_yaml
    from nlp_ft.training.run_folder import RunFolder

    recipe, layers = load_recipe_with_layers(options.recipe, options.overrides)
    if is_verbose():
        say(resolved_yaml(recipe, layers))
    # The run checks the folder again; checked here first, an error comes before the seconds of importing torch.
    if is_main_process():
        RunFolder(recipe.output_dir, options.resume, options.overwrite)
    from accelerate import PartialState

    from nlp_ft.training.run import train

    train(recipe, resume=options.resume, overwrite=options.overwrite)
    PartialState().destroy_process_group()
    return 0


def run_export(options: argparse.Namespace) -> int:
    """Export a run."""
    from nlp_ft.export.command_line import export

    return export(options)


def run_push(options: argparse.Namespace) -> int:
    """Push a run to the Hub."""
    from nlp_ft.export.command_line import push

    return push(options)


def run_compare(options: argparse.Namespace) -> int:
    """Compare strategies."""
    from nlp_ft.study.command_line import compare

    return compare(options)


def run_tune(options: argparse.Namespace) -> int:
    """Search settings."""
    from nlp_ft.study.command_line import tune

    return tune(options)


def run_eval(options: argparse.Namespace) -> int:
    """Score a run on labelled rows."""
    from nlp_ft.prediction.command_line import evaluate

    return evaluate(options)


def run_predict(options: argparse.Namespace) -> int:
    """Predict for new inputs."""
    from nlp_ft.prediction.command_line import predict

    return predict(options)


def run_layers(options: argparse.Namespace) -> int:
    """Show the layers of a model."""
    from nlp_ft.training.inspection import describe_layers

    print(describe_layers(options.target, options.overrides))
    return 0


def run_validate(options: argparse.Namespace) -> int:
    """Describe the data of a recipe, and find every problem."""
    from nlp_ft.recipe.derived import derived_layers, filled
    from nlp_ft.recipe.loader import load_recipe_with_layers
    from nlp_ft.recipe.origins import resolved_yaml

    # Loaded first, so that an error comes before the seconds of importing torch.
    recipe, layers = load_recipe_with_layers(options.recipe, options.overrides)
    from nlp_ft.training.inspection import inspect_recipe

    found = inspect_recipe(recipe)
    if options.resolved:
        print(resolved_yaml(filled(recipe, found.derived), [*layers, *derived_layers(found.derived)]), flush=True)
    if found.problems:
        return fail("\n".join(f"{printable(options.recipe)}: {problem}" for problem in found.problems))
    lines = [wrapped(line) if not options.resolved else line for line in found.lines(not options.resolved)]
    lines += ["", f"{printable(options.recipe)}: ready to train"]
    # After a resolved recipe these are comments, so that the whole output is one YAML file.
    print("\n".join(f"# {line}".rstrip() if options.resolved else line for line in lines))
    return 0


def run_audit(options: argparse.Namespace) -> int:
    """Find what would silently go wrong; return 1 if there are errors."""
    from nlp_ft.training.inspection import audit_recipe

    report = audit_recipe(options.recipe, options.overrides)
    print(wrapped(str(report)))
    return 1 if report.has_errors else 0


def run_advise(options: argparse.Namespace) -> int:
    """Say which strategy to take."""
    from nlp_ft.study.command_line import advise

    return advise(options)


def run_find_lr(options: argparse.Namespace) -> int:
    """Try rising learning rates."""
    from nlp_ft.study.command_line import find_lr

    return find_lr(options)


def run_schema(options: argparse.Namespace) -> int:
    """Print the JSON Schema of recipes."""
    from nlp_ft.recipe.loader import json_schema

    print(json_schema(), end="")
    return 0
