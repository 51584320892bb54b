"""What `fit` was given, made into a recipe and the files that it names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute

from nlp_ft.api.names import data_folder, free_folder
from nlp_ft.api.rows import RowFile, Split, Table, kept_columns, require_column, splits_of
from nlp_ft.api.settings import settings_from
from nlp_ft.api.task_seen import Labels, seen_task
from nlp_ft.data.sources import load_raw_splits
from nlp_ft.data.splits import progress_bars
from nlp_ft.errors import DataError, RecipeError
from nlp_ft.recipe import RECIPES, Recipe
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.recipe.problems import sections_in, task_hint
from nlp_ft.recipe.text import TextDataSection

SHARE = "10%"
"""The validation rows, as a share of train, where none are given."""
FEWEST_ROWS = 100
"""Fewest rows of train of which validation rows are drawn without being asked for."""
PLACES = ("source", "config", "revision", "split_column", "train")
"""Keys of `data` that say where the rows of train are."""
COLUMNS = ("text", "label")


@dataclass(frozen=True)
class Given:
    """A recipe, the rows that it needs as files, and what to say about it."""

    recipe: Recipe
    files: list[RowFile]
    remarks: list[str]

    def write_files(self) -> None:
        """Write the rows beside the run folder, where the recipe looks for them. Raises: DataError."""
        for file in self.files:
            file.write(data_folder(self.recipe.output_dir))


@dataclass(frozen=True)
class Arguments:
    """The arguments of `nlp_ft.fit` that say what to learn from."""

    data: Any
    validation: Any
    test: Any
    text: str | Sequence[str]
    label: str
    task: str | None
    output_dir: str | None
    settings: Mapping[str, Any]

    def given(self) -> Given:
        """Make the recipe; nothing is written. Raises: NlpFtError."""
        splits = splits_of(self.data, self.validation, self.test, self.text, self.label)
        train, remarks = splits.by_name.get("train"), list(splits.remarks)
        if train is None and not {"train", "source"} & self._places().keys():
            raise DataError("fit needs data: rows, names of files, or source=... for a data set on the Hub")
        labels = self._labels(train)
        task = self._task(train, labels, remarks)
        values = settings_from(self.settings, RECIPES[task])
        if "model" not in values:
            raise RecipeError("fit: model is missing; name a pretrained network, such as model='bert-base-uncased'")
        folder = self.output_dir or free_folder(values)
        section = values.setdefault("data", {})
        self._name_columns(section, task)
        files = _place_rows(section, splits.by_name, task, folder)
        if "validation" not in section and self.validation is not False:
            share = self.validation if self.validation is not None else _share(labels, task, remarks)
            section["validation"] = share
        return Given(recipe_from_dict({**values, "task": task, "output_dir": folder}, "fit"), files, remarks)

    def _task(self, train: Split | None, labels: Labels | None, remarks: list[str]) -> str:
        if self.task is not None:
            if self.task not in RECIPES:
                known = f"{', '.join(RECIPES)}, got {self.task!r}"
                raise RecipeError(f"fit: task must be one of {known}{task_hint(self.task)}")
            return self.task
        task, reason = seen_task(labels) if labels else ("image_classification", f"{train} is a place of images")
        remarks.insert(0, f"task: {task}, because {reason}; task=... says otherwise")
        return task

    def _labels(self, train: Split | None) -> Labels | None:
        """Read the label column of train; None for images, and for a task whose labels lie elsewhere."""
        if isinstance(train, Table):
            if self.task is not None and self.label not in train.rows.column_names:
                return None
            require_column(train, self.label, "label", "data")
            return Labels(self.label, train.rows.column(self.label), bool(train.label_names))
        places = {**self._places(), **({} if train is None else {"train": train})}
        if self.task not in (None, "text_classification", "text_regression") or _are_images(places.get("train")):
            return None
        text = self.text if isinstance(self.text, str) else list(self.text)
        with progress_bars(False):
            rows = load_raw_splits(TextDataSection(**places, text=text, label=self.label))["train"]
        values = rows.select_columns([self.label]).with_format("arrow")[:].column(self.label)
        names = getattr(rows.features[self.label], "names", None)
        return Labels(self.label, values, bool(names), _are_csv(places.get("source") or places["train"]))

    def _places(self) -> dict[str, Any]:
        """Collect the settings that say where the rows are, however they were given."""
        section = self.settings.get("data")
        given = {**(section if isinstance(section, Mapping) else {}), **self.settings}
        given |= {name: given[f"data.{name}"] for name in PLACES if f"data.{name}" in given}
        return {name: given[name] for name in PLACES if name in given}

    def _name_columns(self, section: dict[str, Any], task: str) -> None:
        """Name the columns in the recipe, where the task has them under these names."""
        fields = _fields_of_data(task)
        for name, given in (("text", self.text), ("label", self.label)):
            if name in fields:
                section.setdefault(name, given if isinstance(given, str) else list(given))
            elif given != name:
                raise RecipeError(f"fit: {name} is no key of data under {task}; its keys: {', '.join(fields)}")


def _fields_of_data(task: str) -> Mapping[str, Any]:
    return sections_in(RECIPES[task].model_fields["data"].annotation)[0].model_fields


def _place_rows(section: dict[str, Any], splits: Mapping[str, Split], task: str, folder: str) -> list[RowFile]:
    """Let the recipe name the files of each split; make those of rows in the memory."""
    fields, files = _fields_of_data(task), []
    for name, split in splits.items():
        if name in section:
            raise RecipeError(f"fit: the rows of {name} are given twice, as an argument and as data.{name}; give one")
        if not isinstance(split, Table):
            section[name] = split
            continue
        if "image" in fields:
            raise DataError(f"{task} reads images from folders, zip files and Parquet files; name one as data")
        for column in COLUMNS:
            for wanted in _as_list(section[column]) if column in fields else []:
                require_column(split, wanted, column, "data" if name == "train" else name)
        if split.label_names and "label_names" in fields:
            section.setdefault("label_names", split.label_names)
        named = [one for key in fields for one in _as_list(section.get(key, fields[key].default))]
        rows = kept_columns(split.rows, named)
        file = RowFile.of(name, _whole_labels(rows, section.get("label"), task))
        section[name] = str(data_folder(folder) / file.name)
        files.append(file)
    return files


def _whole_labels(rows: pyarrow.Table, label: str | None, task: str) -> pyarrow.Table:
    """Write labels such as 1.0, which pandas makes of whole numbers where some are missing, as whole numbers."""
    if task != "text_classification" or label not in rows.column_names:
        return rows
    place, values = rows.column_names.index(label), rows.column(label)
    if not pyarrow.types.is_floating(values.type):
        return rows
    try:
        return rows.set_column(place, label, values.cast(pyarrow.int64()))
    except pyarrow.ArrowInvalid:
        return rows


def _share(labels: Labels | None, task: str, remarks: list[str]) -> str | None:
    """Decide whether validation rows are drawn from train, which nobody asked for, and say so."""
    if labels is not None and (few := too_few(labels, task)):
        remarks.append(f"validation: none, as {few}; the last weights are kept. validation='20%' draws some rows")
        return None
    remarks.append(f"validation: {SHARE} of the rows of train, drawn at random; validation=False trains without")
    return SHARE


def too_few(labels: Labels, task: str) -> str:
    """Say why train is too small to give validation rows away; an empty text if it is not."""
    if len(labels.values) < FEWEST_ROWS:
        return f"train has fewer than {FEWEST_ROWS} rows"
    if task == "text_classification" and labels.rarest() < 2:
        return "a label of train has one row"
    if task == "text_classification" and len(labels.distinct()) > len(labels.values) // 10:
        return "train has too few rows for its labels"
    return ""


def _as_list(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []


def _are_images(place: Any) -> bool:
    """Whether a place is a folder of images, or a zip file of them, rather than rows."""
    places = [Path(one) for one in _as_list(place)]
    saved = ("state.json", "dataset_dict.json")
    return bool(places) and all(
        one.suffix.lower() == ".zip" or (one.is_dir() and not any((one / name).exists() for name in saved))
        for one in places
    )


def _are_csv(place: Any) -> bool:
    return all(Path(one).suffix.lower() in (".csv", ".tsv") for one in _as_list(place))
