"""What `fit` was given, made into a recipe and the files that it names."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute

from nlp_ft.api.column import Names, as_names, is_text, kept_columns, refuse_other_names, whole_labels
from nlp_ft.api.forms import Seen, View, see, see_as, spread
from nlp_ft.api.names import data_folder, free_folder
from nlp_ft.api.place import PLACES, are_images, view_of_place
from nlp_ft.api.row_file import RowFile
from nlp_ft.api.rows import Split, Table, require_column, splits_of
from nlp_ft.api.settings import settings_from
from nlp_ft.errors import DataError, RecipeError
from nlp_ft.recipe import RECIPES, Recipe
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.recipe.problems import sections_in, task_hint

SHARE = "10%"
"""The validation rows, as a share of train, where none are given."""
FEWEST_ROWS = 100
"""Fewest rows of train of which validation rows are drawn without being asked for."""
ARTICLE = "title"
"""Column with the article of a question, by which shares are drawn, if the rows have it."""


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

    def discard_files(self) -> None:
        """Remove the files of rows, unless there is a run that may read them."""
        run, folder = Path(self.recipe.output_dir), data_folder(self.recipe.output_dir)
        if run.exists() or run.with_name(f"{run.name}.partial").exists():
            return
        for file in self.files:
            (folder / file.name).unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()

    def in_words_of_fit(self, message: str) -> str:
        """Name the argument that rows were given as, where a message names the file that they were written to."""
        for file in self.files:
            place = data_folder(self.recipe.output_dir) / file.name
            message = message.replace(f"data.{file.split} ({place})", "data" if file.split == "train" else file.split)
        return message


@dataclass(frozen=True)
class Arguments:
    """The arguments of `nlp_ft.fit` that say what to learn from."""

    data: Any
    validation: Any
    test: Any
    text: str | Sequence[str]
    label: str | Sequence[str]
    task: str | None
    output_dir: str | None
    settings: Mapping[str, Any]

    def given(self) -> Given:
        """Make the recipe; nothing is written. Raises: NlpFtError."""
        if self.task is not None and self.task not in RECIPES:
            known = f"{', '.join(RECIPES)}, got {self.task!r}"
            raise RecipeError(f"fit: task must be one of {known}{task_hint(self.task)}")
        if any(names is None or not _plain(names) for names in (self.text, self.label)):
            raise RecipeError("fit: text and label must each name a column, or several; got none")
        splits = splits_of(self.data, self.validation, self.test, _plain(self.text), _plain(self.label))
        train, remarks = splits.by_name.get("train"), list(splits.remarks)
        if train is None and not {"train", "source"} & self._places().keys():
            raise DataError("fit needs data: rows, names of files, or source=... for a data set on the Hub")
        view, by_name = self._spread(self._view(train), splits.by_name)
        seen = self._seen(view, train, remarks)
        values = settings_from(self.settings, RECIPES[seen.task])
        if not isinstance(model := self.settings.get("model", ""), str | os.PathLike | Mapping):
            raise RecipeError(
                "fit: model must name a pretrained network: a Hub id, a folder or package:NAME/PATH; got "
                f"{type(model).__name__}; write it to a folder with save_pretrained, its tokenizer too, and name that"
            )
        if "model" not in values:
            raise RecipeError("fit: model is missing; name a pretrained network, such as model='bert-base-uncased'")
        folder = self.output_dir or free_folder(values)
        section = values.setdefault("data", {})
        self._name_columns(section, seen)
        files = _place_rows(section, by_name, seen, folder)
        if "validation" not in section and self.validation is not False:
            share = self.validation if self.validation is not None else _share(view, seen, remarks)
            section["validation"] = share
        recipe = recipe_from_dict({**values, "task": seen.task, "output_dir": folder}, "fit")
        return Given(recipe, files, remarks)

    def _view(self, train: Split | None) -> View | None:
        """Look at the rows of train; None for images."""
        text, label = _plain(self.text), _plain(self.label)
        named = _data_settings(self.settings)
        if isinstance(train, Table):
            return View(train.rows, text, label, named, train.class_names)
        places = {**self._places(), **({} if train is None else {"train": train})}
        is_of_images = self.task is not None and "image" in _fields_of_data(self.task)
        if is_of_images or are_images(places.get("train")):
            return None
        return view_of_place(places, View(pyarrow.table({}), text, label, named), self.task)

    def _seen(self, view: View | None, train: Split | None, remarks: list[str]) -> Seen:
        if self.task is not None:
            return see_as(view or View(pyarrow.table({}), _plain(self.text), _plain(self.label)), self.task)
        if view is None:
            seen = Seen("image_classification", f"{train} is a place of images", {"label": _plain(self.label)})
        else:
            seen = see(view)
        remarks.insert(0, f"task: {seen.task}, because {seen.reason}; task=... says otherwise")
        return seen

    def _spread(self, view: View | None, splits: Mapping[str, Split]) -> tuple[View | None, dict[str, Split]]:
        """Make columns of labels that are the rows of a matrix, in all splits. Raises: DataError."""
        if view is None or not isinstance(splits.get("train"), Table) or not _has_texts(view):
            return view, dict(splits)
        rows, label = spread(view.rows, view.label, "data")
        if label == view.label:
            return view, dict(splits)
        found = {
            name: replace(split, rows=spread(split.rows, label, "data" if name == "train" else name)[0])
            if isinstance(split, Table)
            else split
            for name, split in splits.items()
        }
        return replace(view, rows=rows, label=label), found

    def _places(self) -> dict[str, Any]:
        """Collect the settings that say where the rows are, however they were given."""
        given = _data_settings(self.settings)
        return {name: given[name] for name in PLACES if name in given}

    def _name_columns(self, section: dict[str, Any], seen: Seen) -> None:
        """Name the columns in the recipe, where the task has them under these names."""
        fields = _fields_of_data(seen.task)
        used = [name for names in seen.columns.values() for name in as_names(names)]
        for key, names in seen.columns.items():
            if key in fields:
                section.setdefault(key, names)
        for key, value in seen.settings.items():
            section.setdefault(key, value)
        for keyword, given in (("text", _plain(self.text)), ("label", _plain(self.label))):
            if given != keyword and keyword not in fields and not set(as_names(given)) <= set(used):
                raise RecipeError(f"fit: {keyword} is no key of data under {seen.task}; its keys: {', '.join(fields)}")


def _plain(names: str | Sequence[str]) -> Names:
    """Take names of columns as texts; a DataFrame without a header has whole numbers."""
    if isinstance(names, str) or not hasattr(names, "__iter__"):
        return str(names)
    return [str(name) for name in names]


def _data_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the settings of the section `data`, by the last part of their names."""
    section = settings.get("data")
    dotted = {name.removeprefix("data."): value for name, value in settings.items() if name.startswith("data.")}
    return {**(section if isinstance(section, Mapping) else {}), **settings, **dotted}


