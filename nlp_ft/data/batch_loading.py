"""How rows become tensors: padded, loaded, and streamed as one process's part of each effective batch.

Which rows make which batch is said in `batch_sampling.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.batch_sampling import PADDING_ROW, EffectiveBatches
from nlp_ft.data.workers import leave_signals_to_parent
from nlp_ft.errors import DataError

IGNORED_LABEL = -100
"""Label of a row that is there only to fill a batch: it has no part in loss or metrics."""


class Collator(Protocol):
    """Makes a batch of rows."""

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Input name -> tensor (batch, ...); labelled rows also give `labels`."""
        ...

    def at_epoch(self, epoch: int) -> "Collator":
        """The collator of an epoch, from 0; itself where nothing is drawn."""
        ...


class PaddingCollator:
    """Pads rows to the longest: `input_ids`, `attention_mask`, ... (batch, seq_len), `labels` and `row` (batch,).

    As `tokenizer.pad` does, on the side and with the ids that the tokenizer says, but in a seventh of its time: where
    the blocks are frozen and kept, padding would take half of a step.

    Raises:
        DataError: the tokenizer has no padding token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, keys: Sequence[str]) -> None:
        if tokenizer.pad_token_id is None:
            raise DataError(
                f"model.name: the tokenizer ({type(tokenizer).__name__}) has no padding token, so that texts of unlike "
                "length make no batch; set pad_token in its tokenizer_config.json, and pad_token_id in config.json"
            )
        self.keys = keys
        self._fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        self._is_left = tokenizer.padding_side == "left"
        self._has_mask = "attention_mask" in tokenizer.model_input_names

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        keys = [key for key in (*self.keys, "row") if key in rows[0]]
        batch = {
            key: self._pad([row[key] for row in rows], self._fill[key])
            if key in self._fill
            else torch.tensor([row[key] for row in rows])
            for key in keys
        }
        if self._has_mask:
            batch["attention_mask"] = self._pad([[1] * len(row["input_ids"]) for row in rows], 0)
        return batch

    def _pad(self, values: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
        padded = np.full((len(values), max(map(len, values))), fill, np.int64)
        for target, row in zip(padded, values):
            target[len(target) - len(row) if self._is_left else 0 :][: len(row)] = row
        return torch.from_numpy(padded)

    def at_epoch(self, epoch: int) -> "PaddingCollator":
        """Itself: nothing is drawn."""
        return self


class _Rows(Dataset[dict[str, object]]):
    """Rows by index, with it as `row`, fetched a batch at a time; `PADDING_ROW` is row 0 with `IGNORED_LABEL`."""

    def __init__(self, encoded: Dataset[dict[str, object]]) -> None:
        self.encoded = encoded

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, object]]:
        rows = [max(0, index) for index in indices]
        fetched = self.encoded.__getitems__(rows)  # type: ignore[attr-defined]
        return [
            {**values, "row": row, **({"labels": IGNORED_LABEL} if index == PADDING_ROW else {})}
            for values, row, index in zip(fetched, rows, indices)
        ]

    def __getitem__(self, index: int) -> dict[str, object]:
        return self.__getitems__([index])[0]


class _Lists:
    """Arrays as lists, each made when it is its turn: an epoch of them all would be an object for each row."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = arrays

    def __iter__(self) -> Iterator[list[int]]:
        return (array.tolist() for array in self.arrays)


def load_batches(
    encoded: Dataset[dict[str, object]], batches: Sequence[np.ndarray], collator: Collator, num_workers: int = 0
) -> Iterator[dict[str, torch.Tensor]]:
    """The given batches, collated here or by so many processes; the order is that of the batches.

    The loader's own generator keeps it from touching the global random state.
    """
    loader = DataLoader(
        _Rows(encoded),
        batch_sampler=_Lists(batches),
        collate_fn=collator,
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(0),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_signals_to_parent,
    )
    return iter(loader)


@dataclass(frozen=True)
class EpochStream:
    """One process's micro-batches of any epoch, from any effective batch on.

    Args:
        encoded: the rows.
        lengths: tokens of each row, (rows,).
        collator: makes a micro-batch.
        batches: says which rows make which batch.
        process_index: which part is this process's.
        seed: of the order.
        num_workers: processes that collate; 0 for this one.
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
        """Rows of one optimizer step over all processes; the mean where they are counted by tokens."""
        return self.batches.effective_batch_size(self.lengths)

    @property
    def steps_per_epoch(self) -> int:
        """Effective batches of each epoch."""
        return self.batches.steps_per_epoch(self.lengths)

    def __call__(self, epoch: int, first_batch: int) -> Iterator[tuple[int, list[dict[str, torch.Tensor]]]]:
        """Yield (rows of the effective batch over all processes, this process's micro-batches of it)."""
        batches = self.batches.of_epoch(self.lengths, self.seed, epoch)[first_batch:]
        parts = [batch[self.process_index :: self.batches.num_processes] for batch in batches]
        flat = [part for of_batch in parts for part in of_batch]
        loaded = load_batches(self.encoded, flat, self.collator.at_epoch(epoch), self.num_workers)
        for batch, of_batch in zip(batches, parts):
            num_rows = sum(int((rows != PADDING_ROW).sum()) for rows in batch)
            yield num_rows, [next(loaded) for _ in of_batch]
