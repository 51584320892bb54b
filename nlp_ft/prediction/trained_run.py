"""A loaded run folder: the part that is the same for texts and images."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import AutoConfig, PreTrainedModel

from nlp_ft.data.batch import output_logits
from nlp_ft.data.batch_loading import Collator
from nlp_ft.data.columns import content_of
from nlp_ft.data.row_files import Rows
from nlp_ft.data.sources import expand
from nlp_ft.data.stored import content_hash
from nlp_ft.data.streaming import CHUNK_ROWS
from nlp_ft.errors import DataError, MachineError, ModelError, RunFolderError
from nlp_ft.models.config_checks import check_config, check_labels
from nlp_ft.models.loading import load_pretrained, quiet_transformers, reason_of
from nlp_ft.prediction.engines import EngineModel
from nlp_ft.recipe import Recipe
from nlp_ft.tasks.outputs import Outputs
from nlp_ft.tasks.registry import task_class
from nlp_ft.tasks.task import Data
from nlp_ft.training.precision import precision_of_use
from nlp_ft.training.run_folder import EXPORT


@dataclass(frozen=True)
class Source:
    """Where the inputs come from that a command line names: one of a file, words, and a stream of lines.

    Args:
        file: CSV, TSV, JSON Lines or Parquet file with the recipe's text column(s).
        words: texts, two for each prediction of a model of pairs; or image files, folders and zip files.
        lines: UTF-8 text with an input a line, such as standard input; a tab is between the texts of a pair.
    """

    file: str | None = None
    words: Sequence[str] = ()
    lines: BufferedIOBase | None = None


class TrainedRun(ABC):
    """A trained model with its recipe; a subclass reads the inputs."""

    input_name: str
    """The word for an input in tables and messages: `text` or `image`."""
    folder: Path
    recipe: Recipe
    model: PreTrainedModel

    @cached_property
    def outputs(self) -> Outputs:
        """How to interpret the outputs of the model."""
        outputs: Outputs = task_class(self.recipe.task).outputs_of(self.model)
        return outputs

    @abstractmethod
    def read(self, source: Source) -> Iterator[tuple[Sequence[Any], Rows]]:
        """Read inputs, at most `CHUNK_ROWS` at a time, each with the whole row it is from. Raises: DataError."""

    def content_of(self, source: Source) -> str:
        """Hash what `read` reads, whatever the files are called. Raises: DataError: lines cannot be read twice."""
        if source.lines is not None:
            raise DataError("lines of standard input cannot be read a second time; name a file with --file")
        if source.file is None:
            return content_of(list(source.words))
        files = [Path(place) for place in expand(source.file, "--file")]
        inside = [sorted(place.rglob("*")) if place.is_dir() else [place] for place in files]
        return content_hash(file for group in inside for file in group if file.is_file())

    @abstractmethod
    def expected_inputs(self, source: Source) -> int | None:
        """Estimate how many inputs `read` yields, for a progress bar; None if that is not known."""

    @abstractmethod
    def activated(self, inputs: Sequence[Any], done: Callable[[int], object] = lambda count: None) -> np.ndarray:
        """Compute `Outputs.activate`, (inputs, outputs), for inputs that fit into memory together.

        Args:
            inputs: one input or more.
            done: called after each batch with the number of inputs in it.

        Raises:
            DataError: an input is not of the kind that the run was trained on, or cannot be read.
        """

    @abstractmethod
    def is_single(self, inputs: Any) -> bool:
        """Whether this is one input, rather than a list of them."""

    def predict(self, inputs: Any) -> Any:
        """Predict for one input or for each of several, see `Outputs.prediction`. Raises: DataError."""
        if self.is_single(inputs):
            return self.outputs.prediction(self.activated([inputs])[0])
        return [self.outputs.prediction(row) for part in self._activated_parts(inputs) for row in part]

    def activated_all(self, inputs: Any) -> np.ndarray:
        """Compute `activated`, (inputs, outputs), for one input or any number of them. Raises: DataError."""
        parts = list(self._activated_parts([inputs] if self.is_single(inputs) else inputs))
        return np.concatenate(parts) if parts else np.empty((0, len(getattr(self.outputs, "label_names", [""]))))

    def _activated_parts(self, inputs: Any) -> Iterator[np.ndarray]:
        """Compute `activated` for several inputs, chunk by chunk. Raises: DataError: it is no list, array or column."""
        items = inputs.tolist() if isinstance(inputs, np.ndarray) else inputs
        # Iterating over a table or a mapping gives the names of its columns, which would be predicted.
        has_columns = isinstance(items, Mapping) or hasattr(items, "columns") or hasattr(items, "column_names")
        if has_columns or isinstance(items, str | bytes) or not isinstance(items, Iterable):
            advice = "; nlp_ft.load(RUN).predict takes tables, with the columns of the recipe" if has_columns else ""
            raise DataError(
                f"predict takes one {self.input_name} or a list of them, got {type(inputs).__name__}{advice}"
            )
        for number, chunk in enumerate(chunked(list(items))):
            with counted_from(number * CHUNK_ROWS):
                part = self.activated(chunk)
            yield part

    @abstractmethod
    def shown(self, item: Any) -> str:
        """Write an input on one line."""

    @abstractmethod
    def labelled(self, data: str | list[str] | None, split: str) -> Data:
        """Read labelled rows of file(s), or of a split of the recipe, as a split of that name. Raises: DataError."""

    @abstractmethod
    def collator(self) -> Collator:
        """Make the collator of rows, with labels or without."""

    @cached_property
    def device(self) -> torch.device:
        """The accelerator if there is one, else the CPU."""
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")

    @contextmanager
    def computing(self) -> Iterator[Callable[[dict[str, torch.Tensor]], torch.Tensor]]:
        """Put the model in eval mode on the device, in the precision of the recipe if the device has it.

        The weights are cast once for all batches.

        Yields:
            A function from a batch to its logits, (batch, ...), in float32. They stay on the device, because fetching
            them would wait for the batch.
        """
        module: torch.nn.Module = self.model
        module.to(self.device).eval()
        word = precision_of_use(self.recipe.training.precision, self.device)
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(word)

        def compute(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            inputs = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
            return output_logits(module(**inputs)).float()

        autocast = torch.autocast(self.device.type, dtype, enabled=dtype is not None)
        with torch.inference_mode(), autocast, self.outputs.exact(self.model):
            yield compute


def chunked(inputs: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield the inputs, at most `CHUNK_ROWS` at a time."""
    for start in range(0, len(inputs), CHUNK_ROWS):
        yield inputs[start : start + CHUNK_ROWS]


