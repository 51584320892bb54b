"""What `nlp-ft predict` and `eval` do: they check paths and inputs before the seconds of importing torch, and print."""

import argparse
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nlp_ft.environment import is_main_process, num_launched
from nlp_ft.errors import DataError, printable
from nlp_ft.prediction.parts import check_partial, partial_folder
from nlp_ft.screen import is_quiet
from nlp_ft.tables import terminal_width, wrapped

if TYPE_CHECKING:
    from nlp_ft.prediction.trained_run import Source, TrainedRun

STDIN = "-"
ENDINGS = (".csv", ".jsonl", ".parquet")
"""Endings of files that predictions can be written to."""
FORMATS = ("csv", "tsv", "jsonl", "parquet")
"""Formats that `--file -` can read."""


def evaluate(options: argparse.Namespace) -> int:
    """Score a run and print the scores. Raises: NlpFtError."""
    if options.output:
        check_output(options.output, options.overwrite)
    from nlp_ft.prediction.abstain import format_kept, require_confidence
    from nlp_ft.prediction.predict import evaluate_trained, load_run, write_by_loss
    from nlp_ft.tasks.outputs import score_table

    run, least = load_run(options.run, options.trust_remote_code), options.min_confidence
    if least is not None:
        require_confidence(run.outputs)
    predictions = evaluate_trained(run, options.data, options.split)
    if not is_quiet() and (table := predictions.table()):
        print(f"{table}\n")
    scores = {options.data or options.split: predictions.scores()}
    print(score_table(scores, predictions.outputs.shown_metrics, terminal_width()))
    if not is_quiet():
        print(wrapped(f"\n{predictions.intervals(predictions.margins())}"))
    if least is not None:
        print(f"\n{wrapped(format_kept(predictions, least, terminal_width()))}")
    if options.output and is_main_process():
        write_by_loss(predictions, options.output)
        print(f"\n{len(predictions.losses)} predictions in {printable(options.output)}, the highest loss first")
    elif not is_quiet():
        print("--output mistakes.csv writes every row and its prediction, the mistakes first")
    return 0


def predict(options: argparse.Namespace) -> int:
    """Predict, and print or write the predictions. Raises: NlpFtError."""
    # Checked here, so that an error comes before the seconds of loading the model.
    check_inputs(options.inputs, options.file, options.format)
    if options.output:
        _check_file_to_write(options)
    elif option := next((name for name in ("probabilities", "resume", "shard") if getattr(options, name)), None):
        shows = "; on the screen, --top-k shows the probabilities" if option == "probabilities" else ""
        raise DataError(f"--{option} needs --output{shows}")
    elif num_launched() > 1:
        raise DataError(f"{num_launched()} processes need --output; start one process to see predictions")
    from nlp_ft.prediction.abstain import require_confidence
    from nlp_ft.prediction.predict import load_run
    from nlp_ft.prediction.trained_run import Source

    run = load_run(options.run, options.trust_remote_code, options.engine)
    if options.min_confidence is not None:
        require_confidence(run.outputs)
    if run.input_name != "image":
        refuse_tables(options.inputs)
    from_stdin = options.inputs == [STDIN]
    with readable_file(options.file, options.format) as file:
        lines = standard_input() if from_stdin else None
        source = Source(file, [] if from_stdin else options.inputs, lines)
        if options.output:
            _write(run, source, options)
        else:
            _show(run, source, options.top_k, options.min_confidence)
    return 0


def _check_file_to_write(options: argparse.Namespace) -> None:
    """Check what `predict --output` was asked for. Raises: DataError, RunFolderError."""
    if num_launched() > 1:
        if options.shard:
            raise DataError("the processes of a launch are its shards: leave out --shard, or start each one alone")
        if STDIN in (*options.inputs, options.file):
            raise DataError("the processes of a launch cannot share standard input; name a file with --file")
        if not is_main_process():
            return
    check_output(options.output, options.overwrite, options.resume)
    check_partial(options.output, options.resume or bool(options.shard), options.overwrite)


