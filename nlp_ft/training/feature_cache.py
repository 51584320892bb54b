"""What a frozen prefix gives for each row, computed once; later steps begin above it.

Rows are stored unpadded, by their number, so that any order and any batch can be put together. `feature_store.py` makes
the files, `caching.py` decides whether they pay.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from nlp_ft.layerwise import UnfreezePlan, UnfreezeState
from nlp_ft.layerwise.prefix import FrozenPrefix


class Features:
    """What stands at one boundary for the rows of one split.

    Args:
        file: raw values, rows one after the other.
        lengths: vectors of each row, (rows,): its tokens, or 1 for a pooled vector.
        hidden_size: of a vector.
        dtype: of the stored values.
    """

    def __init__(self, file: Path, lengths: np.ndarray, hidden_size: int, dtype: torch.dtype) -> None:
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        size = int(self.offsets[-1]) * hidden_size
        self.values = torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(-1, hidden_size)

    def write(self, rows: np.ndarray, vectors: torch.Tensor) -> None:
        """Keep the vectors of so many rows, (all their vectors, hidden)."""
        start = 0
        for row in rows:
            first, last = self.offsets[row], self.offsets[row + 1]
            self.values[first:last] = vectors[start : start + last - first]
            start += last - first

    def read(self, rows: Sequence[int]) -> torch.Tensor:
        """The vectors of the rows, (all their vectors, hidden), in float32."""
        return torch.cat([self.values[self.offsets[row] : self.offsets[row + 1]] for row in rows]).float()


class FeatureCache:
    """The features of all splits at the boundaries that a run uses, and the way to enter the model with them.

    Args:
        prefix: the model's boundaries.
        features: boundary -> split name -> its features.
    """

    def __init__(self, prefix: FrozenPrefix, features: Mapping[int, Mapping[str, Features]]) -> None:
        self._prefix = prefix
        self._features = features
        self.boundary = 0

    def use(self, plan: UnfreezePlan, state: UnfreezeState) -> None:
        """Begin at the highest boundary below which nothing has trained so far."""
        lowest = lowest_trained(plan, len(state.starts))
        self.boundary = max((k for k in self._features if k < lowest), default=0)

    @contextmanager
    def entered(
        self, split: str, rows: torch.Tensor, inputs: dict[str, torch.Tensor]
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Inside, the model begins at the boundary; gives the inputs for its forward pass.

        Args:
            split: the rows' split.
            rows: their numbers, (batch,).
            inputs: their keyword arguments, with `attention_mask` (batch, seq_len).
        """
        if not self.boundary:
            yield inputs
            return
        mask = inputs["attention_mask"].bool()
        vectors = self._features[self.boundary][split].read(rows.tolist()).to(mask.device, non_blocking=True)
        if self._prefix.takes_one_vector(self.boundary):
            # No token but the first is looked at any more.
            inputs = {key: value[:, :1] for key, value in inputs.items()}
            hidden = vectors if self._prefix.is_pooled(self.boundary) else vectors[:, None]
        else:
            hidden = vectors.new_zeros(*mask.shape, vectors.shape[-1])
            hidden[mask] = vectors
        with self._prefix.entered(self.boundary, hidden):
            yield inputs


def lowest_trained(plan: UnfreezePlan, phases: int) -> int:
    """The lowest layer that trains in any of the first phases; what was thawed once has left its cached values."""
    return min(layer for phase in plan.schedule.phases[:phases] for layer in phase.layers)
