"""Which rows make which batch, as a function of seed and epoch alone, and how a batch is padded.

The effective batches do not depend on the number of processes: each process takes its part of the same batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from nlp_ft.errors import DataError

BATCHES_SORTED_TOGETHER = 50
IGNORED_LABEL = -100
"""Label of a row that is there only to fill a batch: it has no part in loss or metrics."""
PADDING_ROW = -1


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


def micro_batches(
    batch: np.ndarray, per_device_batch_size: int, num_processes: int, process_index: int
) -> list[np.ndarray]:
    """One process's micro-batches of an effective batch, as many on every process.

    The rows are dealt out in runs of `per_device_batch_size`; a process that has none left gets `PADDING_ROW`.
    """
    step = per_device_batch_size * num_processes
    result = []
    for start in range(0, len(batch), step):
        rows = batch[start : start + step]
        share = -(-len(rows) // num_processes)
        mine = rows[process_index * share : (process_index + 1) * share]
        result.append(mine if len(mine) else np.array([PADDING_ROW]))
    return result


def steps_per_epoch(num_rows: int, effective_batch_size: int, drop_last: bool) -> int:
    """Effective batches of an epoch; one that is not full counts, unless it is dropped and not the only one."""
    return max(1, num_rows // effective_batch_size) if drop_last else -(-num_rows // effective_batch_size)


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


def load_batches(
    encoded: Dataset[dict[str, object]], batches: Sequence[np.ndarray], collator: Collator, num_workers: int = 0
) -> Iterator[dict[str, torch.Tensor]]:
    """The given batches, collated here or by so many processes; the order is that of the batches.

    The loader's own generator keeps it from touching the global random state.
    """
    loader = DataLoader(
        _Rows(encoded),
        batch_sampler=[batch.tolist() for batch in batches],
        collate_fn=collator,
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(0),
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)


@dataclass(frozen=True)
class EpochStream:
    """One process's micro-batches of any epoch, from any effective batch on.

    Args:
        encoded: the rows.
        lengths: tokens of each row, (rows,).
        collator: makes a micro-batch.
        per_device_batch_size: rows of a micro-batch.
        gradient_accumulation_steps: micro-batches of one process in an effective batch.
        num_processes, process_index: which part is this process's.
        seed: of the order.
        group_by_length: see `epoch_batches`.
        drop_last: leave out the batch of an epoch that is not full, unless it is the only one.
        num_workers: processes that collate; 0 for this one.
    """

    encoded: Dataset[dict[str, object]]
    lengths: np.ndarray
    collator: Collator
    per_device_batch_size: int
    gradient_accumulation_steps: int
    num_processes: int
    process_index: int
    seed: int
    group_by_length: bool
    drop_last: bool = False
    num_workers: int = 0

    @property
    def effective_batch_size(self) -> int:
        """Rows of one optimizer step over all processes."""
        return self.per_device_batch_size * self.gradient_accumulation_steps * self.num_processes

    @property
    def steps_per_epoch(self) -> int:
        """Effective batches of an epoch, a shorter one included unless it is dropped."""
        return steps_per_epoch(len(self.lengths), self.effective_batch_size, self.drop_last)

    def __call__(self, epoch: int, first_batch: int) -> Iterator[tuple[int, list[dict[str, torch.Tensor]]]]:
        """Yield (rows of the effective batch over all processes, this process's micro-batches of it)."""
        batches = epoch_batches(self.lengths, self.effective_batch_size, self.seed, epoch, self.group_by_length)
        if self.drop_last:
            batches = [batch for batch in batches if len(batch) == self.effective_batch_size] or batches
        batches = batches[first_batch:]
        parts = [
            micro_batches(batch, self.per_device_batch_size, self.num_processes, self.process_index)
            for batch in batches
        ]
        flat = [part for of_batch in parts for part in of_batch]
        loaded = load_batches(self.encoded, flat, self.collator.at_epoch(epoch), self.num_workers)
        for batch, of_batch in zip(batches, parts):
            yield len(batch), [next(loaded) for _ in of_batch]
