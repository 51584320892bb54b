"""Multiple choice: the right one of several candidates for a prompt."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import AutoModelForMultipleChoice, PreTrainedModel

from nlp_ft.data.batch import TOKEN_INPUTS
from nlp_ft.data.choices.encoding import ChoiceCollator, ChoiceData, load_choice_data
from nlp_ft.data.choices.report import describe_choices, format_choice_report
from nlp_ft.data.choices.rows import load_choice_splits
from nlp_ft.data.columns import content_of, fingerprint
from nlp_ft.data.splits import progress_bars
from nlp_ft.recipe import ChoiceRecipe
from nlp_ft.tasks.choice_baselines import score_baselines
from nlp_ft.tasks.choices import ChoiceOutputs
from nlp_ft.tasks.encoder_task import EncoderTask, fingerprint_of_tokens, save_tokenizer
from nlp_ft.tasks.losses import ChoiceLoss
from nlp_ft.tasks.task import Card

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


class MultipleChoice(EncoderTask):
    """Learns which of several candidates is right. See `Task`."""

    inputs = "choices"
    example_input = '"a prompt" "a candidate" "another candidate"'

    recipe: ChoiceRecipe

    @cached_property
    def data(self) -> ChoiceData:
        """The tokenized splits. Raises: NlpFtError."""
        return load_choice_data(self.recipe.data, self.tokenizer, self.recipe.seed)

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
        return self.headed(AutoModelForMultipleChoice, "multiple choice", 1, pretrained)

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
        found = self.vocabulary()
        for split, encoded in self.data.encoded.items():
            raw = self.data.raw[split]
            found |= {
                f"texts of {split}": content_of([fingerprint(raw, column) for column in ("prompt", "candidates")]),
                f"token ids of {split}": fingerprint_of_tokens(encoded, (*TOKEN_INPUTS, "sizes")),
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
            gives="A score for each candidate of a prompt; the softmax over the candidates gives their probabilities.",
            example=EXAMPLE,
        )
