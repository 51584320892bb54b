"""Makes tensors of rows: collates and loads batches, and streams one process's part of each effective batch.

`batch_sampling.py` decides which rows form a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.batch_sampling import PADDING_ROW, EffectiveBatches
from nlp_ft.data.workers import leave_signals_to_parent
from nlp_ft.errors import DataError


class Collator(Protocol):
    """Makes one batch from a list of rows."""

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return input name -> tensor, (batch, ...); rows with labels also give `labels`."""
        ...

    def at_epoch(self, epoch: int) -> "Collator":
        """Return the collator for an epoch, counted from 0; the same one where nothing is random."""
        ...


class PaddingCollator:
    """Pads the token ids of a batch's rows to the longest row.

    A batch holds `input_ids`, `attention_mask`, ..., (batch, seq_len), `labels`, (batch, ...), and `row`, (batch,). The
    result equals that of `tokenizer.pad`, with the tokenizer's padding side and padding ids, in a seventh of the time:
    over frozen blocks whose outputs are cached, `tokenizer.pad` would take half of a step.

    Args:
        tokenizer: the encoder's tokenizer.
        keys: the columns of a row to collate; those that the rows lack are left out.

    Raises:
        DataError: the tokenizer has no padding token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, keys: Sequence[str]) -> None:
        if tokenizer.pad_token_id is None:
            raise DataError(
                f"model.name: the tokenizer ({type(tokenizer).__name__}) has no padding token, so texts of different "
                "lengths cannot form a batch; set pad_token in tokenizer_config.json, and pad_token_id in config.json"
            )
        self.keys = keys
        self._fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        self._is_left = tokenizer.padding_side == "left"
        self._has_mask = "attention_mask" in tokenizer.model_input_names

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        keys = [key for key in (*self.keys, "row") if key in rows[0]]
        batch = {
            key: padded([row[key] for row in rows], self._fill[key], self._is_left)
            if key in self._fill
            else torch.tensor([row[key] for row in rows])
            for key in keys
        }
        if self._has_mask:
            batch["attention_mask"] = padded([[1] * len(row["input_ids"]) for row in rows], 0, self._is_left)
        return batch

    def at_epoch(self, epoch: int) -> "PaddingCollator":
        """Return the same collator: padding is not random."""
        return self


def padded(values: Sequence[Sequence[int]], fill: int, is_left: bool = False, least: int = 0) -> torch.Tensor:
    """Fill lists up to the longest and at least `least`, (rows, length), at their end or, if `is_left`, beginning."""
    filled = np.full((len(values), max(least, *map(len, values))), fill, np.int64)
    for target, row in zip(filled, values):
        target[len(target) - len(row) if is_left else 0 :][: len(row)] = row
    return torch.from_numpy(filled)


class _Rows(Dataset[dict[str, object]]):
    """Fetches rows by index, a batch at a time, and adds the index to each as `row`.

    The index `PADDING_ROW` gives row 0, all of whose labels are `IGNORED_LABEL`.
    """

    def __init__(self, encoded: Dataset[dict[str, object]]) -> None:
        self.encoded = encoded

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, object]]:
        rows = [max(0, index) for index in indices]
        fetched = self.encoded.__getitems__(rows)  # type: ignore[attr-defined]
        return [
            {**values, "row": row, **({"labels": _ignored(values["labels"])} if index == PADDING_ROW else {})}
            for values, row, index in zip(fetched, rows, indices)
        ]

    def __getitem__(self, index: int) -> dict[str, object]:
        return self.__getitems__([index])[0]


def _ignored(labels: Any) -> Any:
    """Return `IGNORED_LABEL` in the place of every label of a row."""
    return [IGNORED_LABEL] * len(labels) if isinstance(labels, list) else IGNORED_LABEL


class _Lists:
    """Turns arrays into lists one at a time: all lists of an epoch at once would take an object for each row."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = arrays

    def __iter__(self) -> Iterator[list[int]]:
        return (array.tolist() for array in self.arrays)


def load_batches(
    encoded: Dataset[dict[str, object]], batches: Sequence[np.ndarray], collator: Collator, num_workers: int = 0
) -> Iterator[dict[str, torch.Tensor]]:
    """Load and collate the given batches, in their order.

    Args:
        encoded: the rows.
        batches: row numbers of each batch, (rows,); `PADDING_ROW` stands for a row that only fills up the batch.
        collator: makes a batch of rows.
        num_workers: processes that collate; 0 collates in this process.

    Returns:
        An iterator over the batches; see `batch.py` for what they hold.
    """
    loader = DataLoader(
        _Rows(encoded),
        batch_sampler=_Lists(batches),
        collate_fn=collator,
        num_workers=num_workers,
        # Without a generator of its own, the loader would draw from the global random state.
        generator=torch.Generator().manual_seed(0),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_signals_to_parent,
    )
    return iter(loader)


@dataclass(frozen=True)
class EpochStream:
    """Streams one process's micro-batches of any epoch, starting at any effective batch.

    Args:
        encoded: the rows.
        lengths: number of tokens of each row, (rows,).
        collator: makes a micro-batch of rows.
        batches: decides which rows form which effective batch.
        process_index: number of this process, from 0; it selects the process's micro-batches.
        seed: the run's seed, which decides the order of the rows.
        num_workers: processes that collate; 0 collates in this process.
    """

    encoded: Dataset[dict[str, object]]
    lengths: np.ndarray
    collator: Collator
    batches: EffectiveBatches
    process_index: int
    seed: int
    num_workers: int = 0

    @property
    def effective_batch_size(self) -> float:
        """Rows of one optimizer step over all processes; the mean of an epoch where batches are counted in tokens."""
        return self.batches.effective_batch_size(self.lengths)

    @property
    def steps_per_epoch(self) -> int:
        """Number of effective batches in an epoch, which is the number of optimizer steps."""
        return self.batches.steps_per_epoch(self.lengths)

    def __call__(self, epoch: int, first_batch: int) -> Iterator[tuple[int, list[dict[str, torch.Tensor]]]]:
        """Stream an epoch, one effective batch at a time.

        Args:
            epoch: number of the epoch, from 0.
            first_batch: number of the effective batch to start at, from 0.

        Yields:
            Number of rows in the effective batch over all processes, and this process's micro-batches of it.
        """
        batches = self.batches.of_epoch(self.lengths, self.seed, epoch)[first_batch:]
        parts = [batch[self.process_index :: self.batches.num_processes] for batch in batches]
        flat = [part for of_batch in parts for part in of_batch]
        loaded = load_batches(self.encoded, flat, self.collator.at_epoch(epoch), self.num_workers)
        for batch, of_batch in zip(batches, parts):
            num_rows = sum(int((rows != PADDING_ROW).sum()) for rows in batch)
            yield num_rows, [next(loaded) for _ in of_batch]
