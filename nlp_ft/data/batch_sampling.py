"""Decides which rows form each effective batch, by a number of rows or of tokens.

An effective batch holds the rows of one optimizer step. It is a list of micro-batches, each an array of row numbers,
(rows,). Micro-batch i goes to process i % num_processes, and every process gets the same number of them. The batches
depend on the seed, the epoch and the lengths of the rows, and on nothing else.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

BATCHES_SORTED_TOGETHER = 50
PADDING_ROW = -1
"""The only entry of a micro-batch whose process has no row of the effective batch left."""


class EffectiveBatches(Protocol):
    """Divides the rows of an epoch into effective batches."""

    @property
    def num_processes(self) -> int:
        """Number of processes that share each effective batch."""
        ...

    def of_epoch(self, lengths: np.ndarray, seed: int, epoch: int) -> list[list[np.ndarray]]:
        """Divide the rows of one epoch into effective batches.

        Args:
            lengths: number of tokens of each row, (rows,).
            seed: the run's seed.
            epoch: number of the epoch, from 0.

        Returns:
            The micro-batches of each effective batch; a row is in at most one of them.
        """
        ...

    def steps_per_epoch(self, lengths: np.ndarray) -> int:
        """Count the effective batches of an epoch over rows of these lengths, (rows,)."""
        ...

    def effective_batch_size(self, lengths: np.ndarray) -> float:
        """Count the rows of one optimizer step over all processes; the mean of an epoch where the number varies."""
        ...

    def describe(self, lengths: np.ndarray) -> str:
        """Describe the size of an effective batch, and the product it comes from, in one line for people to read."""
        ...


@dataclass(frozen=True)
class RowBatches:
    """Effective batches of a fixed number of rows; they do not depend on how many processes share them.

    Args:
        per_device_batch_size: rows of a micro-batch.
        gradient_accumulation_steps: micro-batches of one process in an effective batch.
        num_processes: number of processes that share each effective batch.
        group_by_length: whether rows of similar length go together, see `epoch_batches`.
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
        """Divide the rows of one epoch; each row occurs once, except those of a dropped batch."""
        batches = epoch_batches(lengths, self.size, seed, epoch, self.group_by_length)
        if self.drop_last:
            batches = [batch for batch in batches if len(batch) == self.size] or batches
        return [micro_batches(batch, self.per_device_batch_size, self.num_processes) for batch in batches]

    def steps_per_epoch(self, lengths: np.ndarray) -> int:
        """Count the effective batches of an epoch; one that is not full counts, unless it is dropped."""
        return max(1, len(lengths) // self.size) if self.drop_last else -(-len(lengths) // self.size)

    def effective_batch_size(self, lengths: np.ndarray) -> int:
        """Return the fixed number of rows, whatever the lengths."""
        return self.size

    def describe(self, lengths: np.ndarray) -> str:
        """Describe the size in the form `32 = 16 per device x 2 process(es) x 1 accumulated`."""
        return (
            f"{self.size} = {self.per_device_batch_size} per device x {self.num_processes} process(es) x "
            f"{self.gradient_accumulation_steps} accumulated"
        )


@dataclass(frozen=True)
class TokenBatches:
    """Effective batches of rows of similar length, filled up to a number of tokens: few long rows or many short ones.

    The rows of an epoch are sorted by length and cut into micro-batches, and successive micro-batches form the
    effective batches. The cuts depend on the sorted lengths alone, so every epoch has the same number of steps. Seed
    and epoch decide which of the rows of one length go where, and the order of the effective batches. Each effective
    batch is one step with the mean loss over its rows, so a row in a small batch weighs more than one in a large batch.

    Unlike `RowBatches`, the effective batches depend on the number of processes, through the product
    num_processes x gradient_accumulation_steps.

    Args:
        max_tokens_per_batch: most tokens of a micro-batch, padding included (rows x tokens of the longest row); a
            longer row forms a micro-batch alone.
        gradient_accumulation_steps: micro-batches of one process in an effective batch.
        num_processes: number of processes that share each effective batch.
    """

    max_tokens_per_batch: int
    gradient_accumulation_steps: int
    num_processes: int

    def of_epoch(self, lengths: np.ndarray, seed: int, epoch: int) -> list[list[np.ndarray]]:
        """Divide the rows of one epoch; each occurs once. Only the batch of the shortest rows may be incomplete."""
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(lengths))
        micro = [order[rows] for rows in token_batches(lengths[order], self.max_tokens_per_batch)]
        micro += [np.array([PADDING_ROW])] * (-len(micro) % self.num_processes)
        group = self.gradient_accumulation_steps * self.num_processes
        batches = [micro[i : i + group] for i in range(0, len(micro), group)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def steps_per_epoch(self, lengths: np.ndarray) -> int:
        """Count the effective batches of an epoch; every epoch has the same number."""
        return -(-self._num_micro_batches(lengths) // (self.gradient_accumulation_steps * self.num_processes))

    def effective_batch_size(self, lengths: np.ndarray) -> float:
        """Return the mean number of rows over an epoch, rounded to a tenth."""
        return round(len(lengths) / self.steps_per_epoch(lengths), 1)

    def describe(self, lengths: np.ndarray) -> str:
        """Describe the size, as in `about 82 rows = about 41 (at most 512 tokens, or one row) per device x ...`."""
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
    """Shuffle the rows of one epoch and divide them into effective batches of a fixed number of rows.

    Args:
        lengths: number of tokens of each row, (rows,).
        effective_batch_size: rows of one optimizer step.
        seed: the run's seed.
        epoch: number of the epoch, from 0.
        group_by_length: whether rows of similar length go together, to save padding: the shuffled rows are sorted by
            length within groups of 50 batches, and the batches are shuffled.

    Returns:
        The row numbers of each effective batch, (rows,); each row is in exactly one, and one batch may be shorter.
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
    """Divide an effective batch into micro-batches, the same number for every process.

    Args:
        batch: row numbers of the effective batch, (rows,).
        per_device_batch_size: most rows of a micro-batch.
        num_processes: number of processes that share the batch.

    Returns:
        Row numbers of each micro-batch, process after process; `PADDING_ROW` for a process that has no row left.
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
    """Divide rows into batches of a limited number of tokens.

    The longest rows come first: if the memory is too small, the first batch shows it.

    Args:
        lengths: number of tokens of each row, (rows,).
        tokens_per_batch: most tokens of a batch, padding included; a longer row forms a batch alone.

    Returns:
        Row numbers of each batch, (rows,), the longest rows first; each row is in exactly one.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        num_rows = max(1, tokens_per_batch // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + num_rows])
        start += num_rows
    return batches