def _has_texts(view: View) -> bool:
    names = as_names(view.text)
    return view.has(*names) and all(is_text(view.rows.schema.field(name).type) for name in names)


def _fields_of_data(task: str) -> Mapping[str, Any]:
    return sections_in(RECIPES[task].model_fields["data"].annotation)[0].model_fields


def _require(columns: Mapping[str, Names], table: Table, what: str) -> None:
    """Check that rows have the columns that the task needs. Raises: DataError."""
    for key, names in columns.items():
        for name in as_names(names):
            require_column(table, name, key, what)


def _place_rows(section: dict[str, Any], splits: Mapping[str, Split], seen: Seen, folder: str) -> list[RowFile]:
    """Let the recipe name the files of each split; make those of rows in the memory."""
    fields, files = _fields_of_data(seen.task), []
    for name, split in splits.items():
        if name in section:
            raise RecipeError(f"fit: the rows of {name} are given twice, as an argument and as data.{name}; give one")
        if not isinstance(split, Table):
            section[name] = split
            continue
        if "image" in fields:
            raise DataError(f"{seen.task} reads images from folders, zip files and Parquet files; name one as data")
        columns = {key: section[key] for key in seen.columns if section.get(key) is not None}
        _require(columns, split, "data" if name == "train" else name)
        label = section.get("label")
        if (names := _class_names(split, label)) and "label_names" in fields:
            known = section.setdefault("label_names", names)
            refuse_other_names(names, _class_names(splits.get("train"), label), str(label), f"{name} and train")
            if isinstance(known, list | tuple) and set(names) <= set(known):  # else label_names renames them
                refuse_other_names(names, known, str(label), "data and label_names")
        named = [one for key in fields for one in _as_list(section.get(key, fields[key].default))]
        rows = kept_columns(split.rows, [*named, *([ARTICLE] if "article" in fields else [])])
        file = RowFile.of(name, whole_labels(rows, label, seen.task))
        section[name] = str(data_folder(folder) / file.name)
        files.append(file)
    return files


def _class_names(split: Split | None, label: Any) -> Sequence[str]:
    """List the names of the ids in the label column; none where it holds no ids."""
    return split.class_names.get(label, ()) if isinstance(split, Table) and isinstance(label, str) else ()


def _share(view: View | None, seen: Seen, remarks: list[str]) -> str | None:
    """Decide whether validation rows are drawn from train, which nobody asked for, and say so."""
    if view is not None and (few := too_few(view, seen)):
        remarks.append(f"validation: none, as {few}; the last weights are kept. validation='20%' draws some rows")
        return None
    remarks.append(f"validation: {SHARE} of the rows of train, drawn at random; validation=False trains without")
    return SHARE


def too_few(view: View, seen: Seen) -> str:
    """Say why train is too small to give validation rows away; an empty text if it is not."""
    if view.rows.num_columns and view.rows.num_rows < FEWEST_ROWS:
        return f"train has fewer than {FEWEST_ROWS} rows"
    context = seen.columns.get("context")
    if isinstance(context, str) and view.has(context):
        article = next((name for name in (ARTICLE, "article") if view.has(name)), context)
        return "" if len(view.rows.column(article).unique()) > 1 else "train has one article"
    label = seen.columns.get("label")
    if seen.task != "text_classification" or not isinstance(label, str) or not view.has(label):
        return ""
    labels = view.labels(label)
    if len(labels.distinct()) > len(labels.values) // 10:
        return "train has too few rows for its labels"
    return ""


def _as_list(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []
