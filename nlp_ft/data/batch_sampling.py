"""Which rows make which effective batch, as a function of seed and epoch alone: by a number of rows, or of tokens.

An effective batch is a list of micro-batches, each an array of row numbers, (rows,). Micro-batch i is for process
i % num_processes, and there are as many for every process. What a row holds is not known here, only its length.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

BATCHES_SORTED_TOGETHER = 50
PADDING_ROW = -1
"""Stands alone in the micro-batch of a process that has no row of the effective batch left."""


class EffectiveBatches(Protocol):
    """How the rows of an epoch become effective batches."""

    @property
    def num_processes(self) -> int:
        """Over which each effective batch is shared out."""
        ...

    def of_epoch(self, lengths: np.ndarray, seed: int, epoch: int) -> list[list[np.ndarray]]:
        """The effective batches of one epoch as their micro-batches, each row in at most one.

        Args:
            lengths: tokens of each row, (rows,).
            seed: of the run.
            epoch: from 0.
        """
        ...

    def steps_per_epoch(self, lengths: np.ndarray) -> int:
        """Effective batches of each epoch of rows of these lengths, (rows,)."""
        ...

    def effective_batch_size(self, lengths: np.ndarray) -> float:
        """Rows of one optimizer step over all processes; the mean over an epoch where they differ on purpose."""
        ...

    def describe(self, lengths: np.ndarray) -> str:
        """Rows of an effective batch and what they are the product of, as people read it."""
        ...


@dataclass(frozen=True)
class RowBatches:
    """A fixed number of rows; the effective batches do not depend on how many processes share them.

    Args:
        per_device_batch_size: rows of a micro-batch.
        gradient_accumulation_steps: micro-batches of one process in an effective batch.
        num_processes: over which each effective batch is shared out.
        group_by_length: see `epoch_batches`.
        drop_last: leave out the batch of an epoch that is not full, unless it is the only one.
    """

    per_device_batch_size: int
    gradient_accumulation_steps: int
    num_processes: int
    group_by_length: bool
    drop_last: bool = False

    @property
    def size(self) -> int:
        """Rows of one optimizer step over all processes."""
        return self.per_device_batch_size * self.gradient_accumulation_steps * self.num_processes

    def of_epoch(self, lengths: np.ndarray, seed: int, epoch: int) -> list[list[np.ndarray]]:
        """Each row once, but for those of a batch that is dropped; see `EffectiveBatches`."""
        batches = epoch_batches(lengths, self.size, seed, epoch, self.group_by_length)
        if self.drop_last:
            batches = [batch for batch in batches if len(batch) == self.size] or batches
        return [micro_batches(batch, self.per_device_batch_size, self.num_processes) for batch in batches]

    def steps_per_epoch(self, lengths: np.ndarray) -> int:
        """A batch that is not full counts, unless it is dropped and not the only one."""
        return max(1, len(lengths) // self.size) if self.drop_last else -(-len(lengths) // self.size)

    def effective_batch_size(self, lengths: np.ndarray) -> int:
        """The number asked for, whatever the lengths."""
        return self.size

    def describe(self, lengths: np.ndarray) -> str:
        """As `32 = 16 per device x 2 process(es) x 1 accumulated`."""
        return (
            f"{self.size} = {self.per_device_batch_size} per device x {self.num_processes} process(es) x "
            f"{self.gradient_accumulation_steps} accumulated"
        )


@dataclass(frozen=True)
class TokenBatches:
    """As many rows of like length as fit a number of tokens, padding included; few long rows, or many short ones.

    The rows of an epoch are sorted by length, cut into micro-batches, and these joined in their order to effective
    batches. Where to cut depends on the sorted lengths alone, so that every epoch has as many steps; the seed and the
    epoch decide which of the rows of one length go where, and the order of the effective batches. Each is one step and
    one mean of the loss, so that a row of a batch of few weighs more than one of a batch of many.

    Unlike with a fixed number of rows, effective batches depend on the number of processes: another number joins other
    micro-batches, and only num_processes x gradient_accumulation_steps matters.

    Args:
        max_tokens_per_batch: at most so many rows x tokens of the longest in a micro-batch; a longer row is one alone.
        gradient_accumulation_steps: micro-batches of one process in an effective batch.
        num_processes: over which each effective batch is shared out.
    """

    max_tokens_per_batch: int
    gradient_accumulation_steps: int
    num_processes: int

    def of_epoch(self, lengths: np.ndarray, seed: int, epoch: int) -> list[list[np.ndarray]]:
        """Each row once; the one effective batch that may have fewer micro-batches is that of the shortest rows."""
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(lengths))
        micro = [order[rows] for rows in token_batches(lengths[order], self.max_tokens_per_batch)]
        micro += [np.array([PADDING_ROW])] * (-len(micro) % self.num_processes)
        group = self.gradient_accumulation_steps * self.num_processes
        batches = [micro[i : i + group] for i in range(0, len(micro), group)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def steps_per_epoch(self, lengths: np.ndarray) -> int:
        """The same for every epoch."""
        return -(-self._num_micro_batches(lengths) // (self.gradient_accumulation_steps * self.num_processes))

    def effective_batch_size(self, lengths: np.ndarray) -> float:
        """The mean over an epoch, to a tenth of a row."""
        return round(len(lengths) / self.steps_per_epoch(lengths), 1)

    def describe(self, lengths: np.ndarray) -> str:
        """As `about 82 rows = about 41 (at most 512 tokens, or one row) per device x 2 process(es) x 1 accumulated`."""
        per_device = len(lengths) / self._num_micro_batches(lengths)
        return (
            f"about {self.effective_batch_size(lengths):.0f} rows = about {per_device:.0f} (at most "
            f"{self.max_tokens_per_batch} tokens, or one row) per device x {self.num_processes} process(es) x "
            f"{self.gradient_accumulation_steps} accumulated"
        )

    def _num_micro_batches(self, lengths: np.ndarray) -> int:
        return len(token_batches(lengths, self.max_tokens_per_batch))


def epoch_batches(
    lengths: np.ndarray, effective_batch_size: int, seed: int, epoch: int, group_by_length: bool = True
) -> list[np.ndarray]:
    """The effective batches of one epoch, each row in exactly one; the last drawn may be shorter.

    With `group_by_length`, rows are shuffled, sorted by length within groups of 50 batches, and the batches shuffled.

    Args:
        lengths: tokens of each row, (rows,).
        effective_batch_size: rows of one optimizer step.
        seed: of the run.
        epoch: from 0.
        group_by_length: whether rows of like length go together.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches = []
    group = effective_batch_size * (BATCHES_SORTED_TOGETHER if group_by_length else 1)
    for start in range(0, len(order), group):
        rows = order[start : start + group]
        if group_by_length:
            rows = rows[np.argsort(-lengths[rows], kind="stable")]
        batches += [rows[i : i + effective_batch_size] for i in range(0, len(rows), effective_batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def micro_batches(batch: np.ndarray, per_device_batch_size: int, num_processes: int) -> list[np.ndarray]:
    """The micro-batches of an effective batch, process after process, as many for every process.

    The rows are dealt out in runs of `per_device_batch_size`; a process that has none left gets `PADDING_ROW`.
    """
    step = per_device_batch_size * num_processes
    result = []
    for start in range(0, len(batch), step):
        rows = batch[start : start + step]
        share = -(-len(rows) // num_processes)
        parts = [rows[i * share : (i + 1) * share] for i in range(num_processes)]
        result += [part if len(part) else np.array([PADDING_ROW]) for part in parts]
    return result


def token_batches(lengths: np.ndarray, tokens_per_batch: int) -> list[np.ndarray]:
    """Every row in exactly one batch, the longest first, so that memory is short at once or never.

    Args:
        lengths: tokens of each row, (rows,).
        tokens_per_batch: most tokens of a batch with its padding; a row that is longer is one alone.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        num_rows = max(1, tokens_per_batch // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + num_rows])
        start += num_rows
    return batches
