"""Predicts for a whole split: the processes share the rows, and the predictions are gathered, each row exactly once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.batch_loading import Collator, load_batches
from nlp_ft.data.batch_sampling import PADDING_ROW
from nlp_ft.data.windows import Windows
from nlp_ft.layerwise.eval_mode import evaluating
from nlp_ft.tasks.outputs import Outputs, Predictions
from nlp_ft.tasks.task import Data
from nlp_ft.training.features.cache import FeatureCache, logits_of

SAMPLE_ROWS = 256


@dataclass(frozen=True)
class Evaluator:
    """Runs a model over splits in eval mode; rows of similar length form batches, and shares may be uneven.

    Args:
        accelerator: the accelerator, which knows this process's share of the rows.
        model: the model, prepared or not; the wrapper for several processes is not used, as it would wait for them.
        outputs: the meaning of the model's logits.
        data: the encoded splits.
        collator: makes a batch of rows.
        batch_size: rows of a batch on one process.
        num_workers: processes that make batches; 0 makes them in this process.
    """

    accelerator: Accelerator
    model: torch.nn.Module
    outputs: Outputs
    data: Data
    collator: Collator
    batch_size: int
    num_workers: int = 0

    def predict_sample(self, split: str) -> Predictions:
        """Predict for at most 256 rows, spread evenly over a split; collective."""
        num_rows = self.data.windows(split).num_rows
        rows = np.linspace(0, num_rows - 1, min(num_rows, SAMPLE_ROWS)).round().astype(np.int64)
        return self.predict(split, rows=rows)

    def predict(self, split: str, features: FeatureCache | None = None, rows: np.ndarray | None = None) -> Predictions:
        """Predict for the rows of a split and share the result with every process; collective.

        What the outputs leave to tuning is tuned on the rows of validation, for this result.

        Args:
            split: name of the split.
            features: the cached outputs of the frozen blocks; None computes them.
            rows: numbers of the rows to predict for, in order, each once; None predicts for all.
        """
        lengths, windows = self.data.lengths(split), self.data.windows(split)
        chosen = np.arange(len(lengths)) if rows is None else windows.of_rows(rows)
        order = chosen[np.argsort(-lengths[chosen], kind="stable")]
        mine = order[self.accelerator.process_index :: self.accelerator.num_processes]
        batches = [mine[i : i + self.batch_size] for i in range(0, len(mine), self.batch_size)]
        # Each process computes as many batches: all of them compute a sharded model together.
        most = math.ceil(math.ceil(len(order) / self.accelerator.num_processes) / self.batch_size)
        batches += [np.array([PADDING_ROW])] * (most - len(batches))
        module = self.accelerator.unwrap_model(self.model)
        with evaluating(module):
            results = self._results(module, batches, split, features, windows)
        parts: list[dict[str, np.ndarray]] = gather_object([results])
        gathered = {key: joined([part[key] for part in parts if part]) for key in parts[0]}
        order = np.argsort(gathered.pop("encoded_row"))
        kept = {key: values[order] for key, values in gathered.items()}
        of_rows = self.outputs.of_rows(kept, windows.selected(chosen))
        # Left out where the outputs do not say how sure they are.
        row_scores = of_rows.pop("row_scores", None)
        outputs = self.outputs
        if split == "validation":
            outputs = outputs.tuned(of_rows["predicted"], of_rows["references"])
        inputs = partial(self._inputs, split, rows)
        return Predictions(outputs, **of_rows, row_scores=row_scores, inputs=inputs)

    def _inputs(self, split: str, rows: np.ndarray | None, places: np.ndarray) -> pyarrow.Table:
        """Read the inputs of predictions, given by their places among `rows`, or among all rows."""
        return self.data.inputs(split, places if rows is None else rows[places])

    def predict_hardest(self, rows: np.ndarray, losses: np.ndarray, outputs: Outputs) -> Predictions | None:
        """Predict for the rows of train that were hardest to learn; None without any; collective.

        Args:
            rows: their numbers, ascending, (rows,).
            losses: their losses in training, (rows,), which the result has as its own.
            outputs: the meaning of the values, tuned as the run's are.
        """
        return replace(self.predict("train", rows=rows), outputs=outputs, losses=losses) if len(rows) else None

    def predict_all(self) -> dict[str, Predictions]:
        """Predict for a sample of train and for every other split; what is tuned on validation holds for all."""
        others = {split: self.predict(split) for split in self.data.encoded if split != "train"}
        outputs = others["validation"].outputs if "validation" in others else self.outputs
        found = {"train": self.predict_sample("train"), **others}
        return {split: replace(of_split, outputs=outputs) for split, of_split in found.items()}

    def _results(
        self,
        module: torch.nn.Module,
        batches: Sequence[np.ndarray],
        split: str,
        features: FeatureCache | None,
        windows: Windows,
    ) -> dict[str, np.ndarray]:
        """Compute `Outputs.of_batch` for the encoded rows of this process, and `encoded_row`, their numbers."""
        found: dict[str, list[np.ndarray]] = {}
        loaded = load_batches(self.data.encoded[split], batches, self.collator, self.num_workers)
        with self.accelerator.autocast():
            for rows, batch in zip(batches, loaded):
                moved = {key: value.to(self.accelerator.device, non_blocking=True) for key, value in batch.items()}
                logits = logits_of(module, moved, split, features).float().cpu()
                if rows[0] == PADDING_ROW:
                    continue
                kept = self.outputs.of_batch(logits, batch, windows)
                for key, value in {"encoded_row": torch.from_numpy(rows), **kept}.items():
                    found.setdefault(key, []).append(value.numpy())
        return {key: joined(parts) for key, parts in found.items()}


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate arrays, (rows, ...); those with a shorter second axis are filled up with `IGNORED_LABEL`."""
    if parts[0].ndim > 1 and len({part.shape[1] for part in parts}) > 1:
        shape = (max(part.shape[1] for part in parts), *parts[0].shape[2:])
        filled = np.full((sum(map(len, parts)), *shape), IGNORED_LABEL, parts[0].dtype)
        for start, part in zip(np.cumsum([0, *map(len, parts)]), parts):
            filled[start : start + len(part), : part.shape[1]] = part
        return filled
    return np.concatenate(parts)
