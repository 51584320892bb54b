"""What runs over tokens share: how they are loaded, batches by their number of tokens, predictions of whole rows."""

from collections.abc import Callable, Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoTokenizer

from nlp_ft.data.batch import model_inputs
from nlp_ft.data.batch_sampling import token_batches
from nlp_ft.data.streaming import estimated_rows, stream_lines
from nlp_ft.errors import ModelError
from nlp_ft.models.config_checks import check_vocabulary
from nlp_ft.models.text_source import require_model_files
from nlp_ft.prediction.trained_run import Source, TrainedRun, damage_named, load_whole
from nlp_ft.tasks.task import Data
from nlp_ft.training.evaluation import joined

TOKENS_PER_BATCH = {"cpu": 1024}
"""Tokens of a batch, by device. On a CPU larger batches gain nothing, and no longer fit into its cache."""
TOKENS_PER_BATCH_ELSEWHERE = 16_384


class TokenRun(TrainedRun):
    """A trained run with a tokenizer. See `TrainedRun`.

    Raises:
        RunFolderError: model or tokenizer are damaged.
    """

    auto_class: ClassVar[Any]
    """The class of Transformers that loads the model."""

    def __init__(self, folder: Path, recipe: Any, trust_remote_code: bool = False) -> None:
        self.folder = folder
        self.recipe = recipe
        with damage_named(folder, "model"):
            require_model_files(folder)
            self.model = load_whole(self.auto_class, folder, trust_remote_code)
        with damage_named(folder, "tokenizer"):
            self.tokenizer = saved_tokenizer(folder, trust_remote_code)
            check_vocabulary(self.tokenizer, self.model)

    def expected_inputs(self, source: Source) -> int | None:
        """Estimate the rows of the file, or count the given inputs; lines are counted by nobody."""
        if source.lines is not None:
            return None
        return estimated_rows(source.file, "--file") if source.file else self.num_inputs(source.words)

    def num_inputs(self, words: Sequence[str]) -> int:
        """Count the inputs that words of a command line form; here each is one."""
        return len(words)


def parsed_lines(stream: BufferedIOBase, parse: Callable[[str, int], Any]) -> Iterator[Sequence[Any]]:
    """Make an input of each line of standard input; `parse` takes the line and its number, from 1."""
    number = 0
    for lines in stream_lines(stream, "standard input"):
        yield [parse(line, number + i) for i, line in enumerate(lines, 1)]
        number += len(lines)


def saved_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """Load the tokenizer of a run folder. Raises: ModelError: it has no tokenizer_config.json."""
    # Without this file, Transformers would use another length and other sides of truncation and padding.
    if not (folder / "tokenizer_config.json").is_file():
        raise ModelError("it has no tokenizer_config.json")
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


def batches_of(lengths: np.ndarray, device: torch.device) -> list[np.ndarray]:
    """Put rows of similar length together, as many as the device takes; each batch holds row numbers."""
    return token_batches(lengths, TOKENS_PER_BATCH.get(device.type, TOKENS_PER_BATCH_ELSEWHERE))


def predicted_rows(run: TrainedRun, data: Data, split: str, done: Callable[[int], object]) -> np.ndarray:
    """Compute what the outputs predict for the rows of a split, (rows,), from their windows.

    Args:
        run: the trained run.
        data: the data that holds the split.
        split: name of the split.
        done: called after each batch with the number of rows that begin in it.
    """
    windows, lengths, encoded = data.windows(split), data.lengths(split), data.encoded[split]
    batches, collator = batches_of(lengths, run.device), run.collator()
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