def _write(run: "TrainedRun", source: "Source", options: argparse.Namespace) -> None:
    from nlp_ft.prediction.predict import predict_to_file
    from nlp_ft.prediction.shards import predict_launched, predict_shard

    output, probabilities = options.output, options.probabilities
    if options.shard:
        written = predict_shard(run, source, output, options.shard, probabilities=probabilities)
        place = printable(str(partial_folder(output)))
        print("shard {}/{}: {} predictions in {}".format(*options.shard, written, place))
        if not is_quiet():
            print(wrapped("once all shards are done, the same command with --resume instead of --shard joins them"))
        return
    write = predict_launched if num_launched() > 1 else predict_to_file
    least = options.min_confidence
    written = write(run, source, output, probabilities=probabilities, min_confidence=least, resume=options.resume)
    if is_main_process():
        print(f"{written} prediction{'' if written == 1 else 's'} in {printable(output)}")


def _show(run: "TrainedRun", source: "Source", top_k: int, least: float | None) -> None:
    from nlp_ft.prediction.abstain import unsure_line
    from nlp_ft.prediction.trained_run import counted_from

    shown = 0
    for inputs, _ in run.read(source):
        with counted_from(shown):
            predictions = run.predict(inputs)
        shown += len(inputs)
        for item, prediction in zip(inputs, predictions, strict=True):
            print(wrapped(printable(run.shown(item))))
            unsure = [] if least is None else unsure_line(prediction, least)
            for line in (*unsure, *run.outputs.lines(prediction, top_k)):
                print(wrapped(f"  {line}"))
        # So that whoever writes lines to standard input sees the predictions of those that are there.
        sys.stdout.flush()
    if run.outputs.numbers_shown and not is_quiet():
        print(f"(numbers: {run.outputs.numbers_shown})")


def check_output(path: str, overwrite: bool, resume: bool = False) -> None:
    """Check, before a model is loaded, that predictions can be written to a file. Raises: DataError."""
    file = Path(path)
    if file.is_dir():
        raise DataError(f"--output: {path}: Is a directory")
    if file.suffix.lower() not in ENDINGS:
        raise DataError(f"--output: the file's name must end in {', '.join(ENDINGS)}, got {path}")
    if file.exists() and not overwrite:
        also = "--resume --overwrite" if resume and partial_folder(path).exists() else "--overwrite"
        raise DataError(f"--output: {path} exists; choose another, or pass {also} to replace it")
    if not file.absolute().parent.is_dir():
        raise DataError(f"--output: {path}: No such file or directory")


def check_inputs(words: Sequence[str], file: str | None, file_format: str | None) -> None:
    """Check that exactly one place is named that inputs come from. Raises: DataError."""
    if bool(words) == bool(file):
        raise DataError("predict needs one of: texts or images on the command line, - for standard input, --file")
    if STDIN in words and len(words) > 1:
        raise DataError("- stands for standard input, and must be the only input")
    if (file == STDIN) != bool(file_format):
        raise DataError(f"--file - and --format belong together; the formats are {', '.join(FORMATS)}")


def refuse_tables(words: Sequence[str]) -> None:
    """Check that no word is the name of a file of rows, which would be predicted as a text. Raises: DataError."""
    for word in words:
        if word.lower().endswith(tuple(f".{ending}" for ending in FORMATS)) and os.path.isfile(word):
            raise DataError(f"{word} is a file, and would be predicted as a text; --file {word} reads its rows")


def standard_input() -> io.BufferedReader:
    """Open standard input for bytes, which are there as soon as they arrive."""
    return io.BufferedReader(io.FileIO(0, closefd=False))


@contextmanager
def readable_file(file: str | None, file_format: str | None) -> Iterator[str | None]:
    """Yield the path of a file; standard input is first copied to a temporary one, because a file is read twice.

    Args:
        file: a path, or `-`.
        file_format: the format of standard input, the ending of the copy.
    """
    if file != STDIN:
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"standard_input.{file_format}"
        with copy.open("wb") as stream:
            shutil.copyfileobj(standard_input(), stream)
        yield str(copy)
