"""Loads data sets that were written by `save_to_disk`, and checks that they are whole."""

import os

import datasets
import pyarrow
from datasets import Dataset, DatasetDict

from nlp_ft.data.file_advice import TEXT_FILES
from nlp_ft.data.stored import content_hash
from nlp_ft.data.unreadable import root_cause
from nlp_ft.errors import DataError, listed
from nlp_ft.suggest import did_you_mean

_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def split_of_saved(folder: str, name: str, field: str) -> Dataset:
    """Read one split from a folder written by `DatasetDict.save_to_disk`.

    Args:
        folder: path of the folder.
        name: name of the split.
        field: the recipe key that error messages name.

    Raises:
        DataError: the folder is damaged, or has no such split.
    """
    splits = _load(folder, "data.source")
    if not isinstance(splits, DatasetDict) or name not in splits:
        found = list(map(str, splits)) if isinstance(splits, DatasetDict) else ["one unnamed split"]
        near = did_you_mean(name, found)
        raise DataError(f"{field}: {folder} has no split {name}; it has: {listed(found)}{near}")
    return splits[name]


def rows_of_saved(folder: str, field: str) -> Dataset:
    """Read a folder written by `Dataset.save_to_disk`.

    Args:
        folder: path of the folder.
        field: the recipe key or option that error messages name.

    Raises:
        DataError: the folder is damaged, or holds several splits.
    """
    rows = _load(folder, field)
    if isinstance(rows, DatasetDict):
        raise DataError(f"{field}: {folder} holds the splits {listed(rows)}; name the folder in data.source")
    return rows


def _load(folder: str, field: str) -> Dataset | DatasetDict:
    """Load a saved data set and check all of it, because touching the memory map of a cut file ends the process.

    Raises:
        DataError: the folder was not written by `save_to_disk`, or is damaged.
    """
    try:
        loaded = datasets.load_from_disk(folder)
        for rows in loaded.values() if isinstance(loaded, DatasetDict) else [loaded]:
            files = [file["filename"] for file in rows.cache_files]
            for file in files:
                _check_arrow(file)
            # The fingerprint of the data set is whatever somebody wrote into state.json.
            rows._fingerprint = content_hash(files)
    except FileNotFoundError:
        if os.path.exists(f"{folder}/state.json") or os.path.exists(f"{folder}/dataset_dict.json"):
            raise DataError(f"{field}: {folder} was written by save_to_disk, but files of it are missing") from None
        raise DataError(
            f"{field}: {folder} is a folder, but not one written by Dataset.save_to_disk; {TEXT_FILES}"
        ) from None
    except Exception as error:  # JSON, features and Arrow data of a damaged folder raise many types
        raise DataError(
            f"{field}: {folder} was written by save_to_disk, but is damaged: {root_cause(error)}; write it again"
        ) from None
    return loaded


def _check_arrow(file: str) -> None:
    """Check that an Arrow file is whole.

    Raises:
        pyarrow.ArrowException: the file is cut, or a batch of it is damaged.
        OSError: the file cannot be read.
    """
    with pyarrow.OSFile(file) as stream:
        for batch in pyarrow.ipc.open_stream(stream):
            batch.validate(full=True)
    with open(file, "rb") as content:
        content.seek(-len(_END_OF_STREAM), os.SEEK_END)
        if content.read() != _END_OF_STREAM:
            raise pyarrow.ArrowInvalid(f"{file} is cut")
