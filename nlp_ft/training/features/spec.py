"""The inputs of building a feature cache: the model, its boundaries, the rows, and the room on the disk."""

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
        encoded: the encoded rows.
        lengths: number of tokens of each row, (rows,).
    """

    encoded: Dataset
    lengths: np.ndarray


@dataclass(frozen=True)
class CacheSpec:
    """The inputs of building a feature cache.

    Args:
        model: the model, without wrappers.
        layer_map: the layer map of the model.
        prefix: the frozen blocks of the model, and the boundaries between them.
        splits: split name -> rows.
        collator: makes batches of the rows.
        batch_size: rows of a batch in the pass that fills the cache.
        dtype: type of the stored numbers.
        folder: folder of the features of all runs.
        budget: most bytes of all features in the folder.
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
