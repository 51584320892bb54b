"""`Run`: a finished run as Python uses it, with scores, predictions, history and a view for notebooks."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_ft.api.column import as_names, refuse_other_names, whole_labels
from nlp_ft.api.forms import names_of, spread
from nlp_ft.api.row_file import RowFile
from nlp_ft.api.rows import Table, is_table, read_rows, require_column
from nlp_ft.errors import DataError, RunFolderError
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.choices import ChoiceDataSection
from nlp_ft.recipe.loader import load_recipe

if TYPE_CHECKING:
    import numpy as np

    from nlp_ft.prediction.trained_run import TrainedRun


class Run:
    """A finished run; its model is loaded when it first predicts.

    Args:
        folder: the run folder.
        trust_remote_code: whether Python code in the folder may run; only for authors that you trust.
        engine: see `load`.

    Raises:
        RunFolderError: the folder is not a finished run.
    """

    def __init__(self, folder: str | Path, trust_remote_code: bool = False, engine: str | None = None) -> None:
        self.folder = Path(folder)
        """The run folder."""
        self._trust_remote_code, self._engine = trust_remote_code, engine
        self.summary = self._read_summary()

    def _read_summary(self) -> dict[str, Any]:
        try:
            summary: dict[str, Any] = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
            summary["metrics"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise RunFolderError(
                f"{self.folder} is not a finished run: it has no summary.json that can be read"
            ) from None
        return summary

    def check_unchanged(self) -> None:
        """Check that the folder still holds this run. Raises `RunFolderError` if another has replaced it."""
        # No two runs take the same time, to the last digit.
        if self._read_summary().get("total_seconds") != self.summary.get("total_seconds"):
            raise RunFolderError(f"{self.folder} holds another run by now; give each run an output_dir of its own")

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The scores of the splits that were held out: split -> metric -> value."""
        metrics: dict[str, dict[str, float]] = self.summary["metrics"]
        return metrics

    @property
    def verdict(self) -> list[dict[str, str]]:
        """What the run says of itself: remarks, each with what it `says` and what to `do`."""
        verdict: list[dict[str, str]] = self.summary.get("verdict", [])
        return verdict

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe with every setting that was derived. Raises: RecipeError."""
        return load_recipe(self.folder / "recipe.yaml")

    @property
    def history(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, from the first step to the last; `pandas.DataFrame` takes them as they are.

        Raises:
            RunFolderError: there is none, as in an export.
        """
        file = self.folder / "metrics.jsonl"
        if not file.exists():
            raise RunFolderError(f"{self.folder} has no metrics.jsonl; an export leaves it to its run")
        lines = file.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @cached_property
    def trained(self) -> "TrainedRun":
        """The loaded model. Raises: RunFolderError: the folder is damaged or replaced, or lacks an export."""
        from nlp_ft.prediction.predict import load_run

        self.check_unchanged()
        return load_run(self.folder, self._trust_remote_code, self._engine)

    @property
    def labels(self) -> list[str]:
        """The labels, in the order of the columns of `predict_proba`; or the tags; empty where there are none."""
        return list(getattr(self.trained.outputs, "label_names", []))

    def predict(self, inputs: Any) -> Any:
        """Predict for new inputs: one prediction for a single input, a list of them for several.

        Args:
            inputs: a text; a tuple of two, for a model of pairs or of questions and contexts; a tuple (prompt,
                [candidate, candidate, ...]); an image file; or a list, array or column of such, or of lists of words
                for a tagger; or a DataFrame, a data set or a dict of columns, with the columns of the recipe.

        Raises:
            DataError: an input is not of the kind that the run was trained on.
        """
        return self.trained.predict(self._inputs(inputs))

    def predict_proba(self, inputs: Any) -> "np.ndarray":
        """Compute the probability of each label, (inputs, labels), in the order of `labels`.

        Raises:
            DataError: the run predicts numbers, tags, answers or choices; or an input is not of the kind that it was
                trained on.
        """
        if reason := self.trained.outputs.without_probabilities:
            raise DataError(f"predict_proba needs a run that predicts labels; this run {reason}")
        return self.trained.activated_all(self._inputs(inputs))

    def _inputs(self, inputs: Any) -> Any:
        """Take the columns of the recipe from rows with named columns. Raises: DataError: a column is missing."""
        if not is_table(inputs):
            return inputs
        data = self.recipe.data
        text, label = names_of(data)
        read = read_rows(inputs, text, label, "the input")
        assert isinstance(read, Table)
        for name in as_names(text):
            require_column(read, name, None, "the input")
        if isinstance(data, ChoiceDataSection):
            from nlp_ft.data.choices.rows import prompt_and_candidates

            rows = enumerate(read.rows.select(as_names(text)).to_pylist())
            return [prompt_and_candidates(row, f"the input: row {number} (from 0)", data) for number, row in rows]
        # As in training and in files, a missing text is an empty one.
        columns = [
            ["" if cell is None else cell for cell in read.rows.column(name).to_pylist()] for name in as_names(text)
        ]
        return columns[0] if isinstance(text, str) else list(zip(*columns, strict=True))

    def evaluate(self, data: Any = None, *, split: str = "test") -> dict[str, float]:
        """Score the model on labelled rows.

        Args:
            data: rows with the columns of the recipe, in a form that `nlp_ft.fit` takes; None takes a split of the
                recipe.
            split: `train`, `validation` or `test` of the recipe, if `data` is None.

        Returns:
            Metric -> value.

        Raises:
            DataError: the rows cannot be read, or have labels that the model does not know.
        """
        from nlp_ft.prediction.predict import evaluate_trained

        if data is None:
            return evaluate_trained(self.trained, None, split).scores()
        text, label = names_of(self.recipe.data)
        read = read_rows(data, text, label, "data")
        if not isinstance(read, Table):
            return evaluate_trained(self.trained, read, split).scores()
        read = replace(read, rows=spread(read.rows, label, "data")[0])
        for name in (*as_names(text), *as_names(label)):
            require_column(read, name, None, "data")
        names = read.class_names.get(label if isinstance(label, str) else "", [])
        if set(names) & set(self.labels):  # else data.label_names has renamed all of them
            refuse_other_names(names, self.labels, str(label), "data and run")
        with tempfile.TemporaryDirectory() as folder:
            rows = whole_labels(read.rows, label, self.recipe.task).replace_schema_metadata(None)
            file = RowFile.of("data", rows)
            file.write(Path(folder))
            place = str(Path(folder) / file.name)
            try:
                return evaluate_trained(self.trained, place, split).scores()
            except DataError as error:
                raise DataError(str(error).replace(f"--data ({place})", "data")) from None

    def save(self, folder: str | Path) -> "Run":
        """Copy the run folder, and return the run in the copy; `nlp_ft.load` and Transformers load it from there.

        The recipe in the copy names the same rows and the same `output_dir` as before.

        Raises:
            RunFolderError: the folder exists already.
        """
        if Path(folder).exists():
            raise RunFolderError(f"{folder} exists; choose another folder, or remove it")
        shutil.copytree(self.folder, folder)
        return Run(folder, self._trust_remote_code)

    def __repr__(self) -> str:
        """The folder and the scores, on one line."""
        scores = [f"{split} {_first_score(values)}" for split, values in self.metrics.items()]
        return f"Run({str(self.folder)!r}{''.join(f', {score}' for score in scores)})"

    def _repr_html_(self) -> str:
        """The scores as a table and the verdict, for a notebook."""
        from nlp_ft.api.html import run_as_html

        return run_as_html(self.folder, self.summary)


def load(folder: str | Path, trust_remote_code: bool = False, engine: str | None = None) -> Run:
    """Load a finished run as `nlp_ft.fit` returns it.

    Args:
        folder: a run folder.
        trust_remote_code: whether Python code in the folder may run; only for authors that you trust.
        engine: `torch`, `openvino`, `onnxruntime` or `auto`, see `load_run`; None takes the folder as it is.

    Raises:
        RunFolderError: the folder is not a finished run.
    """
    return Run(folder, trust_remote_code, engine)


def _first_score(values: Mapping[str, float]) -> str:
    name = next((name for name in values if name != "loss"), "loss")
    return f"{name} {values[name]:.4f}"
