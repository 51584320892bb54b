"""Holds the output of the frozen blocks for each row, computed once; later steps begin above these blocks.

Rows are stored unpadded and are read by their number, so they can form batches in any order. `store.py` makes the
files, and `decide.py` decides whether they pay.
"""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch

from nlp_ft.data.batch import model_inputs, output_logits
from nlp_ft.errors import TrainingError
from nlp_ft.layerwise import UnfreezePlan, UnfreezeState
from nlp_ft.layerwise.prefix import FrozenPrefix


class Features:
    """The vectors at one boundary between blocks, for the rows of one split, in an existing file.

    The file is read and written, never mapped into memory: if a mapped file became shorter, a signal would end the
    process.

    Args:
        file: path of the file: raw values, one row after the other.
        lengths: number of vectors of each row, (rows,): its tokens, or 1 for a pooled vector.
        hidden_size: numbers in a vector.
        dtype: type of the stored numbers.
        to_write: whether to open the file for writing too.
    """

    def __init__(
        self, file: Path, lengths: np.ndarray, hidden_size: int, dtype: torch.dtype, to_write: bool = False
    ) -> None:
        self.file, self.hidden_size, self.dtype = file, hidden_size, dtype
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]) * (hidden_size * dtype.itemsize)
        self._handle = os.open(file, os.O_RDWR if to_write else os.O_RDONLY)

    def __del__(self) -> None:
        if handle := getattr(self, "_handle", None):
            os.close(handle)

    def write(self, rows: np.ndarray, vectors: torch.Tensor) -> None:
        """Write the vectors of some rows, (vectors of all these rows, hidden). Raises: OSError: the disk is full."""
        values = vectors.contiguous().view(torch.uint8).flatten().numpy().data
        start = 0
        for row in rows:
            first, last = int(self.offsets[row]), int(self.offsets[row + 1])
            part = values[start : start + last - first]
            if os.pwrite(self._handle, part, first) != len(part):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            start += last - first

    def read(self, rows: Sequence[int]) -> torch.Tensor:
        """Read the vectors of some rows, (vectors of all these rows, hidden), in float32.

        Raises:
            TrainingError: the file has become shorter.
        """
        borders = [(int(self.offsets[row]), int(self.offsets[row + 1])) for row in rows]
        content = bytearray().join(os.pread(self._handle, last - first, first) for first, last in borders)
        if len(content) != sum(last - first for first, last in borders):
            raise TrainingError(
                f"feature cache: {self.file} became shorter while the run read it; pass --resume to go on from the "
                "last checkpoint, with features made anew"
            )
        return torch.frombuffer(content, dtype=self.dtype).view(-1, self.hidden_size).float()


class FeatureCache:
    """The features of all splits at the boundaries that a run uses, and the way to enter the model with them.

    Args:
        prefix: the blocks of the model that are frozen from the bottom, and the boundaries between them.
        features: boundary -> split name -> features there.
    """

    def __init__(self, prefix: FrozenPrefix, features: Mapping[int, Mapping[str, Features]]) -> None:
        self._prefix = prefix
        self._features = features
        self.boundary = 0

    def use(self, plan: UnfreezePlan, state: UnfreezeState) -> None:
        """Choose the highest boundary below which nothing has trained so far."""
        lowest = lowest_trained(plan, len(state.starts))
        self.boundary = max((k for k in self._features if k < lowest), default=0)

    @contextmanager
    def entered(
        self, split: str, rows: torch.Tensor, inputs: dict[str, torch.Tensor]
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Let the model begin at the boundary inside; yield the inputs for its forward pass.

        Args:
            split: name of the split that the rows come from.
            rows: numbers of the rows, (batch,).
            inputs: keyword arguments of the forward pass, with `attention_mask`, (batch, seq_len).
        """
        if not self.boundary:
            yield inputs
            return
        mask = inputs["attention_mask"].bool()
        vectors = self._features[self.boundary][split].read(rows.tolist()).to(mask.device, non_blocking=True)
        if self._prefix.takes_one_vector(self.boundary):
            # The rest of the model reads the first token alone.
            inputs = {key: value[:, :1] for key, value in inputs.items()}
            hidden = vectors if self._prefix.is_pooled(self.boundary) else vectors[:, None]
        else:
            hidden = vectors.new_zeros(*mask.shape, vectors.shape[-1])
            hidden[mask] = vectors
        with self._prefix.entered(self.boundary, hidden):
            yield inputs


def logits_of(
    model: torch.nn.Module, batch: Mapping[str, torch.Tensor], split: str, features: FeatureCache | None
) -> torch.Tensor:
    """Compute the logits of a batch, (batch, outputs).

    Args:
        model: the model, on the device of the batch.
        batch: the inputs of the model; if there are features, also `row`, the number of each row, (batch,).
        split: name of the split that the rows come from.
        features: the cached outputs of the frozen blocks; None computes them.
    """
    inputs = model_inputs(batch)
    with features.entered(split, batch["row"], inputs) if features else nullcontext(inputs) as entered:
        return output_logits(model(**entered))


def lowest_trained(plan: UnfreezePlan, phases: int) -> int:
    """Find the lowest layer that trains in the first `phases` phases; cached outputs above it are out of date."""
    return min(layer for phase in plan.schedule.phases[:phases] for layer in phase.layers)
