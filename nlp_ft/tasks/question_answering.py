"""Question answering: the part of a context that answers a question, or that there is none."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForQuestionAnswering, PreTrainedModel

from nlp_ft.data.batch import TOKEN_INPUTS
from nlp_ft.data.columns import content_of, fingerprint
from nlp_ft.data.question_report import describe_questions, format_question_report
from nlp_ft.data.question_windows import QuestionCollator, QuestionData, load_question_data
from nlp_ft.data.questions import load_question_splits
from nlp_ft.data.splits import progress_bars
from nlp_ft.errors import ModelError
from nlp_ft.recipe import QuestionRecipe
from nlp_ft.tasks.answer_baselines import score_baselines
from nlp_ft.tasks.answers import AnswerOutputs
from nlp_ft.tasks.encoder_task import EncoderTask, fingerprint_of_tokens, save_tokenizer
from nlp_ft.tasks.losses import SpanLoss
from nlp_ft.tasks.task import Card

EXAMPLE = """\
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

folder = "PATH/TO/THIS/FOLDER"
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForQuestionAnswering.from_pretrained(folder)
question, context = "Who wrote it?", "Ada Lovelace wrote it in 1843."
encoded = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
offsets = encoded.pop("offset_mapping")[0].tolist()
start, end = (logits[0] for logits in model(**encoded).to_tuple()[:2])
in_context = [i for i, part in enumerate(encoded.sequence_ids(0)) if part == 1]
first, last = max(
    ((i, j) for i in in_context for j in in_context if i <= j < i + {most}),
    key=lambda span: (start[span[0]] + end[span[1]]).item(),
)
print(context[offsets[first][0] : offsets[last][1]])"""
"""How to use a saved model in plain Transformers, which has no pipeline for it since 5.3: windows are left out here."""


class QuestionAnswering(EncoderTask):
    """Learns which part of a context answers a question. See `Task`."""

    inputs = "questions"
    example_input = '"a question" "a text that holds the answer"'

    recipe: QuestionRecipe

    @cached_property
    def data(self) -> QuestionData:
        """The tokenized splits. Raises: NlpFtError."""
        return load_question_data(self.recipe.data, self.tokenizer, self.recipe.seed)

    @staticmethod
    def outputs_of(model: PreTrainedModel) -> AnswerOutputs:
        """Interpret the outputs of a trained model by the threshold in its configuration. Raises: ModelError."""
        threshold = getattr(model.config, "no_answer_threshold", None)
        most = getattr(model.config, "max_answer_length", None)
        if threshold is not None and (type(threshold) not in (int, float) or not -2 <= threshold <= 2):
            raise ModelError(f"config.json: no_answer_threshold must be null or in [-2, 2], got {threshold!r}")
        if type(most) is not int or most < 1:
            raise ModelError(f"config.json: max_answer_length must be a whole number of 1 or more, got {most!r}")
        return AnswerOutputs(threshold, most)

    @property
    def outputs(self) -> AnswerOutputs:
        """Interpret the outputs of the model; if train has questions without answer, a threshold decides on them."""
        may_be_none = not self.data.labels("train").all()
        return AnswerOutputs(0.0 if may_be_none else None, self.recipe.data.max_answer_length, tunes=may_be_none)

    def label_counts(self) -> dict[str, int]:
        """Count the questions of train, with and without answer."""
        with progress_bars(False):
            rows = load_question_splits(self.recipe.data, self.recipe.seed)["train"]
        with_answer = sum(bool(answers) for answers in rows["answers"])
        return {"answer": with_answer, "no answer": len(rows) - with_answer}

    def num_rows(self) -> int:
        """Count the raw rows of train."""
        return sum(self.label_counts().values())

    def label_names(self) -> list[str]:
        """Name the two outputs of each token."""
        return ["start", "end"]

    def build_model(self, label_names: Sequence[str], pretrained: bool = True) -> PreTrainedModel:
        """Build the encoder with Transformers' own head for question answering. Raises: ModelError."""
        return self.headed(AutoModelForQuestionAnswering, "question answering", 2, pretrained)

    def make_loss(self) -> SpanLoss:
        """Make the mean of the cross-entropies of start and end."""
        return SpanLoss()

    def collator(self, training: bool) -> QuestionCollator:
        """Make the collator that pads each window to the longest of its batch; training changes nothing at random."""
        return QuestionCollator(self.tokenizer)

    def describe_data(self) -> dict[str, Any]:
        """Describe questions, contexts, windows and answers of each split."""
        return describe_questions(self.data)

    def format_report(self, report: dict[str, Any]) -> str:
        """Write the data report as tables."""
        return format_question_report(report)

    def identity(self) -> dict[str, str]:
        """Fingerprint the texts, token ids and answers of each split, and the vocabulary."""
        found = self.vocabulary()
        for split, encoded in self.data.encoded.items():
            raw = self.data.raw[split]
            found |= {
                f"texts of {split}": content_of([fingerprint(raw, column) for column in ("question", "context")]),
                f"token ids of {split}": fingerprint_of_tokens(encoded, TOKEN_INPUTS),
                f"answers of {split}": content_of([repr(raw["answers"][:]), repr(raw["starts"][:])]),
                f"labels of {split}": fingerprint(encoded, "labels"),
            }
        return found

    def score_baselines(self) -> dict[str, dict[str, dict[str, float]]]:
        """Score the first sentence, and the sentence that is nearest to the question by TF-IDF."""
        raw = self.data.raw
        has_unanswerable = not np.all(self.data.labels("train"))
        return {split: score_baselines(rows, has_unanswerable) for split, rows in raw.items() if split != "train"}

    def save_preprocessor(self, folder: Path) -> None:
        """Save the tokenizer, with the length of a window."""
        save_tokenizer(self.tokenizer, folder, self.recipe.data.max_length)

    def card(self, model: PreTrainedModel) -> Card:
        """Describe the model for the model card."""
        threshold = getattr(model.config, "no_answer_threshold", None)
        gives = "The part of a context that answers a question."
        if threshold is not None:
            gives += (
                " There is no answer where P(no answer) - P(best answer) is above `no_answer_threshold` "
                f"({threshold:.4f}) of config.json."
            )
        return Card(
            title=f"Question answerer fine-tuned from {self.recipe.model.name}",
            pipeline_tag="question-answering",
            gives=gives,
            example=EXAMPLE.replace("{most}", str(self.recipe.data.max_answer_length)),
        )
