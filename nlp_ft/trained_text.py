"""A trained text classifier: texts or pairs of them in, labels out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import nlp_ft.models.pooled_classifier  # noqa: F401  # registers the class that a run folder may hold
from nlp_ft.data.batching import PaddingCollator
from nlp_ft.data.sources import load_files, text_columns
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.text import TextData, encode_split, load_text_data
from nlp_ft.data.tokens import encode_texts
from nlp_ft.errors import DataError
from nlp_ft.models.text import require_model_files
from nlp_ft.recipe import TextRecipe
from nlp_ft.trained_run import BATCH_SIZE, Prediction, TrainedRun, damage_named
from nlp_ft.training.task import Data

Texts = Sequence[str] | Sequence[tuple[str, str]]


class TextRun(TrainedRun):
    """See `TrainedRun`. Raises: RunFolderError: model or tokenizer are damaged."""

    input_name = "text"

    def __init__(self, folder: Path, recipe: TextRecipe) -> None:
        self.recipe: TextRecipe = recipe
        with damage_named(folder, "model"):
            require_model_files(folder)
            self.model = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True).eval()
        with damage_named(folder, "tokenizer"):
            self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def predict(self, inputs: Texts) -> list[Prediction]:
        """Classify texts, or pairs where the run was trained on pairs, truncated as in training."""
        wants_pairs = isinstance(self.recipe.data.text, list)
        if any(isinstance(text, str) == wants_pairs for text in inputs):
            raise DataError(f"this model takes {'pairs of texts' if wants_pairs else 'single texts'}")
        if not len(inputs):
            return []
        columns = [list(map(str, column)) for column in zip(*inputs)] if wants_pairs else [list(map(str, inputs))]
        encoded = encode_texts(columns, self.tokenizer, self.recipe.data)
        keys = [key for key in encoded if key != "num_tokens"]
        collator = PaddingCollator(self.tokenizer, keys)
        order = np.argsort([-len(ids) for ids in encoded["input_ids"]], kind="stable")
        probabilities = np.zeros((len(inputs), len(self.label_names)))
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            batch = collator([{key: encoded[key][row] for key in keys} for row in rows])
            probabilities[rows] = self.probabilities(batch)
        return [self.prediction(row) for row in probabilities]

    def read(self, file: str | None, words: Sequence[str]) -> Texts:
        """The texts of a file with the recipe's text column(s), or those given, paired up for a model of pairs."""
        names = text_columns(self.recipe.data)
        columns = [list(words[i :: len(names)]) for i in range(len(names))]
        if file:
            with progress_bars(False):
                rows = load_files(file, "--file", names)
            missing = [name for name in names if name not in rows.column_names]
            if missing:
                raise DataError(f"--file: {file} has no column {missing[0]!r}; it has: {', '.join(rows.column_names)}")
            columns = [["" if text is None else str(text) for text in rows[name][:]] for name in names]
        if len(columns[0]) != len(columns[-1]):
            raise DataError(f"this model takes pairs of texts, got {len(words)} texts")
        return columns[0] if len(names) == 1 else list(zip(*columns, strict=True))

    def shown(self, item: str | tuple[str, str]) -> str:
        """The text, or both of a pair."""
        return item if isinstance(item, str) else " | ".join(item)

    def labelled(self, data: str | None, split: str) -> TextData:
        """Labelled texts."""
        section = self.recipe.data
        if data is None:
            return load_text_data(section, self.tokenizer)
        with progress_bars(False):
            rows = load_files(data, "--data", text_columns(section))
        return encode_split(rows, split, f"--data ({data})", self.tokenizer, section, self.label_names)

    def labelled_collator(self, data: Data, split: str) -> PaddingCollator:
        """Pads."""
        columns = data.encoded[split].column_names
        return PaddingCollator(
            self.tokenizer, [key for key in ("input_ids", "token_type_ids", "labels") if key in columns]
        )