@contextmanager
def counted_from(first: int) -> Iterator[None]:
    """Count the input that an error names among all inputs, not in its chunk, whose first input has this number."""
    try:
        yield
    except DataError as error:
        if not (found := re.match(r"input (\d+)", str(error))):
            raise
        raise DataError(f"input {int(found[1]) + first}{str(error)[found.end() :]}") from None


def load_whole(auto_class: Any, folder: Path, trust_remote_code: bool) -> PreTrainedModel:
    """Load the model of a run folder or of an export, in eval mode.

    Raises:
        ModelError: the folder lacks a weight or has one more, or its graph is not the one that was checked.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    check_config(config)
    check_labels(config)
    if (folder / EXPORT).exists():
        return cast(PreTrainedModel, EngineModel(folder, config))
    loaded = load_pretrained(auto_class, str(folder), config, trust_remote_code=trust_remote_code)
    if loaded.unused:
        raise ModelError(f"its weights hold {loaded.unused[0]}, which the model of its config.json has no place for")
    loaded.model.eval()
    return loaded.model


@contextmanager
def damage_named(folder: Path, what: str) -> Iterator[None]:
    """Turn whatever loading raises into one error. Raises: RunFolderError, MachineError."""
    try:
        with quiet_transformers():
            yield
    except MachineError:  # an engine that is not installed
        raise
    except Exception as error:  # each library raises what it likes, tokenizers bare exceptions
        raise RunFolderError(f"{folder}: its {what} is damaged: {reason_of(error)}") from None
