"""Multiple choice: the right one of several candidates for a prompt."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import AutoModelForMultipleChoice, PreTrainedModel, PreTrainedTokenizerBase

from nlp_ft.data.choices.encoding import FOR_BATCHES, ChoiceCollator, ChoiceData, load_choice_data
from nlp_ft.data.choices.report import describe_choices, format_choice_report
from nlp_ft.data.choices.rows import load_choice_splits
from nlp_ft.data.columns import content_of, fingerprint
from nlp_ft.data.splits import progress_bars
from nlp_ft.layerwise import LayerMap
from nlp_ft.models.config_checks import check_max_length, check_vocabulary
from nlp_ft.models.text import build_headed, load_tokenizer
from nlp_ft.recipe import ChoiceRecipe
from nlp_ft.tasks.choice_baselines import score_baselines
from nlp_ft.tasks.choices import ChoiceOutputs
from nlp_ft.tasks.losses import ChoiceLoss
from nlp_ft.tasks.task import Card, map_layers
from nlp_ft.tasks.text_inputs import encoder_width, save_tokenizer

EXAMPLE = """\
from transformers import AutoModelForMultipleChoice, AutoTokenizer

folder = "PATH/TO/THIS/FOLDER"
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForMultipleChoice.from_pretrained(folder)
prompt, candidates = "The cup fell off the table.", ["It broke on the floor.", "It sang a song."]
encoded = tokenizer(
    [prompt] * len(candidates), candidates, truncation="only_first", padding=True, return_tensors="pt"
)
logits = model(**{key: values[None] for key, values in encoded.items()}).logits[0]
print(candidates[logits.argmax()])"""
"""How to use a saved model in plain Transformers, which has no pipeline for it."""


class MultipleChoice:
    """Learns which of several candidates is right. See `Task`."""

    inputs = "choices"
    drop_last = False
    example_input = '"a prompt" "a candidate" "another candidate"'
    libraries: tuple[str, ...] = ("tokenizers",)
    num_workers = 0

    def __init__(self, recipe: ChoiceRecipe) -> None:
        self.recipe = recipe
        self.group_by_length = recipe.training.group_by_length
        self.notes: list[str] = []

    @cached_property
    def data(self) -> ChoiceData:
        """The tokenized splits. Raises: NlpFtError."""
        return load_choice_data(self.recipe.data, self.tokenizer, self.recipe.seed)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the encoder. Raises: ModelError."""
        return load_tokenizer(self.recipe.model)

    @staticmethod
    def outputs_of(model: PreTrainedModel) -> ChoiceOutputs:
        """Interpret the outputs of a trained model."""
        return ChoiceOutputs()

    @property
    def outputs(self) -> ChoiceOutputs:
        """Interpret the outputs of the model."""
        return ChoiceOutputs()

    def label_counts(self) -> dict[str, int]:
        """Count the rows of train by the place of the right candidate."""
        with progress_bars(False):
            counts = Counter(load_choice_splits(self.recipe.data, self.recipe.seed)["train"]["label"])
        return {f"candidate {index}": counts[index] for index in sorted(counts)}

    def num_rows(self) -> int:
        """Count the raw rows of train."""
        return sum(self.label_counts().values())

    def label_names(self) -> list[str]:
        """Name the one output of each candidate."""
        return ["score"]

    def build_model(self, label_names: Sequence[str], pretrained: bool = True) -> PreTrainedModel:
        """Build the encoder with Transformers' own head for multiple choice. Raises: ModelError."""
        is_loaded = pretrained and self.recipe.strategy.name != "scratch"
        say = self.notes.append if pretrained else lambda note: None
        model = build_headed(AutoModelForMultipleChoice, "multiple choice", self.recipe.model, 1, is_loaded, say)
        check_vocabulary(self.tokenizer, model)
        if pretrained:
            check_max_length(self.recipe.data.max_length, model)
        return model

    def map_layers(self, model: PreTrainedModel) -> LayerMap:
        """Map embeddings, blocks and head. Raises: LayerMapError."""
        return map_layers(self.recipe, model)

    def hidden_size(self, model: PreTrainedModel) -> int | None:
        """Return the number of values in the vector of a token."""
        return encoder_width(model)

    def make_loss(self) -> ChoiceLoss:
        """Make the cross-entropy of the right candidate."""
        return ChoiceLoss()

    def collator(self, training: bool) -> ChoiceCollator:
        """Make the collator that pads candidates to the longest of their batch; training changes nothing at random."""
        return ChoiceCollator(self.tokenizer)

    def describe_data(self) -> dict[str, Any]:
        """Describe rows, candidates, lengths and cuts of each split."""
        return describe_choices(self.data)

    def format_report(self, report: dict[str, Any]) -> str:
        """Write the data report as tables."""
        return format_choice_report(report)

    def identity(self) -> dict[str, str]:
        """Fingerprint the texts, token ids and labels of each split, and the vocabulary."""
        found = {"vocabulary of the tokenizer": content_of(sorted(self.tokenizer.get_vocab().items()))}
        for split, encoded in self.data.encoded.items():
            raw = self.data.raw[split]
            tokens = [fingerprint(encoded, key) for key in FOR_BATCHES if key in encoded.features and key != "labels"]
            found |= {
                f"texts of {split}": content_of([fingerprint(raw, column) for column in ("prompt", "candidates")]),
                f"token ids of {split}": content_of(tokens),
                f"labels of {split}": fingerprint(encoded, "labels"),
            }
        return found

    def score_baselines(self) -> dict[str, dict[str, dict[str, float]]]:
        """Score chance, the longest candidate, and the candidate that is nearest to the prompt by TF-IDF."""
        raw = self.data.raw
        return {split: score_baselines(rows, raw["train"]) for split, rows in raw.items() if split != "train"}

    def save_preprocessor(self, folder: Path) -> None:
        """Save the tokenizer, which cuts a prompt at its beginning, with the greatest length."""
        save_tokenizer(self.tokenizer, folder, self.recipe.data.max_length, "left")

    def card(self, model: PreTrainedModel) -> Card:
        """Describe the model for the model card."""
        return Card(
            title=f"Multiple-choice model fine-tuned from {self.recipe.model.name}",
            pipeline_tag="multiple-choice",
            needs_import=False,
            call="",
            labels=(),
            gives="A score for each candidate of a prompt; the softmax over the candidates gives their probabilities.",
            example=EXAMPLE,
        )
