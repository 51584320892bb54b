"""Shows how far a comparison is: a table drawn again and again in a terminal, elsewhere a line for each cell."""

import sys
import time
from collections.abc import Collection, Sequence
from typing import Any, TextIO

from tqdm import tqdm

from nlp_ft.screen import is_quiet, say
from nlp_ft.study.cells import Cell, Plan
from nlp_ft.tables import terminal_width, text_table, wrapped
from nlp_ft.training.verdict.facts import shown

SECONDS_BETWEEN_DRAWINGS = 1.0
UP, CLEAR = "\x1b[{}A", "\x1b[J"
"""Moves the cursor up by lines, and clears what is below it."""


class View:
    """Shows the cells of a comparison while they train.

    Args:
        plan: the comparison.
        cells: the cells that are to be trained, and those of them that are finished.
        sign: -1 if a lower score is better, else 1.
        stream: where the table goes; a table is drawn if it is a terminal.
    """

    def __init__(self, plan: Plan, cells: Sequence[Cell], sign: int, stream: TextIO | None = None) -> None:
        self.plan, self.cells, self.sign = plan, cells, sign
        self.stream = stream or sys.stdout
        self.is_live = self.stream.isatty() and not is_quiet()
        self.scores: dict[Cell, float] = {}
        """The validation score of each finished cell."""
        self._begun = self._last_end = time.monotonic()
        self._ended_here, self._lines, self._drawn = 0, 0, 0.0

    def known(self, cell: Cell, summary: dict[str, Any]) -> None:
        """Note a cell that was finished before."""
        self.scores[cell] = summary["metrics"]["validation"][self.plan.metric]

    def finished(self, cell: Cell, summary: dict[str, Any], num_left: int) -> None:
        """Note a cell that has ended now, and say so where there is no table."""
        self.known(cell, summary)
        self._ended_here, self._last_end = self._ended_here + 1, time.monotonic()
        if not self.is_live:
            score = f"{self.plan.metric} {self.scores[cell]:.4f}  {summary.get('train_seconds', 0.0):.1f} s"
            said = f"diverged: {summary['diverged']}" if "diverged" in summary else score
            say(f"{self._count()} {cell.name}  {said}{self._left(num_left)}")

    def draw(self, running: Collection[Cell], num_left: int, *, is_last: bool = False) -> None:
        """Draw the table again, at most once a second; `num_left` cells run or wait."""
        if not self.is_live or (time.monotonic() - self._drawn < SECONDS_BETWEEN_DRAWINGS and not is_last):
            return
        text = f"{self.table(running)}\n{wrapped(f'{self._count()} cells{self._left(num_left)}')}\n"
        up = UP.format(self._lines) + CLEAR if self._lines else ""
        self.stream.write(up + text)
        self.stream.flush()
        self._lines, self._drawn = text.count("\n"), time.monotonic()

    def table(self, running: Collection[Cell]) -> str:
        """Write a row for each strategy: cells done, what runs, and the best score on validation so far."""
        rows = []
        for strategy in dict.fromkeys(cell.strategy for cell in self.plan.cells):
            cells = [cell for cell in self.cells if cell.strategy == strategy]
            values = [value for cell, value in self.scores.items() if cell.strategy == strategy and value == value]
            best = shown(self.plan.metric, self.sign * max(self.sign * value for value in values)) if values else ""
            now = ", ".join(cell.name.removeprefix(f"{strategy}-") for cell in cells if cell in running)
            rows.append([strategy, f"{sum(cell in self.scores for cell in cells)}/{len(cells)}", best, now])
        header = ["", "cells", f"best {self.plan.metric.replace('_', ' ')}", "trains now"]
        return text_table(header, rows, (1, 2), terminal_width(), shrink=(0, 3))

    def _count(self) -> str:
        total = len(self.cells)
        return f"{len(self.scores):>{len(str(total))}}/{total}"

    def _left(self, num_left: int) -> str:
        if not num_left or not self._ended_here:
            return ""
        seconds = (self._last_end - self._begun) / self._ended_here * num_left - (time.monotonic() - self._last_end)
        return f", about {tqdm.format_interval(max(0.0, seconds))} left"
