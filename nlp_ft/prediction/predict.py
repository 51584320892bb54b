"""Uses a run folder: predicts for new inputs, and scores the model on a labelled file or split."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pyarrow
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from tqdm import tqdm

from nlp_ft.data.sources import SPLITS
from nlp_ft.environment import is_main_process, launching
from nlp_ft.errors import DataError, RunFolderError, listed
from nlp_ft.models.labels import label_names
from nlp_ft.prediction.abstain import require_confidence, without_unsure
from nlp_ft.prediction.exports import folder_with
from nlp_ft.prediction.files import prediction_file
from nlp_ft.prediction.kept import kept_parts
from nlp_ft.prediction.parts import Parts
from nlp_ft.prediction.trained_run import Source, TrainedRun, counted_from
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.screen import is_quiet
from nlp_ft.tasks.outputs import Predictions
from nlp_ft.tasks.registry import task_class
from nlp_ft.tasks.task import Data
from nlp_ft.training.evaluation import Evaluator
from nlp_ft.training.precision import precision_of_use
from nlp_ft.training.run_folder import EXPORT

__all__ = ["Source", "TrainedRun", "evaluate_run", "load_run", "predict", "predict_to_file", "write_by_loss"]
RUNS = {
    "texts": "nlp_ft.prediction.text_run:TextRun",
    "questions": "nlp_ft.prediction.question_run:QuestionRun",
    "choices": "nlp_ft.prediction.choice_run:ChoiceRun",
    "words": "nlp_ft.prediction.word_run:WordRun",
    "images": "nlp_ft.prediction.image_run:ImageRun",
}
"""`Task.inputs` -> module and class of the trained run that reads such inputs."""


def load_run(folder: str | Path, trust_remote_code: bool = False, engine: str | None = None) -> TrainedRun:
    """Load a finished run.

    Args:
        folder: a run folder.
        trust_remote_code: whether Python code in the folder may run. The same setting in the folder's recipe is
            ignored, because the folder may come from someone else.
        engine: `torch` for the run itself; `openvino` or `onnxruntime` for the export beside it in the place that
            `nlp-ft export` gives it; `auto` for the fastest of them that changed no prediction when it was exported.
            None takes the folder as it is, a run or an export.

    Raises:
        RunFolderError: the folder is not a finished run, or is damaged; or there is no export of it for the engine.
    """
    folder = Path(folder)
    model = EXPORT if (folder / EXPORT).exists() else "model.safetensors"
    missing = [name for name in ("recipe.yaml", "config.json", model) if not (folder / name).exists()]
    if missing:
        partial = folder.with_name(folder.name + ".partial").exists()
        hint = "; its training has not finished: pass --resume to nlp-ft train" if partial else ""
        raise RunFolderError(f"{folder} is not a finished run: it has no {', '.join(missing)}{hint}")
    folder = folder_with(folder, engine)
    recipe = load_recipe(folder / "recipe.yaml")
    run: TrainedRun = resolve_name(RUNS[task_class(recipe.task).inputs])(folder, recipe, trust_remote_code)
    return run


def predict(run: Any, inputs: Any, trust_remote_code: bool = False, engine: str | None = None) -> Any:
    """Predict for new inputs of the kind that the run was trained on, encoded as in its own evaluation.

    Args:
        run: a run folder; or a run, from `fit`, `load` or `load_run`, whose model is loaded once.
        inputs: a text; a tuple of two, for a model of pairs or of questions and contexts; a tuple (prompt, [candidate,
            candidate, ...]); an image file or Pillow image; or a list, array or column of such, or of lists of words
            for a tagger.
        trust_remote_code: see `load_run`.
        engine: see `load_run`; a run that is loaded has its engine.

    Returns:
        The prediction for a single input: label and probabilities, numbers, entities, an answer or a choice. A list
        of them for several inputs.

    Raises:
        RunFolderError: the folder is not a finished run.
        DataError: single texts for a model of pairs, or the other way round; an image that cannot be read; or an engine
            for a run that is loaded.
    """
    if isinstance(run, str | Path):
        return load_run(run, trust_remote_code, engine).predict(inputs)
    if not hasattr(run, "predict"):
        raise DataError(
            f"predict takes a run folder or a loaded run, and then the inputs, got {type(run).__name__} first"
        )
    if engine is not None:
        raise DataError("this run is loaded already; pass engine to nlp_ft.load or load_run")
    return run.predict(inputs)


def predict_to_file(
    run: TrainedRun,
    source: Source,
    output: str,
    *,
    probabilities: bool = False,
    min_confidence: float | None = None,
    resume: bool = False,
) -> int:
    """Predict for any number of inputs and write the predictions in their order, chunk by chunk.

    Every column of the input stays as it is; the columns of `Outputs.columns` follow. Until the file is complete, the
    predictions of finished chunks stand in the folder `OUTPUT.partial`; lines of standard input have no such folder.

    Args:
        run: a run, from `load_run`.
        source: the inputs, such as `Source(file="new.csv")`.
        output: path of the file to write, ending in .csv, .jsonl or .parquet; it appears once it is complete.
        probabilities: whether to write a column `probability_LABEL` for each label.
        min_confidence: leave a prediction empty whose probability is lower, in [0, 1]; a column `abstained` says so.
        resume: whether to go on with what `OUTPUT.partial` holds, rather than to begin anew.

    Returns:
        The number of predictions written.

    Raises:
        DataError: there is no input, or one cannot be read; the file cannot be written, or cannot hold a value; or
            the outputs have no probabilities.
        RunFolderError: another process writes the file; or what was begun is another prediction.
    """
    if min_confidence is not None:
        require_confidence(run.outputs)
    # Lines are predicted as they arrive, and cannot be read a second time.
    is_kept = source.lines is None or resume
    keeping = kept_parts(run, source, output, probabilities=probabilities, resume=resume) if is_kept else nullcontext()
    written = 0
    with (
        keeping as parts,
        prediction_file(output, parts.folder if parts else None) as write,
        progress(run, source) as bar,
    ):
        for chunk, (inputs, rows) in enumerate(run.read(source)):
            with counted_from(written):
                columns = predicted_columns(run, inputs, probabilities, parts, chunk, bar.update)
            write(rows, columns if min_confidence is None else without_unsure(columns, min_confidence))
            written += len(inputs)
        if not written:
            raise DataError(f"predict needs one {run.input_name} or more, got none")
    return written


def predicted_columns(
    run: TrainedRun,
    inputs: Sequence[Any],
    probabilities: bool,
    parts: Parts | None,
    chunk: int,
    done: Callable[[int], object],
) -> pyarrow.Table:
    """Take the columns of a chunk from the finished ones, or compute and keep them. Raises: DataError."""
    found = parts.read(chunk) if parts else None
    if found is not None:
        done(len(inputs))
        return found
    columns = run.outputs.columns(run.activated(inputs, done), probabilities)
    return parts.keep(chunk, columns) if parts else columns


def progress(run: TrainedRun, source: Source) -> Any:
    """Make the bar of a prediction, which one process shows."""
    is_hidden = is_quiet() or not is_main_process()
    return tqdm(total=run.expected_inputs(source), unit=run.input_name, disable=is_hidden or None, leave=False)


def evaluate_run(
    folder: str | Path, data: str | Path | None = None, split: str = "test", trust_remote_code: bool = False
) -> Predictions:
    """Predict for labelled rows; the result has `scores()`, `table()` and `by_loss()`.

    Args:
        folder: a run folder.
        data: file(s) with the columns of the recipe, or class folders; None takes a split of the recipe.
        split: `train`, `validation` or `test` of the recipe, when `data` is None.
        trust_remote_code: see `load_run`.

    Raises:
        RunFolderError: the folder is not a finished run.
        DataError: the rows cannot be read, or have labels that the model does not know.
    """
    named = str(data) if isinstance(data, Path) else data
    return evaluate_trained(load_run(folder, trust_remote_code), named, split)


def labelled_rows(run: TrainedRun, data: str | list[str] | None, split: str) -> Data:
    """Read `TrainedRun.labelled`. Raises: DataError: they cannot be read; that of the recipe names what to do."""
    names = data if isinstance(data, list) else [data]
    if data is not None and not all(isinstance(name, str) for name in names):
        raise DataError(
            f"data must be the name of a file, or a list of names, got {type(data).__name__}; "
            "nlp_ft.load(RUN).evaluate takes rows"
        )
    try:
        labelled = run.labelled(data, split)
        _require_labels_of_model(labelled, label_names(run.model))
        return labelled
    except DataError as error:
        raise error if data is not None else DataError(f"{error}; other labelled files are named with --data") from None


def _require_labels_of_model(labelled: Data, known: Sequence[str]) -> None:
    """Check that an id means the same label in the data of a recipe and in the model. Raises: DataError."""
    if labelled.label_names and list(labelled.label_names) != list(known):
        raise DataError(
            f"the data of the recipe have other labels by now ({listed(labelled.label_names)}) than the model "
            f"({listed(known)})"
        )


def evaluate_trained(run: TrainedRun, data: str | list[str] | None, split: str) -> Predictions:
    """Predict for labelled rows with a loaded run; see `evaluate_run`. Raises: DataError."""
    if split not in SPLITS:
        raise DataError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if data is None and getattr(run.recipe.data, split) is None:
        raise DataError(f"the recipe of this run has no {split} split; name a file with --data")
    labelled = labelled_rows(run, data, split)
    with launching():
        # An earlier run in this process may have used another precision, and Accelerate's state would refuse this one.
        AcceleratorState._reset_state()
        precision = precision_of_use(run.recipe.training.precision, PartialState().device)
        accelerator = Accelerator(mixed_precision=precision)
    model = run.model.to(accelerator.device)
    collator, batch_size = run.collator(), run.recipe.training.eval_batch_size
    with run.outputs.exact(run.model):
        return Evaluator(accelerator, model, run.outputs, labelled, collator, batch_size).predict(split)


def write_by_loss(predictions: Predictions, output: str) -> None:
    """Write the predictions of `evaluate_run`, the row with the highest loss first.

    Args:
        predictions: the predictions.
        output: path of the file to write, ending in .csv, .jsonl or .parquet; it appears once it is complete.

    Raises:
        DataError: the file cannot be written.
    """
    with prediction_file(output) as write:
        for inputs, predicted in predictions.by_loss():
            write(inputs, predicted)
