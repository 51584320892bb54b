"""`fit`: fine-tunes on rows as Python holds them, by the same recipe, checks and code as the command line."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from nlp_ft.api.given import Arguments
from nlp_ft.api.run import Run
from nlp_ft.errors import Interrupted, NlpFtError, RecipeError, RunFolderError
from nlp_ft.screen import Level, at_level, in_notebook, show, shows_bar
from nlp_ft.suggest import did_you_mean
from nlp_ft.training.run_folder import RunFolder


def fit(
    data: Any = None,
    *,
    text: str | Sequence[str] = "text",
    label: str | Sequence[str] = "label",
    model: str | Path | Mapping[str, Any] | None = None,
    task: str | None = None,
    validation: Any = None,
    test: Any = None,
    output_dir: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    level: Level | None = None,
    **settings: Any,
) -> Run:
    """Fine-tune a model on rows, and return the run with its scores and predictions.

    Rows in the memory are written to the folder `<output_dir>.data`, and the recipe in the run folder names these
    files: with them, `nlp-ft train <output_dir>/recipe.yaml output_dir=NEW` gives the same weights to the bit.

    Args:
        data: the rows of train: a DataFrame, a data set of `datasets` or a `DatasetDict`, a dict of columns, a list of
            dicts, a list of (text, label) pairs, a tuple of two lists (texts, labels), or names of files.
        text: column with the text, or with the list of its words; or two columns for pairs of texts.
        label: column with the label, the list of labels or of tags, or the number; or several columns, with 0 or 1 for
            each label, or a number each. Questions have `question`, `context` and `answers` instead, see `settings`.
        model: the pretrained encoder: a Hub id, a folder, or `package:NAME/PATH`.
        task: what to learn, such as `text_regression`; None sees it in the columns and says so.
        validation: rows that choose the best weights, in a form of `data`, or a share such as `10%`; None draws 10%
            of train, unless train is tiny; False trains without.
        test: rows that are scored once at the end, in a form of `data`.
        output_dir: the run folder; None takes a new one under runs/.
        overwrite: whether to replace the run in `output_dir`.
        resume: whether to continue an unfinished run in `output_dir`.
        level: how much is shown: `quiet`, `bar`, `normal` or `verbose`; None is `bar` in a notebook, else `normal`.
        settings: any key of a recipe by the last part of its name (`lr=1e-4`, `strategy="gradual"`,
            `duration="3ep"`), as a section (`optimizer={"lr": 1e-4}`) or in full (`**{"optimizer.lr": 1e-4}`).

    Raises:
        NlpFtError: what `nlp-ft train` would refuse, in the same words; or a keyword that is no setting.
        Interrupted: Ctrl-C or SIGTERM; during training, a checkpoint is written first.
    """
    if level not in (None, *get_args(Level)):
        near = did_you_mean(str(level), get_args(Level))
        raise RecipeError(f"fit: level must be one of {', '.join(get_args(Level))}, got {level!r}{near}")
    folder = None if output_dir is None else str(output_dir)
    settings |= {} if model is None else {"model": model}
    with at_level(level or ("bar" if in_notebook() else "normal")), _named_in_python():
        given = Arguments(data, validation, test, text, label, task, folder, settings).given()
        for remark in given.remarks if shows_bar() else ():
            show(remark)
        # The run checks the folder again; checked here, an error comes before rows are written and torch is imported.
        RunFolder(given.recipe.output_dir, resume, overwrite)
        from nlp_ft.training.run import train

        try:
            given.write_files()
            train(given.recipe, resume=resume, overwrite=overwrite)
        except NlpFtError as error:
            # Where the folder is the trouble, another process may read these rows.
            if not isinstance(error, RunFolderError):
                given.discard_files()
            raise type(error)(given.in_words_of_fit(str(error))) from None
    return Run(given.recipe.output_dir)


@contextmanager
def _named_in_python() -> Iterator[None]:
    """Let errors name the keyword that goes on, where the command line has an option. Raises: as inside."""
    try:
        yield
    except RunFolderError as error:
        raise RunFolderError(_in_python(str(error))) from None
    except Interrupted as error:
        raise Interrupted(_in_python(str(error)), error.exit_code) from None


def _in_python(message: str) -> str:
    return (
        message.replace("--resume --overwrite", "resume=True, overwrite=True")
        .replace("--resume", "resume=True")
        .replace("--overwrite", "overwrite=True")
    )
