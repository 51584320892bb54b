"""Predictions over a whole split, gathered once over all processes, each row exactly once."""

from contextlib import nullcontext

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset

from nlp_ft.data.batch_loading import Collator, load_batches
from nlp_ft.tasks.outputs import Outputs, Predictions
from nlp_ft.training.features.cache import FeatureCache


def predict_split(
    accelerator: Accelerator,
    model: torch.nn.Module,
    outputs: Outputs,
    encoded: Dataset,
    lengths: np.ndarray,
    collator: Collator,
    batch_size: int,
    num_workers: int = 0,
    features: FeatureCache | None = None,
) -> Predictions:
    """Run the model over a split in eval mode; rows of like length go together, and the shares may be uneven.

    Args:
        accelerator: tells this process's share.
        model: prepared or not; the wrapper of several processes is left aside, since it would wait for the others.
        outputs: what the model's logits mean.
        encoded: the rows.
        lengths: tokens of each text, or zeros, (rows,).
        collator: makes a batch.
        batch_size: rows of one process at once.
        num_workers: processes that make batches; 0 for this one.
        features: of the frozen layers for the rows of `validation`; None computes them.
    """
    module = accelerator.unwrap_model(model)
    was_training = module.training
    module.eval()
    order = np.argsort(-lengths, kind="stable")
    mine = order[accelerator.process_index :: accelerator.num_processes]
    batches = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
    results = np.zeros((len(mine), 4))  # row number, prediction, reference, loss
    done = 0
    with torch.inference_mode(), accelerator.autocast():
        for rows, batch in zip(batches, load_batches(encoded, batches, collator, num_workers)):
            labels = batch["labels"]
            inputs = {
                key: value.to(accelerator.device, non_blocking=True)
                for key, value in batch.items()
                if key not in ("labels", "row")
            }
            with features.entered("validation", batch["row"], inputs) if features else nullcontext(inputs) as inputs:
                logits = module(**inputs).logits.float().cpu()
            losses = outputs.row_losses(logits, labels)
            columns = [rows, outputs.decode(logits).numpy(), labels.numpy(), losses.numpy()]
            results[done : done + len(rows)] = np.stack(columns, axis=1)
            done += len(rows)
    module.train(was_training)
    gathered = np.concatenate(gather_object([results]))
    gathered = gathered[np.argsort(gathered[:, 0])]
    kind = np.dtype(encoded.features["labels"].dtype)
    predicted, references = (gathered[:, column].astype(kind) for column in (1, 2))
    return Predictions(outputs, predicted, references, gathered[:, 3])
