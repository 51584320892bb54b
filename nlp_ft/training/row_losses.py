"""Keeps the loss of each row of train over the last epochs: the highest are hard, or carry a wrong label.

A model comes to agree with a wrong label late, if at all, so a loss that stays high while others fall names rows to
read again (Arpit et al. 2017, https://arxiv.org/abs/1706.05394; Pleiss et al. 2020, https://arxiv.org/abs/2001.10528).
It only reads, so a run with it has the same weights to the bit.
"""

import math
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from nlp_ft.data.windows import Windows
from nlp_ft.training.loop_state import Batch, LoopSettings, LoopState, Loss

EPOCHS = 3
"""Epochs whose losses are averaged."""
WHOLE = 0.9
"""Share of the rows of the fullest epoch from which an epoch counts: rows that a cut one lacks would seem harder."""
MOST_ROWS = 20_000
"""Most rows whose losses are kept, evenly spread over train."""
MOST_LISTED = 200
"""Most rows that the run folder lists."""


class RowLosses:
    """Notes the losses of rows in the order of training; the loop calls `note`, `settle` and `save`.

    Losses are those of training: with dropout, before the update, without class weights and label smoothing. The first
    epoch is left out, because a row that came early in it has a high loss for that reason alone.

    Args:
        windows: which row of train each encoded row belongs to.
        settings: lengths of the run.
        state: its state, whose `row_losses` a resumed run goes on with.
        accelerator: the accelerator of the run.
        is_on: whether to note anything.
    """

    def __init__(
        self, windows: Windows, settings: LoopSettings, state: LoopState, accelerator: Accelerator, is_on: bool = True
    ) -> None:
        every = math.ceil(windows.num_rows / MOST_ROWS)
        is_kept = windows.rows % max(1, every) == 0
        self._rows = windows.rows[is_kept]
        self._places = np.where(is_kept, np.cumsum(is_kept) - 1, -1)
        self._steps_per_epoch = settings.steps_per_epoch
        # A run that may stop early has no last epochs that are known beforehand.
        epochs = 0 if settings.patience is not None else settings.total_steps // settings.steps_per_epoch - EPOCHS
        self._first_step = max(1, epochs) * settings.steps_per_epoch if is_on else settings.total_steps
        self._accelerator = accelerator
        self._pending: list[tuple[int, torch.Tensor, torch.Tensor]] = []
        self._epochs = {int(epoch): _decoded(values) for epoch, values in state.row_losses.items()}

    def note(self, step: int, batch: Batch, logits: torch.Tensor, loss: Loss) -> None:
        """Note the losses of one micro-batch of update `step`, from 0."""
        if step >= self._first_step and "row" in batch:
            losses = loss.of_rows(logits.detach(), batch["labels"])
            self._pending.append((step // self._steps_per_epoch, batch["row"], losses))

    def settle(self) -> None:
        """Take what was noted off the device; not collective."""
        for epoch, rows, losses in self._pending:
            values = losses.float().cpu().numpy()
            places = self._places[rows.cpu().numpy()]
            kept = (places >= 0) & np.isfinite(values)
            self._of_epoch(epoch)[places[kept]] = values[kept]
        self._pending.clear()

    def save(self, state: LoopState) -> None:
        """Put the losses of all processes into the state; collective."""
        self.settle()
        if self._accelerator.num_processes > 1 and self._epochs:
            for epoch, values in self._epochs.items():
                self._epochs[epoch] = self._merged(values)
        state.row_losses = {str(epoch): _encoded(values) for epoch, values in self._epochs.items()}

    def highest(self, most: int = MOST_LISTED) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows with the highest mean loss over the last epochs that were not cut short, after `save`.

        Returns:
            Their numbers, ascending, (rows,), at most `most`; and their mean losses, (rows,). None without losses.
        """
        if not self._epochs:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        epochs = np.stack([*self._epochs.values()])
        counts = np.isfinite(epochs).sum(1)
        last = epochs[counts >= WHOLE * counts.max()][-EPOCHS:]
        times = np.isfinite(last).sum(0)
        seen = times > 0
        of_windows = np.nansum(last, axis=0)[seen] / times[seen]
        rows, places = np.unique(self._rows[seen], return_inverse=True)
        losses = np.bincount(places, of_windows) / np.bincount(places)
        chosen = np.sort(np.argsort(-losses, kind="stable")[:most])
        return rows[chosen], losses[chosen].astype(np.float32)

    def _of_epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            self._epochs[epoch] = np.full(len(self._rows), np.nan, np.float32)
            for old in sorted(self._epochs)[: -EPOCHS - 1]:  # the last one may be cut short
                del self._epochs[old]
        return self._epochs[epoch]

    def _merged(self, values: np.ndarray) -> np.ndarray:
        """Take each value from the process that has it; what an earlier merge gave to all is the same on all."""
        is_known = np.isfinite(values)
        both = torch.from_numpy(np.stack([np.where(is_known, values, 0), is_known.astype(np.float32)]))
        total, count = self._accelerator.reduce(both.to(self._accelerator.device), "sum").cpu().numpy()
        merged = np.full_like(values, np.nan)
        np.divide(total, count, out=merged, where=count > 0)
        return merged


def _encoded(values: np.ndarray) -> list[Any]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _decoded(values: list[Any]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], np.float32)
