"""What the tasks share whose rows are single texts or pairs of texts: splits, encoder with pooling and head, report."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from nlp_ft.data.batch import TOKEN_INPUTS
from nlp_ft.data.batch_loading import PaddingCollator
from nlp_ft.data.columns import content_of, fingerprint
from nlp_ft.data.report import describe_data, format_data_report
from nlp_ft.data.text import TextData, load_text_data
from nlp_ft.data.text_labels import LabelKind
from nlp_ft.models.config_checks import check_max_length, check_vocabulary
from nlp_ft.models.labels import label_names as label_names_of
from nlp_ft.models.pooled_classifier import PooledClassifier
from nlp_ft.models.text import build_classifier, probed
from nlp_ft.recipe import TextRecipe
from nlp_ft.recipe.probe_notes import probe_notes
from nlp_ft.tasks.encoder_task import EncoderTask, fingerprint_of_tokens, save_tokenizer
from nlp_ft.tasks.task import Card


class TextInputs(EncoderTask):
    """A task that reads texts or pairs of texts; a subclass says what it learns from them. See `Task`."""

    inputs = "texts"
    label_kind: LabelKind
    """How labels are read and encoded; prediction reads it too."""
    title: str
    """What the model card calls the model, such as `Text classifier`."""

    recipe: TextRecipe

    def __init__(self, recipe: TextRecipe) -> None:
        super().__init__(recipe)
        self.notes += probe_notes(recipe)
        is_pairs = isinstance(recipe.data.text, list)
        self.example_input = '"a first text" "a second text"' if is_pairs else '"a text of your own"'

    @cached_property
    def data(self) -> TextData:
        """The tokenized splits, read at first use. Raises: NlpFtError."""
        return load_text_data(self.recipe.data, self.tokenizer, self.label_kind, seed=self.recipe.seed)

    def build_model(self, label_names: Sequence[str], pretrained: bool = True) -> PreTrainedModel:
        """Build the encoder with pooling and a head; check it against tokenizer and lengths. Raises: ModelError."""
        section = self.recipe.model
        if self.recipe.strategy.probe is not None:
            section = probed(section, self.notes.append if pretrained else lambda note: None)
        if not pretrained:
            structure = build_classifier(section, label_names, pretrained=False)
            check_vocabulary(self.tokenizer, structure)
            return structure
        is_random = self.recipe.strategy.name == "scratch"
        model = build_classifier(section, label_names, self.tokenizer, pretrained=not is_random, say=self.notes.append)
        check_vocabulary(self.tokenizer, model)
        check_max_length(self.recipe.data.max_length, model)
        return model

    def collator(self, training: bool) -> PaddingCollator:
        """Make the collator that pads each text to the longest of its batch; training changes nothing at random."""
        return PaddingCollator(self.tokenizer, [*TOKEN_INPUTS, "labels"])

    def describe_data(self) -> dict[str, Any]:
        """Describe rows, labels, token lengths and odd texts of each split."""
        return describe_data(self.data)

    def format_report(self, report: dict[str, Any]) -> str:
        """Write the data report as tables."""
        return format_data_report(report)

    def identity(self) -> dict[str, str]:
        """Fingerprint the texts, token ids and labels of each split, and the vocabulary."""
        found = self.vocabulary()
        for split, encoded in self.data.encoded.items():
            texts = [fingerprint(self.data.raw[split], column) for column in self.data.text_columns]
            found |= {
                f"texts of {split}": content_of(texts),
                f"token ids of {split}": fingerprint_of_tokens(encoded, TOKEN_INPUTS),
                f"labels of {split}": fingerprint(encoded, "labels"),
            }
        return found

    def save_preprocessor(self, folder: Path) -> None:
        """Save the tokenizer, with the length and the side of truncation."""
        side = "left" if self.recipe.data.truncation == "tail" else "right"
        save_tokenizer(self.tokenizer, folder, self.recipe.data.max_length, side)

    def card(self, model: PreTrainedModel) -> Card:
        """Describe the model for the model card."""
        title = f"{self.title} fine-tuned from {self.recipe.model.name}"
        is_ours = isinstance(model, PooledClassifier)
        is_pair = isinstance(self.recipe.data.text, list)
        text = '{"text": "a first text", "text_pair": "a second text"}' if is_pair else '"a text"'
        return Card(title, "text-classification", is_ours, f"{text}, truncation=True", label_names_of(model))
