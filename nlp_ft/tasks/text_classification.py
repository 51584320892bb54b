"""Text classification: tokenizer, texts, encoder."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nlp_ft.data.batch_loading import PaddingCollator
from nlp_ft.data.columns import content_of, fingerprint, unique_values, value_codes
from nlp_ft.data.labels import label_counts
from nlp_ft.data.report import describe_data, format_data_report
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.text import TextData, load_labelled_splits, load_text_data
from nlp_ft.layerwise import LayerMap
from nlp_ft.models.config_checks import check_max_length, check_vocabulary
from nlp_ft.models.labels import label_names
from nlp_ft.models.pooled_classifier import PooledClassifier
from nlp_ft.models.text import build_classifier, load_tokenizer
from nlp_ft.recipe import TextRecipe
from nlp_ft.tasks.baselines import score_baselines
from nlp_ft.tasks.classes import ClassOutputs, make_loss
from nlp_ft.tasks.losses import ClassificationLoss
from nlp_ft.tasks.task import Card, map_layers


class TextClassification:
    """See `Task`."""

    inputs = "texts"
    has_numbers = False
    drop_last = False
    example_input = '"a text of your own"'
    libraries: tuple[str, ...] = ("tokenizers",)
    num_workers = 0

    def __init__(self, recipe: TextRecipe) -> None:
        self.recipe = recipe
        self.group_by_length = recipe.training.group_by_length
        self.notes: list[str] = []

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the encoder. Raises: ModelError."""
        return load_tokenizer(self.recipe.model)

    @cached_property
    def data(self) -> TextData:
        """The tokenized splits. Raises: NlpFtError."""
        return load_text_data(self.recipe.data, self.tokenizer)

    def label_counts(self) -> dict[str, int]:
        """Of the raw rows, where they are not tokenized already."""
        if "data" in vars(self):
            return label_counts(self.data.labels("train"), self.data.label_names)
        with progress_bars(False):
            raw, labels = load_labelled_splits(self.recipe.data)
        rows, column, ids = raw["train"], self.recipe.data.label, {value: i for i, value in enumerate(labels)}
        values = unique_values(rows, column)
        of_value = np.array([ids[value] for value in values])
        return label_counts(of_value[value_codes(rows, column, values)], list(labels.values()))

    def label_names(self) -> list[str]:
        """Of the raw rows."""
        with progress_bars(False):
            return list(load_labelled_splits(self.recipe.data)[1].values())

    def build_model(self, label_names: Sequence[str], pretrained: bool = True) -> PreTrainedModel:
        """Encoder, pooling, head. Raises: ModelError."""
        if not pretrained:
            structure = build_classifier(self.recipe.model, label_names, pretrained=False)
            check_vocabulary(self.tokenizer, structure)
            return structure
        is_random = self.recipe.strategy.name == "scratch"
        model = build_classifier(
            self.recipe.model, label_names, self.tokenizer, pretrained=not is_random, say=self.notes.append
        )
        check_vocabulary(self.tokenizer, model)
        check_max_length(self.recipe.data.max_length, model)
        return model

    def map_layers(self, model: PreTrainedModel) -> LayerMap:
        """Embeddings, blocks, head. Raises: LayerMapError."""
        return map_layers(self.recipe, model)

    @staticmethod
    def outputs_of(model: PreTrainedModel) -> ClassOutputs:
        """The labels of a trained model."""
        return ClassOutputs(label_names(model))

    @property
    def outputs(self) -> ClassOutputs:
        """One of the labels."""
        return ClassOutputs(self.data.label_names)

    def make_loss(self) -> ClassificationLoss:
        """Cross-entropy with the weights of the recipe. Raises: TrainingError."""
        return make_loss(self.recipe.loss, self.label_counts())

    def collator(self, training: bool) -> PaddingCollator:
        """Pads; nothing is drawn."""
        columns = self.data.encoded["train"].column_names
        keys = [key for key in ("input_ids", "token_type_ids") if key in columns]
        return PaddingCollator(self.tokenizer, [*keys, "labels"])

    def describe_data(self) -> dict[str, Any]:
        """Rows, labels, token lengths, odd texts."""
        return describe_data(self.data)

    def format_report(self, report: dict[str, Any]) -> str:
        """As tables."""
        return format_data_report(report)

    def identity(self) -> dict[str, str]:
        """Texts, token ids and labels of each split, and the vocabulary."""
        found = {"vocabulary of the tokenizer": content_of(sorted(self.tokenizer.get_vocab().items()))}
        for split, encoded in self.data.encoded.items():
            texts = [fingerprint(self.data.raw[split], column) for column in self.data.text_columns]
            tokens = [fingerprint(encoded, key) for key in ("input_ids", "token_type_ids") if key in encoded.features]
            found |= {
                f"texts of {split}": content_of(texts),
                f"token ids of {split}": content_of(tokens),
                f"labels of {split}": fingerprint(encoded, "labels"),
            }
        return found

    def score_baselines(self) -> dict[str, dict[str, float]]:
        """The majority label, and TF-IDF with logistic regression."""
        data = self.data
        split = "test" if "test" in data.raw else "validation"
        return score_baselines(data.texts("train"), data.labels("train"), data.texts(split), data.labels(split))

    def save_preprocessor(self, folder: Path) -> None:
        """The tokenizer, with the length and side of truncation."""
        self.tokenizer.model_max_length = self.recipe.data.max_length
        self.tokenizer.truncation_side = "left" if self.recipe.data.truncation == "tail" else "right"
        self.tokenizer.save_pretrained(folder)

    def card(self, model: PreTrainedModel) -> Card:
        """A text classifier."""
        return Card(
            f"Text classifier fine-tuned from {self.recipe.model.name}",
            "text-classification",
            isinstance(model, PooledClassifier),
            '"a text", truncation=True',
            label_names(model),
        )
