"""A trained model for texts, which predicts labels or numbers for texts or pairs of texts."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow
import torch
from transformers import AutoModelForSequenceClassification

import nlp_ft.models.pooled_classifier  # noqa: F401  # registers the class that a run folder may hold
from nlp_ft.data.batch import TOKEN_INPUTS
from nlp_ft.data.batch_loading import PaddingCollator
from nlp_ft.data.row_files import Rows
from nlp_ft.data.sources import columns_of_texts, load_files, text_columns
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.streaming import stream_lines, stream_texts
from nlp_ft.data.text import TextData, encode_split, load_text_data
from nlp_ft.data.text_labels import LabelKind
from nlp_ft.data.tokens import encode_for_prediction
from nlp_ft.data.windows import BEGINS_ROW, Windows
from nlp_ft.errors import DataError
from nlp_ft.models.labels import label_names
from nlp_ft.prediction.tokens import TokenRun, batches_of, parsed_lines
from nlp_ft.prediction.trained_run import Source, chunked
from nlp_ft.recipe import TextRecipe
from nlp_ft.tasks.registry import task_class

Texts = Sequence[str] | Sequence[tuple[str, str]]


class TextRun(TokenRun):
    """A trained run that reads texts. See `TokenRun`."""

    input_name = "text"
    auto_class = AutoModelForSequenceClassification
    recipe: TextRecipe

    def is_single(self, inputs: Any) -> bool:
        """Whether this is a text; or a tuple of two, for a model of pairs."""
        is_pair = isinstance(inputs, tuple) and len(inputs) == 2 and all(isinstance(text, str) for text in inputs)
        return isinstance(inputs, str) or (is_pair and isinstance(self.recipe.data.text, list))

    def activated(self, inputs: Texts, done: Callable[[int], object] = lambda count: None) -> np.ndarray:
        """Predict for texts, or for pairs if the run was trained on pairs; they are truncated as in training."""
        wants_pairs = isinstance(self.recipe.data.text, list)
        _check_inputs(inputs, wants_pairs)
        columns = [list(column) for column in zip(*inputs, strict=True)] if wants_pairs else [list(map(str, inputs))]
        encoded = encode_for_prediction(columns, self.tokenizer, self.recipe.data)
        begins_row = encoded.pop(BEGINS_ROW, None)
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        batches = batches_of(lengths, self.device)
        collator = self.collator()
        computed = []
        with self.computing() as compute:
            for batch in batches:
                rows = [{key: encoded[key][row] for key in encoded} for row in batch]
                computed.append(compute(collator(rows)))
                done(sum(begins_row[row] for row in batch) if begins_row else len(batch))
        logits = torch.cat(computed).cpu()[np.argsort(np.concatenate(batches))]
        if begins_row:
            windows = Windows(np.cumsum(begins_row) - 1, self.recipe.data.window_pooling)
            logits = torch.from_numpy(windows.pooled(logits.numpy()))
        found: np.ndarray = self.outputs.activate(logits).numpy()
        return found

    def read(self, source: Source) -> Iterator[tuple[Texts, Rows]]:
        """Read the text column(s) of a file, or take the given texts or lines; two form a pair for a model of pairs."""
        names = text_columns(self.recipe.data)
        if source.file:
            with progress_bars(False):
                for columns, rows in stream_texts(source.file, "--file", names):
                    yield columns[0] if len(names) == 1 else list(zip(*columns, strict=True)), rows
            return
        for texts in self._typed(source):
            _check_inputs(texts, wants_pairs=len(names) == 2)
            columns = [list(map(str, texts))] if len(names) == 1 else [list(side) for side in zip(*texts, strict=True)]
            yield texts, pyarrow.table(dict(zip(names, columns, strict=True)))

    def _typed(self, source: Source) -> Iterator[Texts]:
        """Take words or lines, in chunks. Raises: DataError: a text has no other one to form a pair with."""
        is_single = len(text_columns(self.recipe.data)) == 1
        if source.lines is None:
            if not is_single and len(source.words) % 2:
                raise DataError(f"this model takes pairs of texts, got {len(source.words)} texts")
            words = source.words
            yield from chunked(words if is_single else list(zip(words[::2], words[1::2], strict=True)))
            return
        lines = source.lines
        yield from stream_lines(lines, "standard input") if is_single else parsed_lines(lines, _pair)

    def num_inputs(self, words: Sequence[str]) -> int:
        """Count the given texts, or pairs of them."""
        return len(words) // len(text_columns(self.recipe.data))

    def shown(self, item: str | tuple[str, str]) -> str:
        """Return the text, or both texts of a pair on one line."""
        return item if isinstance(item, str) else " | ".join(item)

    def labelled(self, data: str | list[str] | None, split: str) -> TextData:
        """Read labelled texts. Raises: DataError."""
        section = self.recipe.data
        label_kind: LabelKind = task_class(self.recipe.task).label_kind
        if data is None:
            return load_text_data(section, self.tokenizer, label_kind, only=split, seed=self.recipe.seed)
        with progress_bars(False):
            rows = load_files(data, "--data", columns_of_texts(section))
        names = label_names(self.model)
        return encode_split(rows, split, f"--data ({data})", self.tokenizer, section, names, label_kind)

    def collator(self) -> PaddingCollator:
        """Make the collator that pads texts to the longest of their batch."""
        return PaddingCollator(self.tokenizer, [*TOKEN_INPUTS, "labels"])


def _pair(line: str, number: int) -> tuple[str, str]:
    texts = line.split("\t")
    if len(texts) != 2:
        raise DataError(
            f"standard input: line {number} must be two texts with a tab between them, as this model takes pairs; got "
            f"{len(texts)}"
        )
    return texts[0], texts[1]


def _check_inputs(inputs: Sequence[Any], wants_pairs: bool) -> None:
    """Check inputs. Raises: DataError: one is not a text, not a pair of texts, or cannot be encoded as UTF-8."""
    for number, item in enumerate(inputs):
        is_pair = isinstance(item, tuple | list)
        texts = list(item) if is_pair else [item]
        if is_pair != wants_pairs and all(isinstance(text, str) for text in texts):
            raise DataError(f"this model takes {'pairs of texts' if wants_pairs else 'single texts'}")
        if len(texts) != 1 + wants_pairs or not all(isinstance(text, str) for text in texts):
            expected = "a pair of texts" if wants_pairs else "a text"
            raise DataError(f"input {number} (from 0) must be {expected}, got {repr(item)[:60]}")
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:
            raise DataError(f"input {number} (from 0) cannot be encoded as UTF-8") from None
