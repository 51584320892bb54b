"""Windows: the parts of a row that a model reads one at a time, because the whole row is longer than its input."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from nlp_ft.data.columns import numbers
from nlp_ft.recipe.text import WindowPooling

BEGINS_ROW = "begins_row"
"""Column of encoded rows that is true for the first window of each row; without it, each row is one window."""


@dataclass(frozen=True)
class Windows:
    """Which row of a split each window belongs to.

    Args:
        rows: number of the row of each window, (windows,), ascending; each row has one or more.
        pooling: how the logits of a row's windows become one; None where each row is one window, or where a task puts
            the windows together itself.
    """

    rows: np.ndarray
    pooling: WindowPooling | None = None

    @classmethod
    def of(cls, encoded: Any, pooling: WindowPooling | None = None) -> Self:
        """Read them from encoded rows (a `datasets.Dataset`); without `BEGINS_ROW`, each row is one window."""
        if BEGINS_ROW not in encoded.column_names:
            return cls(np.arange(len(encoded)))
        return cls(np.cumsum(numbers(encoded, BEGINS_ROW)) - 1, pooling)

    @property
    def starts(self) -> np.ndarray:
        """Position of the first window of each row, (rows,)."""
        return np.flatnonzero(np.diff(self.rows, prepend=-1))

    @property
    def num_rows(self) -> int:
        """Number of rows that have a window here."""
        return len(self.starts)

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Find the positions of all windows of some rows."""
        return np.flatnonzero(np.isin(self.rows, rows))

    def selected(self, windows: np.ndarray) -> Self:
        """Keep some windows, given by their positions, in order."""
        return replace(self, rows=self.rows[windows])

    def pooled(self, values: np.ndarray) -> np.ndarray:
        """Pool the values of the windows of each row by `pooling`: (windows, ...) to (rows, ...)."""
        if self.pooling == "max":
            return np.asarray(np.maximum.reduceat(values, self.starts))
        counts = np.diff([*self.starts, len(values)]).reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray(np.add.reduceat(values, self.starts) / counts, dtype=values.dtype)


def window_positions(text: Sequence[int], room: int, stride: int) -> list[Sequence[int]]:
    """Divide the positions of a text's tokens into windows.

    Args:
        text: the positions, in order.
        room: most positions of a window.
        stride: positions that neighbouring windows share.

    Returns:
        The positions of each window; the last window is as long as the others, if the text is.
    """
    if len(text) <= room:
        return [text]
    starts = [*range(0, len(text) - room, room - stride), len(text) - room]
    return [text[start : start + room] for start in starts]
