"""The options of the commands that study strategies and settings; what they do is in study/command_line.py."""

from nlp_ft.commands import run_advise, run_compare, run_find_lr, run_tune
from nlp_ft.options import Commands, add_command, add_level, add_recipe, count, path, positive, seconds


def add_compare(commands: Commands) -> None:
    """Add `compare`."""
    examples = (
        "compare recipes/quickstart.yaml",
        "compare mine.yaml --strategies full head_only llrd --seeds 5 --rates 3 --output runs/which",
        "compare mine.yaml training.duration=3ep --strategies full llrd --baseline llrd --margin 1 --jobs 2",
        "compare mine.yaml --strategies full head_only lora --equal seconds",
        "compare mine.yaml --seeds 10 --budget 30m",
        "compare mine.yaml --executor ray --jobs 16",
    )
    summary = "train strategies with several rates and seeds, and say which is better, or what it takes to know"
    compare = add_command(commands, "compare", run_compare, summary, *examples)
    add_recipe(compare)
    strategies_help = (
        "names of strategies, with spaces or commas between them (default: full, head_only, "
        "llrd, top_layers, gradual, lp_ft, lora and scratch, as far as they are possible)"
    )
    compare.add_argument("--strategies", nargs="+", default=[], metavar="NAME", help=strategies_help)
    compare.add_argument("--seeds", type=count, default=5, metavar="N", help="seeds of each cell (default: 5)")
    rates_help = "learning rates of each strategy, a factor of 3 apart, around that of its preset (default: 3)"
    compare.add_argument("--rates", type=count, default=3, metavar="N", help=rates_help)
    baseline_help = "the strategy that the others are compared with (default: full, or else the first)"
    compare.add_argument("--baseline", default="", metavar="NAME", help=baseline_help)
    margin_help = "a difference below it counts as equal, in points; of losses and errors in their unit (default: 0.5)"
    compare.add_argument("--margin", type=positive, default=0.5, metavar="X", help=margin_help)
    equal_help = (
        "what all strategies have the same of (default: epochs): the recipe's epochs, the same steps without early "
        "stopping, or the seconds that the baseline trains, by the speed of a first run of each"
    )
    compare.add_argument("--equal", choices=["epochs", "steps", "seconds"], default="epochs", help=equal_help)
    budget_help = (
        "race within this time, such as 20m or 2h, over all starts of the command: seed by seed, strategies that are "
        "clearly behind on validation are dropped (default: train all)"
    )
    compare.add_argument("--budget", type=seconds, metavar="TIME", help=budget_help)
    jobs_help = "cells that are trained at the same time (default: 1)"
    compare.add_argument("--jobs", type=count, default=1, metavar="N", help=jobs_help)
    executor_help = (
        "where they are trained (default: local): on this machine; on a running Ray cluster, that of RAY_ADDRESS or of "
        "this machine, whose machines all see the comparison folder; or none, which writes their recipes for another "
        "scheduler"
    )
    compare.add_argument("--executor", choices=["local", "ray", "none"], default="local", help=executor_help)
    output_help = "the comparison folder; the same command goes on in it (default: the recipe's output_dir + -compare)"
    compare.add_argument("--output", type=path, metavar="DIR", help=output_help)


def add_advise(commands: Commands) -> None:
    """Add `advise`."""
    examples = ("advise recipes/quickstart.yaml", "advise mine.yaml --budget 5m --output advised.yaml")
    summary = "say which strategy to take on this data and whether it is worth it, from short trials; test is not read"
    advise = add_command(commands, "advise", run_advise, summary, *examples)
    add_recipe(advise)
    budget_help = "time that it may take, about, such as 90s, 3m or 1h (default: 2m)"
    advise.add_argument("--budget", type=seconds, default="2m", metavar="TIME", help=budget_help)
    advise.add_argument("--output", type=path, metavar="FILE", help="write the advised recipe to this file")
    advise.add_argument("--overwrite", action="store_true", help="replace the file of --output")
    add_level(advise)


def add_tune(commands: Commands) -> None:
    """Add `tune`."""
    examples = (
        "tune mine.yaml --trials 20",
        "tune mine.yaml strategy=llrd --space optimizer.lr=1e-5..1e-3 optimizer.layer_decay=0.7..1.0",
        "tune mine.yaml --space training.duration=2ep,3ep,5ep model.dropout=0.0..0.3 --trials 40 --jobs 2",
    )
    summary = "search settings of a recipe over trials that are judged on validation, with Optuna"
    tune = add_command(commands, "tune", run_tune, summary, *examples)
    add_recipe(tune)
    trials_help = "trials in the folder at the end, those of earlier starts included (default: 20)"
    tune.add_argument("--trials", type=count, default=20, metavar="N", help=trials_help)
    space_help = (
        "settings to search: key=low..high, key=a,b,c, or a YAML file of such lines (default: the learning rates "
        "around those of the recipe, and layer_decay)"
    )
    tune.add_argument("--space", nargs="+", default=[], metavar="KEY=RANGE", help=space_help)
    jobs_help = "trials that are trained at the same time (default: 1)"
    tune.add_argument("--jobs", type=count, default=1, metavar="N", help=jobs_help)
    output_help = "the study folder; the same command goes on in it (default: the recipe's output_dir + -tune)"
    tune.add_argument("--output", type=path, metavar="DIR", help=output_help)


def add_find_lr(commands: Commands) -> None:
    """Add `find-lr`."""
    summary = "try rising learning rates on the training data, and suggest one for the head and one for the encoder"
    find_lr = add_command(
        commands,
        "find-lr",
        run_find_lr,
        summary,
        "find-lr RECIPE.yaml",
        "find-lr RECIPE.yaml strategy=full --plot rates.svg",
    )
    add_recipe(find_lr)
    find_lr.add_argument("--steps", type=count, default=100, help="steps of each test, at least 20 (default: 100)")
    find_lr.add_argument("--plot", metavar="FILE", help="draw losses and suggestions as .svg, .png or .pdf")
