"""What all tasks on texts share: tokenizer, batches, encoder with its head, fingerprints of the data."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nlp_ft.data.batch_loading import PaddingCollator
from nlp_ft.data.columns import content_of, fingerprint
from nlp_ft.data.report import describe_data, format_data_report
from nlp_ft.data.text import TextData, load_text_data
from nlp_ft.data.text_labels import LabelKind
from nlp_ft.layerwise import LayerMap
from nlp_ft.models.config_checks import check_max_length, check_vocabulary
from nlp_ft.models.labels import label_names as label_names_of
from nlp_ft.models.pooled_classifier import PooledClassifier
from nlp_ft.models.text import build_classifier, load_tokenizer, probed
from nlp_ft.recipe import TextRecipe
from nlp_ft.recipe.probe import probe_notes
from nlp_ft.tasks.task import Card, map_layers

MODEL_INPUTS = ("input_ids", "token_type_ids")


def encoder_width(model: PreTrainedModel) -> int | None:
    """Return the number of values in the vector of a token; None if the configuration does not say."""
    config = getattr(model.config, "encoder_config", model.config)
    size: int | None = getattr(config.get_text_config(), "hidden_size", None)
    return size


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, max_length: int, truncation_side: str) -> None:
    """Save a tokenizer with the greatest length and the side of truncation, `left` or `right`."""
    tokenizer.model_max_length = max_length
    tokenizer.truncation_side = truncation_side
    # Transformers saves the side only if it is one of the arguments that the tokenizer was made with.
    tokenizer.init_kwargs["truncation_side"] = truncation_side
    tokenizer.save_pretrained(folder)


class TextInputs:
    """A task that reads texts or pairs of texts; a subclass says what it learns from them. See `Task`."""

    inputs = "texts"
    label_kind: LabelKind
    """How labels are read and encoded; prediction reads it too."""
    title: str
    """What the model card calls the model, such as `Text classifier`."""
    drop_last = False
    libraries: tuple[str, ...] = ("tokenizers",)
    num_workers = 0

    def __init__(self, recipe: TextRecipe) -> None:
        self.recipe = recipe
        self.group_by_length = recipe.training.group_by_length
        self.notes: list[str] = probe_notes(recipe)
        is_pairs = isinstance(recipe.data.text, list)
        self.example_input = '"a first text" "a second text"' if is_pairs else '"a text of your own"'

    @cached_property
    def data(self) -> TextData:
        """The tokenized splits, read at first use. Raises: NlpFtError."""
        return load_text_data(self.recipe.data, self.tokenizer, self.label_kind, seed=self.recipe.seed)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the encoder. Raises: ModelError."""
        return load_tokenizer(self.recipe.model, self.notes.append)

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

    def map_layers(self, model: PreTrainedModel) -> LayerMap:
        """Map embeddings, blocks and head. Raises: LayerMapError."""
        return map_layers(self.recipe, model)

    def hidden_size(self, model: PreTrainedModel) -> int | None:
        """Return the number of values in the vector of a token."""
        return encoder_width(model)

    def collator(self, training: bool) -> PaddingCollator:
        """Make the collator that pads each text to the longest of its batch; training changes nothing at random."""
        columns = self.data.encoded["train"].column_names
        return PaddingCollator(self.tokenizer, [*(key for key in MODEL_INPUTS if key in columns), "labels"])

    def describe_data(self) -> dict[str, Any]:
        """Describe rows, labels, token lengths and odd texts of each split."""
        return describe_data(self.data)

    def format_report(self, report: dict[str, Any]) -> str:
        """Write the data report as tables."""
        return format_data_report(report)

    def identity(self) -> dict[str, str]:
        """Fingerprint the texts, token ids and labels of each split, and the vocabulary."""
        found = {"vocabulary of the tokenizer": content_of(sorted(self.tokenizer.get_vocab().items()))}
        for split, encoded in self.data.encoded.items():
            texts = [fingerprint(self.data.raw[split], column) for column in self.data.text_columns]
            tokens = [fingerprint(encoded, key) for key in MODEL_INPUTS if key in encoded.features]
            found |= {
                f"texts of {split}": content_of(texts),
                f"token ids of {split}": content_of(tokens),
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
        return Card(title, "text-classification", is_ours, '"a text", truncation=True', label_names_of(model))
