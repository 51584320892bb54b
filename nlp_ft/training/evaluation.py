"""Predicts for a whole split: the processes share the rows, and the predictions are gathered, each row exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset

from nlp_ft.data.batch_loading import Collator, load_batches
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
        num_rows = len(self.data.encoded[split])
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
        encoded, lengths = self.data.encoded[split], self.data.lengths(split)
        rows = np.arange(len(encoded)) if rows is None else rows
        order = rows[np.argsort(-lengths[rows], kind="stable")]
        mine = order[self.accelerator.process_index :: self.accelerator.num_processes]
        batches = [mine[i : i + self.batch_size] for i in range(0, len(mine), self.batch_size)]
        module = self.accelerator.unwrap_model(self.model)
        with evaluating(module):
            results = self._results(module, encoded, batches, split, features)
        parts: list[dict[str, np.ndarray]] = gather_object([results])
        gathered = {key: np.concatenate([part[key] for part in parts if part]) for key in parts[0]}
        order = np.argsort(gathered.pop("rows"))
        in_order = {key: values[order] for key, values in gathered.items()}
        # Left out where the outputs do not say how sure they are.
        row_scores = in_order.pop("row_scores", None)
        outputs = self.outputs
        if split == "validation":
            outputs = outputs.tuned(in_order["predicted"], in_order["references"])
        return Predictions(outputs, **in_order, row_scores=row_scores, inputs=partial(self.data.inputs, split))

    def predict_all(self) -> dict[str, Predictions]:
        """Predict for a sample of train and for every other split; what is tuned on validation holds for all."""
        others = {split: self.predict(split) for split in self.data.encoded if split != "train"}
        outputs = others["validation"].outputs if "validation" in others else self.outputs
        found = {"train": self.predict_sample("train"), **others}
        return {split: replace(of_split, outputs=outputs) for split, of_split in found.items()}

    def _results(
        self,
        module: torch.nn.Module,
        encoded: Dataset,
        batches: Sequence[np.ndarray],
        split: str,
        features: FeatureCache | None,
    ) -> dict[str, np.ndarray]:
        """Compute the arrays of `Predictions` for the rows of this process, and `rows`, their numbers; each (rows,)."""
        found: dict[str, list[np.ndarray]] = {}
        loaded = load_batches(encoded, batches, self.collator, self.num_workers)
        with torch.inference_mode(), self.accelerator.autocast():
            for rows, batch in zip(batches, loaded):
                labels = batch["labels"]
                moved = {key: value.to(self.accelerator.device, non_blocking=True) for key, value in batch.items()}
                logits = logits_of(module, moved, split, features).float().cpu()
                values = {
                    "rows": torch.from_numpy(rows),
                    "predicted": self.outputs.decode(logits),
                    "references": labels,
                    "losses": self.outputs.row_losses(logits, labels).double(),
                    "row_scores": self.outputs.row_scores(logits),
                }
                for key, value in values.items():
                    if value is not None:
                        found.setdefault(key, []).append(value.numpy())
        return {key: np.concatenate(parts) for key, parts in found.items()}
