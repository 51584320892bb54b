"""What a feature cache is built from: the model, its boundaries, the rows, and the room on the disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from nlp_ft.data.batch_loading import Collator
from nlp_ft.layerwise import LayerMap
from nlp_ft.layerwise.prefix import FrozenPrefix


@dataclass(frozen=True)
class Split:
    """The rows of one split, whose features are kept.

    Args:
        encoded: the rows.
        lengths: tokens of each, (rows,).
    """

    encoded: Dataset
    lengths: np.ndarray


@dataclass(frozen=True)
class CacheSpec:
    """What a feature cache is built from.

    Args:
        model: the bare model.
        layer_map: of the model.
        prefix: its boundaries.
        splits: by name.
        collator: makes batches of the rows.
        batch_size: rows of a batch in the pass.
        dtype: of the stored values.
        folder: where features of all runs lie.
        budget: bytes that they may take together.
    """

    model: torch.nn.Module
    layer_map: LayerMap
    prefix: FrozenPrefix
    splits: Mapping[str, Split]
    collator: Collator
    batch_size: int
    dtype: torch.dtype
    folder: Path
    budget: int

    def vectors_of(self, boundary: int, split: str) -> np.ndarray:
        """Count the vectors of each row at a boundary, (rows,)."""
        lengths = self.splits[split].lengths
        return np.ones_like(lengths) if self.prefix.takes_one_vector(boundary) else lengths

    def bytes_of(self, boundary: int) -> int:
        """Count the bytes on disk of a boundary, all splits together."""
        vectors = sum(int(self.vectors_of(boundary, split).sum()) for split in self.splits)
        return vectors * self.prefix.hidden_size(boundary) * self.dtype.itemsize
