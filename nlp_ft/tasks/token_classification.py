"""Token classification: a tag for each word, such as the entities of a text or parts of speech."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForTokenClassification, PreTrainedModel, PreTrainedTokenizerBase

from nlp_ft.data.columns import fingerprint
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.words.batches import WordCollator
from nlp_ft.data.words.data import TaggedRows, WordData, flat_tags, load_tagged_rows, load_word_data
from nlp_ft.data.words.encoding import word_tokenizer
from nlp_ft.data.words.plain_rows import TAGS, WORDS
from nlp_ft.data.words.report import describe_words, format_words_report
from nlp_ft.data.words.spans import find_scheme
from nlp_ft.models.config_checks import check_max_length, check_vocabulary
from nlp_ft.models.labels import label_names as label_names_of
from nlp_ft.models.text import build_classifier, load_tokenizer
from nlp_ft.recipe import WordsRecipe
from nlp_ft.tasks.baselines import Scores
from nlp_ft.tasks.classes import class_weights
from nlp_ft.tasks.encoder_task import EncoderTask, fingerprint_of_tokens, save_tokenizer
from nlp_ft.tasks.losses import TagLoss
from nlp_ft.tasks.tag_baselines import score_tag_baselines
from nlp_ft.tasks.tag_outputs import TagOutputs
from nlp_ft.tasks.task import Card


class TokenClassification(EncoderTask):
    """Learns a tag for each word. See `Task`."""

    inputs = "words"
    example_input = '"a text of your own"'

    recipe: WordsRecipe

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the encoder, made fit for words. Raises: NlpFtError."""
        return word_tokenizer(load_tokenizer(self.recipe.model))

    @cached_property
    def data(self) -> WordData:
        """The tokenized splits. Raises: NlpFtError."""
        return load_word_data(self.recipe.data, self.tokenizer, self.recipe.seed)

    @staticmethod
    def outputs_of(model: PreTrainedModel) -> TagOutputs:
        """Interpret the outputs of a trained model by its tags and its scheme."""
        names = label_names_of(model)
        return TagOutputs(names, getattr(model.config, "tag_scheme", None) or find_scheme("auto", names, "the model"))

    @property
    def outputs(self) -> TagOutputs:
        """Interpret the outputs of the model by the tags of the data."""
        return TagOutputs(self.data.label_names, self.data.scheme)

    def label_counts(self) -> dict[str, int]:
        """Count the words of train for each tag."""
        found = self._tagged
        names = found.label_names
        codes, _ = flat_tags(found.raw["train"], names)
        return dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True))

    def num_rows(self) -> int:
        """Count the raw rows of train."""
        return len(self._tagged.raw["train"])

    def label_names(self) -> list[str]:
        """Read the tags in the order of their ids."""
        return self._tagged.label_names

    @cached_property
    def _tagged(self) -> TaggedRows | WordData:
        """The splits before tokenization, or after it, if that has been done. Raises: DataError."""
        if "data" in vars(self):
            return self.data
        with progress_bars(False):
            return load_tagged_rows(self.recipe.data, self.recipe.seed)

    def build_model(self, label_names: Sequence[str], pretrained: bool = True) -> PreTrainedModel:
        """Build the encoder with a linear layer on the vector of each token. Raises: ModelError."""
        is_random = self.recipe.strategy.name == "scratch"
        model = build_classifier(
            self.recipe.model,
            label_names,
            self.tokenizer,
            pretrained=pretrained and not is_random,
            say=self.notes.append if pretrained else lambda note: None,
            auto_class=AutoModelForTokenClassification,
        )
        model.config.tag_scheme = find_scheme(self.recipe.data.scheme, label_names, "data.label")
        check_vocabulary(self.tokenizer, model)
        check_max_length(self.recipe.data.max_length, model)
        return model

    def make_loss(self) -> TagLoss:
        """Make the cross-entropy of the tags with the class weights of the recipe. Raises: TrainingError."""
        section = self.recipe.loss
        if section.class_weights is None:
            return TagLoss(None, section.label_smoothing)
        weights = class_weights(section.class_weights, self.label_counts())
        return TagLoss(torch.tensor(weights, dtype=torch.float32), section.label_smoothing)

    def collator(self, training: bool) -> WordCollator:
        """Make the collator that pads each row to the longest of its batch; training changes nothing at random."""
        return WordCollator(self.tokenizer)

    def describe_data(self) -> dict[str, Any]:
        """Describe rows, words, entities and tokens of each split."""
        return describe_words(self.data)

    def format_report(self, report: dict[str, Any]) -> str:
        """Write the data report as tables."""
        return format_words_report(report)

    def identity(self) -> dict[str, str]:
        """Fingerprint the words, token ids and tags of each split, and the vocabulary."""
        found = self.vocabulary()
        for split, encoded in self.data.encoded.items():
            found |= {
                f"words of {split}": fingerprint(self.data.raw[split], WORDS),
                f"token ids of {split}": fingerprint_of_tokens(encoded, ("input_ids", "words")),
                f"tags of {split}": fingerprint(self.data.raw[split], TAGS),
            }
        return found

    def score_baselines(self) -> Scores:
        """Score the most frequent tag, and the most frequent tag of each word."""
        return score_tag_baselines(self.data)

    def save_preprocessor(self, folder: Path) -> None:
        """Save the tokenizer, with the length."""
        save_tokenizer(self.tokenizer, folder, self.recipe.data.max_length)

    def card(self, model: PreTrainedModel) -> Card:
        """Describe the model for the model card."""
        title = f"Token classifier fine-tuned from {self.recipe.model.name}"
        call = '"a text", aggregation_strategy="first"'
        return Card(title, "token-classification", False, call, label_names_of(model))
