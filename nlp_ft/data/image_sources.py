"""Reads the raw image splits of a recipe: folders and zip files of class folders, Parquet files, saved data sets.

Folders are listed here and not by the `imagefolder` builder of `datasets`, which guesses splits from names, skips files
at another depth, and does not notice an empty class folder.
"""

import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import pyarrow
from datasets import Dataset, Features, Image, Value

from nlp_ft.data.file_advice import TEXT_FILES
from nlp_ft.data.image_files import ZIP_MARK, file_stamp, is_image_place, list_images
from nlp_ft.data.saved_datasets import split_of_saved
from nlp_ft.data.sources import check_columns, expand, from_hub, load_files, named_splits
from nlp_ft.data.stored import stored_rows
from nlp_ft.data.unreadable import root_cause
from nlp_ft.errors import DataError, listed
from nlp_ft.locations import PREFIX
from nlp_ft.recipe.images import ImageDataSection
from nlp_ft.suggest import did_you_mean

SPLIT_FOLDERS = frozenset({"train", "training", "validation", "valid", "val", "dev", "test", "testing"})
Entry = tuple[str, str, tuple[int, ...]]
"""Reference of an image, name of its class, and `file_stamp` of the file that holds it."""


def load_raw_images(data: ImageDataSection) -> dict[str, Dataset]:
    """Read the image splits that the recipe names; a validation share of train is drawn later.

    Returns:
        Split name -> rows with the recipe's image column, not decoded, and its label column.

    Raises:
        DataError: a location, split or column is missing or cannot be read.
    """
    raw: dict[str, Dataset] = {}
    for split, field, where in named_splits(data):
        rows = _from_source(data, split, where) if data.source else load_image_places(where, field, data)
        raw[split] = with_images(rows, data, f"{field} ({where})")
    return raw


def load_image_places(places: str | Sequence[str], field: str, data: ImageDataSection) -> Dataset:
    """Read rows from folders or zip files of class folders, from Parquet files, or from saved datasets.

    Args:
        places: location or locations of the data.
        field: the recipe key or option that error messages name.
        data: the section that names the columns.

    Raises:
        DataError: nothing is there, kinds of locations are mixed, or something cannot be read.
    """
    found = expand(places, field)
    kinds = [is_image_place(place) for place in found]
    if all(kinds):
        return _labelled_by_folder([(place, "") for place in found], field, data)
    if any(kinds):
        raise DataError(f"{field}: folders or zip files of images and other files cannot be mixed, got {listed(found)}")
    return load_files(found, field, [("image", data.image), ("label", data.label)])


def with_images(rows: Dataset, data: ImageDataSection, where: str) -> Dataset:
    """Select the image and label columns of rows, without decoding the images.

    Args:
        rows: the rows, with any columns.
        data: the section that names the columns.
        where: name of the rows in error messages.

    Raises:
        DataError: there are no rows, a column is missing, or its values are not images.
    """
    if data.image == data.label:
        raise DataError(f"data.image and data.label are one column, {data.image!r}; each needs its own")
    check_columns(rows.column_names, [("image", data.image), ("label", data.label)], where)
    if len(rows) == 0:
        raise DataError(f"{where} has no rows")
    try:
        rows = rows.select_columns([data.image, data.label]).cast_column(data.image, Image(decode=False))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise DataError(
            f"{where}: data.image is {data.image!r}, a column of {rows.features[data.image]}, not of images: "
            f"{root_cause(error)}"
        ) from None
    return rows


def _from_source(data: ImageDataSection, split: str, name: str | list[str]) -> Dataset:
    assert data.source is not None
    field = f"data.{split}"
    if not isinstance(name, str):
        raise DataError(f"{field} must be one split of data.source, got {name}")
    source = data.source if isinstance(data.source, str) else None
    if source and not (source.startswith(PREFIX) or os.path.exists(source) or Path(source).suffix or "*" in source):
        return from_hub(data, source, name, field)
    places = expand(data.source, "data.source")
    if len(places) == 1 and Path(places[0]).is_dir() and not is_image_place(places[0]):
        return split_of_saved(places[0], name, field)
    for place in places:
        if not is_image_place(place):
            raise DataError(f"data.source: {place} is not a folder or zip file of images; give the files in data.train")
    return _labelled_by_folder([(place, name) for place in places], field, data)


