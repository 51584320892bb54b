"""What all tasks share whose rows are texts: a tokenizer, and an encoder with a head."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nlp_ft.data.columns import content_of, fingerprint
from nlp_ft.layerwise import LayerMap
from nlp_ft.models.config_checks import check_max_length, check_vocabulary
from nlp_ft.models.text import build_headed, load_tokenizer
from nlp_ft.recipe import ChoiceRecipe, QuestionRecipe, TextRecipe, WordsRecipe
from nlp_ft.tasks.task import map_layers


class EncoderTask:
    """A task with an encoder; a subclass says what its rows are and what it learns from them. See `Task`."""

    drop_last = False
    libraries: tuple[str, ...] = ("tokenizers",)
    num_workers = 0

    recipe: TextRecipe | WordsRecipe | QuestionRecipe | ChoiceRecipe

    def __init__(self, recipe: Any) -> None:
        self.recipe = recipe
        self.group_by_length: bool = recipe.training.group_by_length
        self.notes: list[str] = []

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the encoder. Raises: ModelError."""
        return load_tokenizer(self.recipe.model, self.notes.append)

    def map_layers(self, model: PreTrainedModel) -> LayerMap:
        """Map embeddings, blocks and head. Raises: LayerMapError."""
        return map_layers(self.recipe, model)

    def hidden_size(self, model: PreTrainedModel) -> int | None:
        """Return the number of values in the vector of a token; None if the configuration does not say."""
        config = getattr(model.config, "encoder_config", model.config)
        size: int | None = getattr(config.get_text_config(), "hidden_size", None)
        return size

    def headed(self, auto_class: Any, purpose: str, num_outputs: int, pretrained: bool) -> PreTrainedModel:
        """Build the encoder with a head of Transformers; see `build_headed`. Raises: ModelError."""
        is_loaded = pretrained and self.recipe.strategy.name != "scratch"
        say = self.notes.append if pretrained else lambda note: None
        model = build_headed(auto_class, purpose, self.recipe.model, num_outputs, is_loaded, say)
        check_vocabulary(self.tokenizer, model)
        if pretrained:
            check_max_length(self.recipe.data.max_length, model)
        return model

    def vocabulary(self) -> dict[str, str]:
        """Fingerprint the vocabulary of the tokenizer, for `Task.identity`."""
        return {"vocabulary of the tokenizer": content_of(sorted(self.tokenizer.get_vocab().items()))}


def fingerprint_of_tokens(encoded: Dataset, keys: Iterable[str]) -> str:
    """Fingerprint those of some columns that encoded rows have."""
    return content_of([fingerprint(encoded, key) for key in keys if key in encoded.features])


def save_tokenizer(
    tokenizer: PreTrainedTokenizerBase, folder: Path, max_length: int, truncation_side: str | None = None
) -> None:
    """Save a tokenizer with the greatest length; and with a side of truncation, `left` or `right`, if it is given."""
    tokenizer.model_max_length = max_length
    if truncation_side is not None:
        tokenizer.truncation_side = truncation_side
        # Transformers saves the side only if it is one of the arguments that the tokenizer was made with.
        tokenizer.init_kwargs["truncation_side"] = truncation_side
    tokenizer.save_pretrained(folder)
