"""The command `nlp-ft`: its commands and options. What they do is in commands.py."""

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

from nlp_ft import __version__
from nlp_ft.commands import (
    run_audit,
    run_eval,
    run_export,
    run_init,
    run_layers,
    run_predict,
    run_push,
    run_report,
    run_runs,
    run_schema,
    run_train,
    run_validate,
)
from nlp_ft.environment import check_environment
from nlp_ft.exits import exit_with
from nlp_ft.options import (
    OVERRIDES,
    Commands,
    Parser,
    add_command,
    add_level,
    add_min_confidence,
    add_recipe,
    add_trust,
    count,
    path,
    positive,
    shard,
)
from nlp_ft.screen import at_level
from nlp_ft.study_options import add_advise, add_compare, add_find_lr, add_tune

DESCRIPTION = """Fine-tune networks layer by layer: labels, numbers, tags, answers, choices of texts, labels of images.

examples:
  nlp-ft train recipes/quickstart.yaml
  nlp-ft train recipes/quickstart.yaml strategy=head_only optimizer.lr=1e-3 output_dir=runs/head
  nlp-ft predict runs/quickstart "my card never arrived"
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with 0, 1 (an audit found errors), 2 (any error), or 128 and the number of a signal.

    Args:
        arguments: the words after `nlp-ft`; None reads them from the command line.
    """
    exit_with(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = _parse(arguments)
    check_environment()
    command: Callable[[argparse.Namespace], int] = options.command
    with at_level(getattr(options, "level", "normal")):
        return command(options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse as argparse does, but let settings and texts also follow an option."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    field = next((name for name in ("overrides", "inputs") if hasattr(options, name)), None)
    end = rest.index("--") if "--" in rest else len(rest)  # what follows is no option, as in `-- "-5 degrees"`
    if rest and (field is None or any(word.startswith("-") and word != "-" for word in rest[:end])):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if field is not None:
        setattr(options, field, [*getattr(options, field), *rest[:end], *rest[end + 1 :]])
    return options


def build_parser() -> "Parser":
    """Build the parser of all commands and options."""
    parser = Parser(prog="nlp-ft", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"nlp-ft {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    adders = (
        _add_init,
        _add_train,
        _add_eval,
        _add_predict,
        _add_export,
        _add_push,
        add_advise,
        add_compare,
        add_tune,
        _add_runs,
        _add_report,
        _add_layers,
        _add_validate,
        _add_audit,
        add_find_lr,
        _add_schema,
    )
    for add in adders:
        add(commands)
    return parser


def _add_init(commands: Commands) -> None:
    examples = ("init --data my.csv", "init --data my.csv --model bert-base-uncased --output mine.yaml")
    init = add_command(
        commands,
        "init",
        run_init,
        "look at a file of texts, words, questions or choices and write a recipe for it, with comments",
        *examples,
    )
    data_help = "CSV, TSV, JSON Lines, Parquet, CoNLL or SQuAD: texts, words, questions or choices, and what to learn"
    init.add_argument("--data", type=path, required=True, metavar="FILE", help=data_help)
    init.add_argument(
        "--model", metavar="MODEL", help="a Hub id, a folder or package:NAME/PATH; default: MiniLM or BERT"
    )
    output_help = "the recipe to write (default: recipe.yaml)"
    init.add_argument("--output", type=path, default="recipe.yaml", metavar="FILE", help=output_help)
    init.add_argument("--overwrite", action="store_true", help="replace the file of --output")


def _add_runs(commands: Commands) -> None:
    examples = ("runs runs", "runs runs/first runs/second")
    runs = add_command(commands, "runs", run_runs, "list the runs under a folder, or what several differ in", *examples)
    folder_help = "a folder with runs, which are listed; or several run folders, whose differences are shown"
    runs.add_argument("folders", type=path, nargs="+", metavar="FOLDER", help=folder_help)


def _add_report(commands: Commands) -> None:
    examples = ("report runs/quickstart", "report runs/seed-0 runs/seed-1 runs/head --output compared.html")
    report = add_command(
        commands, "report", run_report, "write a report of a run, or compare runs, as one file", *examples
    )
    report.add_argument("runs", type=path, nargs="+", metavar="RUN", help="a run folder; several are compared")
    output_help = "the file to write (default: report.html in the run folder; of several runs, report.html here)"
    report.add_argument("--output", type=path, metavar="FILE", help=output_help)
    format_help = "html, md (Markdown) or json (default: by the ending of --output, else html)"
    report.add_argument("--format", choices=["html", "md", "json"], help=format_help)
    report.add_argument(
        "--no-texts", action="store_true", help="leave out the texts of rows, with their labels and answers"
    )
    report.add_argument("--overwrite", action="store_true", help="replace the file of --output")


def _add_train(commands: Commands) -> None:
    example = "train RECIPE.yaml optimizer.lr=1e-4 --resume"
    train = add_command(commands, "train", run_train, "fine-tune as a recipe says", example)
    add_recipe(train)
    train.add_argument("--resume", action="store_true", help="continue an unfinished run from its last checkpoint")
    train.add_argument("--overwrite", action="store_true", help="replace the run in output_dir")
    add_level(train)


def _add_export(commands: Commands) -> None:
    summary = "write a run for OpenVINO or ONNX Runtime, after comparing it with the original on labelled rows"
    examples = ("export runs/quickstart --to openvino", "export runs/quickstart --to openvino --int8 --output served")
    export = add_command(commands, "export", run_export, summary, *examples)
    export.add_argument("run", type=path, metavar="RUN", help="a run folder")
    export.add_argument("--to", required=True, choices=["openvino", "onnx"], help="the engine that will compute")
    output_help = "the folder to write (default: RUN-ENGINE, with --int8 RUN-ENGINE-int8)"
    export.add_argument("--output", type=path, metavar="FOLDER", help=output_help)
    export.add_argument("--int8", action="store_true", help="compute with 8-bit integers, which is faster and smaller")
    loss_help = "how many points of the score 8-bit integers may cost, else nothing is written (default: 0.5)"
    export.add_argument("--max-loss", type=positive, default=0.5, metavar="POINTS", help=loss_help)
    data_help = "labelled file(s) to compare on; default: the validation split of the recipe"
    export.add_argument("--data", type=path, metavar="FILE", help=data_help)
    export.add_argument("--overwrite", action="store_true", help="replace the export in --output")


def _add_push(commands: Commands) -> None:
    summary = "publish a run on the Hugging Face Hub: model, card and recipe, without texts of your data"
    examples = (
        "push runs/quickstart my-name/support-messages --dry-run",
        "push runs/quickstart my-name/support-messages",
    )
    push = add_command(commands, "push", run_push, summary, *examples)
    push.add_argument("run", type=path, metavar="RUN", help="a run folder")
    push.add_argument("repo", metavar="ORG/NAME", help="the model on the Hub; ORG may be your user name")
    push.add_argument("--public", action="store_true", help="let all see a new model; else it is private")
    license_help = "the licence of the model as the Hub names it, such as apache-2.0 (default: unknown)"
    push.add_argument("--license", metavar="ID", help=license_help)
    push.add_argument("--dry-run", action="store_true", help="show files, sizes and card, and send nothing")


def _add_eval(commands: Commands) -> None:
    examples = ("eval runs/quickstart --data new.csv", "eval runs/quickstart --output mistakes.csv")
    evaluate = add_command(commands, "eval", run_eval, "score a run on labelled rows", *examples)
    evaluate.add_argument("run", type=path, metavar="RUN", help="a run folder")
    data_help = "file or glob with the recipe's columns, or class folders of images; default: a split of the recipe"
    evaluate.add_argument("--data", type=path, metavar="FILE", help=data_help)
    add_trust(evaluate)
    add_level(evaluate)
    split_help = "the split of the recipe to score if --data is not given (default: test)"
    evaluate.add_argument("--split", default="test", choices=["train", "validation", "test"], help=split_help)
    add_min_confidence(
        evaluate, "also say how many rows have a prediction that is at least this probable, and score these"
    )
    output_help = "write each row's prediction to this file (.csv, .jsonl or .parquet), the highest loss first"
    evaluate.add_argument("--output", type=path, metavar="FILE", help=output_help)
    evaluate.add_argument("--overwrite", action="store_true", help="replace the file of --output")


def _add_predict(commands: Commands) -> None:
    examples = (
        'predict runs/quickstart "my card never arrived"',
        "predict runs/quickstart --file new.csv --output predicted.csv --probabilities",
        "predict runs/quickstart - < lines.txt",
        'predict runs/xquad "Who wrote it?" "Ada Lovelace wrote it in 1843."',
    )
    summary = "predict labels, numbers, tags, answers or choices for new texts or images"
    predict = add_command(commands, "predict", run_predict, summary, *examples)
    predict.add_argument("run", type=path, metavar="RUN", help="a run folder")
    inputs_help = (
        "texts, two for each prediction of a model of pairs; a question and the text that may answer it; a prompt "
        "and its candidates; image files, folders and zip files; or -, which reads standard input, an input a line, "
        "with tabs between its texts"
    )
    predict.add_argument("inputs", metavar="TEXT_OR_IMAGE", nargs="*", default=[], help=inputs_help)
    file_help = "CSV, TSV, JSON Lines or Parquet with the columns of the recipe, CoNLL, or the form of SQuAD"
    predict.add_argument("--file", type=path, metavar="FILE", help=file_help)
    format_help = "csv, tsv, jsonl or parquet: what standard input holds, for --file -, which reads all of it first"
    predict.add_argument("--format", choices=["csv", "tsv", "jsonl", "parquet"], help=format_help)
    output_help = "write the input's columns and the predictions to this file, .csv, .jsonl or .parquet"
    predict.add_argument("--output", type=path, metavar="FILE", help=output_help)
    predict.add_argument("--resume", action="store_true", help="go on with an unfinished file of --output")
    shard_help = "predict only the K-th of N parts; once all are there, --resume instead of it writes the file"
    predict.add_argument("--shard", type=shard, metavar="K/N", help=shard_help)
    predict.add_argument("--overwrite", action="store_true", help="replace the file of --output")
    probabilities_help = "write a column probability_LABEL for each label, where a text has one probability for each"
    predict.add_argument("--probabilities", action="store_true", help=probabilities_help)
    engine_help = (
        "torch: the run itself; openvino, onnxruntime: its export in the default place of nlp-ft export; auto: the "
        "fastest of them that changed no prediction (default: RUN as it is)"
    )
    predict.add_argument("--engine", choices=["auto", "torch", "openvino", "onnxruntime"], help=engine_help)
    add_min_confidence(predict, "abstain where the prediction is less probable than this, from 0 to 1")
    add_trust(predict)
    add_level(predict)
    top_help = "most likely labels, answers or candidates shown for each input (default: 3)"
    predict.add_argument("--top-k", type=count, default=3, help=top_help)


def _add_layers(commands: Commands) -> None:
    example = "layers bert-base-uncased optimizer.lr=2e-5"
    layers = add_command(commands, "layers", run_layers, "show each layer of a model with its learning rate", example)
    layers.add_argument("target", metavar="MODEL_OR_RECIPE", help="a recipe, folder, Hub id or package:NAME/PATH")
    layers.add_argument("overrides", metavar="key=value", nargs="*", default=[], help=OVERRIDES)
    full_help = "show every name and number in full, however wide the table"
    layers.add_argument(
        "--verbose", dest="level", action="store_const", const="verbose", default="normal", help=full_help
    )


def _add_validate(commands: Commands) -> None:
    example = "validate RECIPE.yaml strategy=gradual --resolved"
    validate = add_command(
        commands, "validate", run_validate, "describe the data of a recipe and find every problem", example
    )
    add_recipe(validate)
    resolved_help = (
        "first print every setting as YAML, with its origin: file, command line, preset, data and model, or default"
    )
    validate.add_argument("--resolved", action="store_true", help=resolved_help)


def _add_audit(commands: Commands) -> None:
    summary = "find what would silently go wrong in a run; exit code 1 if there are errors"
    add_recipe(add_command(commands, "audit", run_audit, summary, "audit RECIPE.yaml strategy=llrd"))


def _add_schema(commands: Commands) -> None:
    add_command(commands, "schema", run_schema, "print the JSON Schema of recipes", "schema > recipe.schema.json")