def _labelled_by_folder(places: Sequence[tuple[str, str]], field: str, data: ImageDataSection) -> Dataset:
    """Read rows whose label is the name of the image's folder.

    Args:
        places: (path of a folder or zip file, folder of the split inside it, or "" for the whole).
        field: the recipe key that error messages name.
        data: the section that names the columns.
    """
    entries = [entry for place, split in places for entry in _entries(place, split, field)]
    features = Features({data.image: Image(decode=False), data.label: Value("string")})
    columns = {
        data.image: [{"bytes": None, "path": reference} for reference, _, _ in entries],
        data.label: [name for _, name, _ in entries],
    }
    # The stamps are in the key, so that a cached description of an image does not outlive the image.
    key = blake2b(repr((data.image, data.label, entries)).encode("utf-8", "surrogatepass")).hexdigest()
    try:
        table = pyarrow.table(columns, features.arrow_schema)
    except UnicodeEncodeError:
        raise DataError(f"{field}: a file's name is not valid UTF-8; rename the file") from None
    rows = stored_rows(key, lambda: iter([table]))
    assert rows is not None
    return rows


def _entries(place: str, split: str, field: str) -> list[Entry]:
    shown = f"{place}/{split}" if split else place
    images = _below(list_images(place, field), split, place, field)
    if not images:
        raise DataError(
            f"{field}: {shown} holds no image; rows are read from files, such as FOLDER/*.csv, unpacked; {TEXT_FILES}"
        )
    loose = [name for name in images if "/" not in name]
    if loose:
        raise DataError(
            f"{field}: {shown}: {loose[0]} and {len(loose) - 1} more are in no class folder; each class needs a folder "
            "of its own"
        )
    classes = {name.partition("/")[0] for name in images}
    if set(map(str.lower, classes)) <= SPLIT_FOLDERS:
        raise DataError(
            f"{field}: {shown} holds splits ({listed(sorted(classes))}), not classes; name it in data.source, and "
            "its folders in data.train and data.test"
        )
    _refuse_empty_classes(Path(place) / split, classes, field)
    return [
        (reference, name.partition("/")[0], file_stamp(reference.rpartition(ZIP_MARK)[2]))
        for name, reference in images.items()
    ]


def _below(images: dict[str, str], split: str, place: str, field: str) -> dict[str, str]:
    """Keep the images of one split, with paths relative to its folder."""
    if not Path(place).is_dir():
        images = _unwrapped(images, split)
    if not split:
        return images
    found = sorted({name.partition("/")[0] for name in images})
    if split not in found:
        near = did_you_mean(split, found)
        raise DataError(f"{field}: {place} has no folder {split} with images; it has: {listed(found)}{near}")
    prefix = f"{split}/"
    return {name.removeprefix(prefix): reference for name, reference in images.items() if name.startswith(prefix)}


def _unwrapped(images: dict[str, str], split: str) -> dict[str, str]:
    """Drop the outer folder of a zip file from the paths if it holds everything."""
    tops = {name.partition("/")[0] for name in images}
    inner = {name.partition("/")[2]: reference for name, reference in images.items()}
    return inner if len(tops) == 1 and split not in tops and all("/" in name for name in inner) else images


def _refuse_empty_classes(folder: Path, classes: set[str], field: str) -> None:
    children = [child for child in folder.iterdir() if child.is_dir()] if folder.is_dir() else []
    empty = sorted(child.name for child in children if child.name not in classes and not child.name.startswith("."))
    # A test set may lack a class, but a class folder of train without images is a mistake.
    if empty and field == "data.train":
        raise DataError(f"{field}: {folder / empty[0]} holds no image; add some, or remove the folder")
