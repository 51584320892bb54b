"""The outputs of question answering: from the logits of windows to the best answers of a question, or to none."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow
import torch
from transformers import PreTrainedModel

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.question_windows import QuestionWindows
from nlp_ft.data.windows import Windows
from nlp_ft.errors import DataError, printable
from nlp_ft.tables import terminal_width, text_table
from nlp_ft.tasks.answer_metrics import (
    NO_ANSWER,
    Gold,
    answer_length,
    best_threshold,
    grouped,
    question_word,
    row_scores,
    score_answers,
)
from nlp_ft.tasks.answer_spans import (
    Answer,
    AnswerPrediction,
    Candidates,
    best_spans,
    by_score,
    characters_of,
    joined_spans,
)
from nlp_ft.tasks.default_outputs import DefaultOutputs
from nlp_ft.tasks.losses import span_losses
from nlp_ft.tasks.metrics import margin_of_share
from nlp_ft.tasks.outputs import write_csv


@dataclass(frozen=True)
class AnswerOutputs(DefaultOutputs):
    """Outputs of question answering: a predicted value is `Candidates`, a reference is `Gold`. See `Outputs`.

    Args:
        threshold: where P(no answer) - P(best answer) is above it, there is no answer; None always answers.
        max_answer_length: most tokens of an answer.
        tunes: whether the threshold is tuned on validation.
    """

    threshold: float | None
    max_answer_length: int
    tunes: bool = False
    shown_metrics: ClassVar[tuple[str, ...]] = (
        "f1",
        "exact_match",
        "has_answer_f1",
        "has_answer_exact_match",
        "no_answer_accuracy",
        "loss",
    )
    correlation: ClassVar[str] = "exact_match"
    progress_metrics: ClassVar[tuple[str, str]] = ("f1", "exact_match")
    without_probabilities: ClassVar[str] = "predicts answers, each with its probability as score"
    numbers_shown: ClassVar[str] = "the probability of each answer"
    table_file: ClassVar[str] = "by_question_word.csv"

    def of_batch(
        self, logits: torch.Tensor, batch: dict[str, torch.Tensor], windows: Windows
    ) -> dict[str, torch.Tensor]:
        """Find the best spans of each window.

        Args:
            logits: (batch, seq_len, 2), of the start and of the end.
            batch: `labels`, (batch, seq_len), and `row`, the number of each window in its split, (batch,).
            windows: the windows of the split.

        Returns:
            `spans`, first character and the one after the last, (batch, n, 2); `scores`, their probabilities, (batch,
            n), 0 for what is no span; `no_answer`, the probability of none, `losses` (NaN where a window has nothing to
            learn) and `chance_losses`, all (batch,).
        """
        assert isinstance(windows, QuestionWindows)
        labels = batch["labels"]
        is_candidate = labels != IGNORED_LABEL
        characters = characters_of(is_candidate, windows.places[batch["row"].tolist()])
        log_shares = logits.double().masked_fill(~is_candidate[..., None], -math.inf).log_softmax(1)
        in_context = characters[..., 0] >= 0
        start, end = log_shares.masked_fill(~in_context[..., None], -math.inf).unbind(-1)
        scores, first, last = best_spans(start, end, self.max_answer_length)
        spans = torch.stack([characters[..., 0].gather(1, first), characters[..., 1].gather(1, last)], -1)
        return {
            "spans": spans,
            "scores": scores.exp(),
            "no_answer": log_shares.sum(-1)[is_candidate & ~in_context].exp(),
            "losses": span_losses(logits.double(), labels),
            "chance_losses": is_candidate.sum(1).double().log(),
        }

    def of_rows(self, kept: dict[str, np.ndarray], windows: Windows) -> dict[str, np.ndarray]:
        """Join the spans of the windows of each question.

        A window says with P(no answer) that the answer is not in this window; that the question has none is as likely
        as in the window where that is least likely.
        """
        assert isinstance(windows, QuestionWindows)
        starts = windows.starts
        questions = windows.questions[windows.rows[starts].tolist()]
        predicted, references = (np.empty(len(starts), object) for _ in range(2))
        losses = np.empty(len(starts))
        for row, (first, last) in enumerate(zip(starts, [*starts[1:], len(windows.rows)])):
            of_row = {key: values[first:last] for key, values in kept.items()}
            answers = joined_spans(of_row["spans"], of_row["scores"], questions["context"][row])
            predicted[row] = Candidates(answers, float(of_row["no_answer"].min()))
            chance = float(of_row["chance_losses"].mean())
            references[row] = Gold(questions["question"][row], tuple(questions["answers"][row]), chance)
            known = of_row["losses"][~np.isnan(of_row["losses"])]
            losses[row] = known.mean() if len(known) else chance
        return {"predicted": predicted, "references": references, "losses": losses}

    def chosen(self, found: Candidates) -> Answer:
        """Choose the answer of a question, or none."""
        if not found.answers or (self.threshold is not None and found.margin > self.threshold):
            return Answer("", found.no_answer)
        return found.answers[0]

    def shown(self, decoded: np.ndarray) -> pyarrow.Array:
        """Write right answers as one text; of predictions, write `answer`, `score`, `start` and `end`."""
        if len(decoded) and isinstance(decoded[0], Gold):
            return pyarrow.array([" | ".join(gold.answers) for gold in decoded], pyarrow.string())
        chosen = [self.chosen(found) for found in decoded]
        return pyarrow.StructArray.from_arrays(
            [
                pyarrow.array([answer.text for answer in chosen], pyarrow.string()),
                pyarrow.array([answer.score for answer in chosen], pyarrow.float32()),
                pyarrow.array([answer.start for answer in chosen], pyarrow.int64()),
                pyarrow.array([answer.end for answer in chosen], pyarrow.int64()),
            ],
            names=["answer", "score", "start", "end"],
        )

    def activate(self, logits: torch.Tensor) -> torch.Tensor:
        """Keep the logits: answers need the texts, too, see `of_rows`."""
        return logits

    def score(self, predicted: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Compute exact match and F1 by the definition of SQuAD, see `score_answers`."""
        return score_answers(self._texts(predicted), list(references))

    def tuned(self, predicted: np.ndarray, references: np.ndarray) -> "AnswerOutputs":
        """Tune the threshold on rows of validation, if the task says so, for the best F1."""
        if not self.tunes:
            return self
        golds = list(references)
        of_answer = row_scores([found.best for found in predicted], golds)[1]
        of_none = row_scores([""] * len(golds), golds)[1]
        margins = np.array([min(found.margin, 1.0) for found in predicted])
        return replace(self, threshold=best_threshold(margins, of_answer, of_none))

    def write_to(self, model: PreTrainedModel) -> None:
        """Save the threshold and the greatest length, which `Task.outputs_of` reads."""
        model.config.no_answer_threshold = self.threshold
        model.config.max_answer_length = self.max_answer_length

    def constant_loss(self, references: np.ndarray) -> float:
        """Compute the loss of a model that finds all tokens of a window equally likely."""
        return float(np.mean([gold.chance_loss for gold in references]))

    def margin(self, metric: str, value: float, num_rows: int) -> float:
        """Estimate it as that of a share, which is a little too wide for F1."""
        if metric == "loss":
            return 0.0
        return margin_of_share(value, num_rows)

    def table(self, predicted: np.ndarray, references: np.ndarray, most: int | None = None) -> str:
        """Show exact match and F1 by question word."""
        rows = grouped(self._texts(predicted), list(references), question_word)[:most]
        cells = [[name, f"{rows:,}", f"{f1:.4f}", f"{exact:.4f}"] for name, rows, exact, f1 in rows]
        return text_table(["question word", "questions", "f1", "exact match"], cells, range(1, 4), terminal_width())

    def write_tables(self, folder: Path, split: str, predicted: np.ndarray, references: np.ndarray) -> None:
        """Write `<split>_by_question_word.csv` and `<split>_by_answer_length.csv`."""
        texts, golds = self._texts(predicted), list(references)
        for name, group in (("question_word", question_word), ("answer_length", answer_length)):
            rows = grouped(texts, golds, group)
            write_csv(folder / f"{split}_by_{name}.csv", [name, "questions", "exact_match", "f1"], rows)

    def prediction(self, activated: Candidates) -> AnswerPrediction:
        """Make the prediction for one question from its row of `of_rows`."""
        best = self.chosen(activated)
        none = [] if self.threshold is None else [Answer("", activated.no_answer)]
        others = sorted((answer for answer in (*activated.answers, *none) if answer != best), key=by_score)
        return AnswerPrediction(best.text, best.score, best.start, best.end, (best, *others))

    def columns(self, activated: np.ndarray, probabilities: bool = False) -> pyarrow.Table:
        """Make `predicted_answer`, `predicted_score`, `predicted_start` and `predicted_end`.

        Raises:
            DataError: `probabilities`, which are for labels.
        """
        if probabilities:
            raise DataError(f"--probabilities: this run {self.without_probabilities}")
        shown = self.shown(activated)
        return pyarrow.table({f"predicted_{name}": shown.field(name) for name in shown.type.names})

    def lines(self, prediction: AnswerPrediction, top_k: int) -> list[str]:
        """Write a line for each of the `top_k` most likely answers, the chosen one first."""
        return [_line(answer) for answer in prediction.answers[:top_k]]

    def _texts(self, predicted: np.ndarray) -> list[str]:
        return [self.chosen(found).text for found in predicted]


def _line(answer: Answer) -> str:
    if answer.start is None:
        return f"{answer.score:.4f}  ({NO_ANSWER})"
    return f"{answer.score:.4f}  {printable(answer.text)}  (characters {answer.start} to {answer.end})"
