"""The kinds of labels that a text can have: how they are found in the raw rows, and encoded.

A task names its kind; `text.py` reads, checks and encodes labels through it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from datasets import ClassLabel, Dataset, List, Value

from nlp_ft.data.labels import LabelValue, find_labels, labels_of_model
from nlp_ft.data.number_labels import check_numbers
from nlp_ft.data.sources import label_columns, load_raw_splits, text_columns
from nlp_ft.data.splits import draw_rows
from nlp_ft.recipe.text import TextDataSection


class Labels(Protocol):
    """The labels of a data set. Its fields are part of the key under which encoded rows are cached."""

    @property
    def names(self) -> list[str]:
        """The label names in the order of the ids; empty where labels are numbers."""
        ...

    @property
    def feature(self) -> Any:
        """The type of an encoded label in a dataset: one value a row, or a list of one length."""
        ...

    def encode(self, batch: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Encode the labels of raw rows, column -> values."""
        ...


class LabelKind(Protocol):
    """What the labels of texts are: a class for each text, a set of labels, or numbers."""

    def load(self, data: TextDataSection, seed: int = 0) -> tuple[dict[str, Dataset], Labels]:
        """Read the raw splits of a recipe with their labels, and draw rows as it says, by its seed.

        Returns:
            Split name -> rows, and the labels.

        Raises:
            DataError: see `load_raw_splits`; or the labels are not of this kind.
        """
        ...

    def of_model(self, rows: Dataset, where: str, data: TextDataSection, label_names: Sequence[str]) -> Labels:
        """Match the labels of rows with those of a trained model.

        Args:
            rows: the rows.
            where: name of the rows in error messages.
            data: the section of the run that names the columns.
            label_names: the model's label names, in the order of the ids.

        Raises:
            DataError: a label is not of this kind, or the model does not know it.
        """
        ...


@dataclass(frozen=True)
class ClassLabels:
    """One label for each text.

    Args:
        column: the label column.
        name_of: value in the column -> label name, in the order of the ids.
    """

    column: str
    name_of: dict[LabelValue, str]

    @property
    def names(self) -> list[str]:
        """The label names in the order of the ids."""
        return list(self.name_of.values())

    @property
    def feature(self) -> ClassLabel:
        """A label id."""
        return ClassLabel(names=self.names)

    def encode(self, batch: Mapping[str, Sequence[Any]]) -> list[int]:
        """Turn values into label ids."""
        ids = {value: i for i, value in enumerate(self.name_of)}
        return [ids[value] for value in batch[self.column]]

    @classmethod
    def load(cls, data: TextDataSection, seed: int = 0) -> tuple[dict[str, Dataset], "ClassLabels"]:
        """Read raw splits; each class has the same share in drawn rows. See `LabelKind.load`."""
        [column] = label_columns(data)
        raw = load_raw_splits(data)
        labels = cls(column, find_labels(raw, column, data.label_names))
        return draw_rows(raw, column, text_columns(data), data, seed), labels

    @classmethod
    def of_model(cls, rows: Dataset, where: str, data: TextDataSection, label_names: Sequence[str]) -> "ClassLabels":
        """Match labels with those of a trained model. See `LabelKind.of_model`."""
        [column] = label_columns(data)
        return cls(column, labels_of_model(rows, where, column, label_names, data.label_names is not None))


@dataclass(frozen=True)
class NumberLabels:
    """One number for each text, or several, each in a column."""

    columns: list[str]

    @property
    def names(self) -> list[str]:
        """No names: numbers have none."""
        return []

    @property
    def feature(self) -> Any:
        """A number, or a list of one for each column."""
        return Value("float32") if len(self.columns) == 1 else List(Value("float32"))

    def encode(self, batch: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Turn texts of numbers into numbers."""
        if len(self.columns) == 1:
            return [float(value) for value in batch[self.columns[0]]]
        return [[float(value) for value in row] for row in zip(*(batch[name] for name in self.columns))]

    @classmethod
    def load(cls, data: TextDataSection, seed: int = 0) -> tuple[dict[str, Dataset], "NumberLabels"]:
        """Read raw splits. See `LabelKind.load`."""
        raw, columns = load_raw_splits(data), label_columns(data)
        for column in columns:
            check_numbers(raw, column)
        return draw_rows(raw, None, text_columns(data), data, seed), cls(columns)

    @classmethod
    def of_model(cls, rows: Dataset, where: str, data: TextDataSection, label_names: Sequence[str]) -> "NumberLabels":
        """Check that labels are numbers. See `LabelKind.of_model`."""
        columns = label_columns(data)
        for column in columns:
            check_numbers({where: rows}, column)
        return cls(columns)
