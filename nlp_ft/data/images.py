"""Loads the image splits of a recipe: reads and labels them, and decodes every image once to find damaged ones."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow
from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets
from PIL import Image

from nlp_ft.data.columns import numbers
from nlp_ft.data.image_files import UNREADABLE, decode, name_of, read_bytes, reason, to_rgb
from nlp_ft.data.image_sources import load_raw_images, with_images
from nlp_ft.data.labels import LabelValue, find_labels, labels_of_model
from nlp_ft.data.splits import draw_rows, progress_bars, useful_processes
from nlp_ft.data.stored import stored_map
from nlp_ft.data.windows import Windows
from nlp_ft.data.workers import end_with_parent
from nlp_ft.errors import DataError
from nlp_ft.recipe.images import ImageDataSection

ROWS_WORTH_A_PROCESS = 2_000
UNREADABLE_SHOWN = 5


@dataclass(frozen=True)
class ImageData:
    """The splits of a recipe, by name (`train`, `validation`, `test`).

    A row holds `image` (not decoded: `bytes` or `path`), `labels` (label id), `row` (its number in the data that was
    read), `image_hash` (hash of the pixels), `width` and `height` in pixels, and Pillow's `mode`.
    """

    encoded: dict[str, Dataset]
    label_names: list[str]

    def lengths(self, split: str) -> np.ndarray:
        """Return zeros, (rows,): images have no length, because all are resized to one size."""
        return np.zeros(len(self.encoded[split]), np.int64)

    def windows(self, split: str) -> Windows:
        """Which row each encoded row belongs to: the row itself."""
        return Windows.of(self.encoded[split])

    def labels(self, split: str) -> np.ndarray:
        """Label id of each row, (rows,)."""
        return self.column(split, "labels")

    def column(self, split: str, name: str) -> np.ndarray:
        """Read a column with one number a row, (rows,)."""
        return numbers(self.encoded[split], name)

    def inputs(self, split: str, rows: np.ndarray) -> pyarrow.Table:
        """`row`, the number in the data that was read, and `image`, the file's name, of some rows of a split."""
        found = self.encoded[split].select_columns(["row", "image"]).with_format("arrow")[rows.tolist()]
        rows_read, cells = found["row"], found["image"].combine_chunks()
        paths = cells.field("path").to_pylist()
        is_embedded = cells.field("bytes").is_valid().to_pylist()
        names = [
            name_of({"bytes": embedded or None, "path": path}, row)
            for embedded, path, row in zip(is_embedded, paths, rows_read.to_pylist(), strict=True)
        ]
        return pyarrow.table({"row": rows_read, "image": names})


def load_image_data(data: ImageDataSection, seed: int = 0) -> ImageData:
    """Read and label the splits of a recipe, and draw rows as it says, by its seed.

    Raises:
        DataError: the data cannot be trained on, see `load_raw_images` and `find_labels`; or an image cannot be
            decoded.
    """
    with progress_bars(False):
        raw = load_raw_images(data)
        labels = find_labels(raw, data.label, data.label_names)
    encoded = {split: _encode(rows, f"data.{split}", data, labels) for split, rows in raw.items()}
    return ImageData(draw_rows(encoded, "labels", ["image_hash"], data, seed), list(labels.values()))


def encode_image_split(
    rows: Dataset, split: str, where: str, data: ImageDataSection, label_names: Sequence[str]
) -> ImageData:
    """Encode labelled rows for a trained model, as data of one split.

    Args:
        rows: the rows.
        split: name of the split in the result.
        where: name of the rows in error messages.
        data: the section that names the columns.
        label_names: the model's label names in the order of the ids.

    Raises:
        DataError: a column is missing, a label is not one of the model's, or an image cannot be decoded.
    """
    rows = with_images(rows, data, where)
    labels = labels_of_model(rows, where, data.label, label_names, data.label_names is not None)
    return ImageData({split: _encode(rows, where, data, labels)}, list(label_names))


def image_hash(image: Image.Image) -> int:
    """Hash the RGB pixels of an image to 64 bits; the file format does not count."""
    pixels = to_rgb(image)
    digest = blake2b(f"{pixels.size}".encode() + pixels.tobytes(), digest_size=8).digest()
    return int(np.frombuffer(digest, np.int64)[0])


def _encode(rows: Dataset, where: str, data: ImageDataSection, labels: Mapping[LabelValue, str]) -> Dataset:
    features = {
        "labels": ClassLabel(names=list(labels.values())),
        "row": Value("int64"),
        "image_hash": Value("int64"),
        "width": Value("int32"),
        "height": Value("int32"),
        "mode": Value("string"),
        "problem": Value("string"),
    }
    with progress_bars(sys.stderr.isatty()):
        described = stored_map(
            rows,
            _describe_rows,
            {"image": data.image, "label": data.label, "ids": {value: i for i, value in enumerate(labels)}},
            with_indices=True,
            remove_columns=rows.column_names,
            features=Features(features),
            num_proc=useful_processes(len(rows), ROWS_WORTH_A_PROCESS),
            desc=f"Reading {where}",
        )
    _refuse_unreadable(described["problem"][:], where)
    images = rows.select_columns([data.image]).rename_columns({data.image: "image"} if data.image != "image" else {})
    return concatenate_datasets([images, described.remove_columns("problem")], axis=1)


def _describe_rows(
    batch: Mapping[str, list[Any]], rows: list[int], image: str, label: str, ids: Mapping[LabelValue, int]
) -> dict[str, list[Any]]:
    end_with_parent()
    described = [_describe(cell, row) for cell, row in zip(batch[image], rows, strict=True)]
    columns = {key: [of_row[key] for of_row in described] for key in described[0]}
    return {**columns, "labels": [ids[value] for value in batch[label]], "row": rows}


def _describe(cell: Mapping[str, Any] | None, row: int) -> dict[str, Any]:
    empty = {"image_hash": 0, "width": 0, "height": 0, "mode": ""}
    if cell is None or (cell["bytes"] is None and cell["path"] is None):
        return {**empty, "problem": f"row {row}: no image"}
    try:
        image = decode(read_bytes(cell))
        hashed = image_hash(image)
    except UNREADABLE as error:
        return {**empty, "problem": f"{name_of(cell, row)}: {reason(error)}"}
    return {"image_hash": hashed, "width": image.width, "height": image.height, "mode": image.mode, "problem": ""}


def _refuse_unreadable(problems: Sequence[str], where: str) -> None:
    found = [problem for problem in problems if problem]
    if found:
        shown = "; ".join(found[:UNREADABLE_SHOWN])
        more = f"; and {len(found) - UNREADABLE_SHOWN} more" if len(found) > UNREADABLE_SHOWN else ""
        raise DataError(f"{where}: {len(found)} image(s) cannot be read: {shown}{more}; repair or remove them")
