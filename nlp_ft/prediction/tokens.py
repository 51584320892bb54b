"""What runs over tokens share: the saved tokenizer, batches by their number of tokens, predictions of whole rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from nlp_ft.data.batch import model_inputs
from nlp_ft.data.batch_loading import Collator
from nlp_ft.data.batch_sampling import token_batches
from nlp_ft.errors import ModelError
from nlp_ft.prediction.trained_run import TrainedRun
from nlp_ft.tasks.task import Data
from nlp_ft.training.evaluation import joined

TOKENS_PER_BATCH = {"cpu": 1024}
"""Tokens of a batch, by device. On a CPU larger batches gain nothing, and no longer fit into its cache."""
TOKENS_PER_BATCH_ELSEWHERE = 16_384


def saved_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """Load the tokenizer of a run folder. Raises: ModelError: it has no tokenizer_config.json."""
    # Without this file, Transformers would use another length and other sides of truncation and padding.
    if not (folder / "tokenizer_config.json").is_file():
        raise ModelError("it has no tokenizer_config.json")
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


def batches_of(lengths: np.ndarray, device: torch.device) -> list[np.ndarray]:
    """Put rows of similar length together, as many as the device takes; each batch holds row numbers."""
    return token_batches(lengths, TOKENS_PER_BATCH.get(device.type, TOKENS_PER_BATCH_ELSEWHERE))


def predicted_rows(
    run: TrainedRun, data: Data, split: str, collator: Collator, done: Callable[[int], object]
) -> np.ndarray:
    """Compute what the outputs predict for the rows of a split, (rows,), from their windows.

    Args:
        run: the trained run.
        data: the data that holds the split.
        split: name of the split.
        collator: makes its batches.
        done: called after each batch with the number of rows that begin in it.
    """
    windows, lengths, encoded = data.windows(split), data.lengths(split), data.encoded[split]
    batches = batches_of(lengths, run.device)
    begins = np.isin(np.arange(len(lengths)), windows.starts)
    parts: dict[str, list[np.ndarray]] = {}
    with run.computing() as compute:
        for numbers in batches:
            batch = collator([{**encoded[int(number)], "row": int(number)} for number in numbers])
            kept = run.outputs.of_batch(compute(model_inputs(batch)).cpu(), batch, windows)
            for key, value in kept.items():
                parts.setdefault(key, []).append(value.numpy())
            done(int(begins[numbers].sum()))
    order = np.argsort(np.concatenate(batches))
    of_windows = {key: joined(values)[order] for key, values in parts.items()}
    return run.outputs.of_rows(of_windows, windows)["predicted"]
