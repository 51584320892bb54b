"""Finds the best spans of tokens in windows, and the answers of a question in the spans of its windows."""

import math
from dataclasses import dataclass
from functools import total_ordering

import numpy as np
import torch
from torch.nn import functional as F

from nlp_ft.data.question_windows import PLACES

N_BEST = 20
"""Answers that are kept of each window and of each question."""


@dataclass(frozen=True)
class Answer:
    """A part of a context.

    Args:
        text: the part of the context; empty for `no answer`.
        score: its probability among the answers of its window, in [0, 1].
        start: position of its first character in the context; None for `no answer`.
        end: position after its last character; None for `no answer`.
    """

    text: str
    score: float
    start: int | None = None
    end: int | None = None


@total_ordering
@dataclass(frozen=True, eq=False)
class Candidates:
    """The best answers of a question, the most likely first, and the probability that there is none.

    Two of them are equal if they begin with the same text.
    """

    answers: tuple[Answer, ...]
    no_answer: float

    @property
    def best(self) -> str:
        """The text of the most likely answer."""
        return self.answers[0].text if self.answers else ""

    @property
    def margin(self) -> float:
        """The probability that there is no answer, minus that of the most likely one."""
        return self.no_answer - self.answers[0].score if self.answers else math.inf

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidates) and self.best == other.best

    def __lt__(self, other: "Candidates") -> bool:
        return self.best < other.best

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class AnswerPrediction:
    """The answer to a question.

    Args:
        answer: a part of the context; empty if the context does not answer the question.
        score: its probability, in [0, 1].
        start: position of its first character in the context; None if there is no answer.
        end: position after its last character; None if there is no answer.
        answers: the most likely answers, this one first; `no answer`, an empty text, is among them if the model was
            trained on questions without answer.
    """

    answer: str
    score: float
    start: int | None
    end: int | None
    answers: tuple[Answer, ...]


def best_spans(
    start: torch.Tensor, end: torch.Tensor, max_length: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find the `N_BEST` best spans of each window: the start is not after the end, and few tokens are between.

    Args:
        start: log-probability of each token as the start, (batch, seq_len); minus infinity where none can be.
        end: the same of the end.
        max_length: most tokens of a span.

    Returns:
        Log-probabilities, first tokens and last tokens, each (batch, n), the best first; where there are fewer spans,
        the log-probability is minus infinity.
    """
    width = min(max_length, start.shape[1])
    # For each token, the log-probabilities of the ends of the spans that begin there: (batch, seq_len, width).
    ends = F.pad(end, (0, width - 1), value=-math.inf).unfold(1, width, 1)
    flat = (start[..., None] + ends).flatten(1)
    scores, places = flat.topk(min(N_BEST, flat.shape[1]), 1)
    first = places // width
    return scores, first, (first + places % width).clamp(max=start.shape[1] - 1)


def characters_of(is_candidate: torch.Tensor, places: dict[str, list[list[int]]]) -> torch.Tensor:
    """Lay the characters of the candidate tokens out as the batch is, (batch, seq_len, 2); -1 for other tokens."""
    characters = torch.full((*is_candidate.shape, 2), -1)
    for side, key in enumerate(PLACES):
        flat = [place for of_window in places[key] for place in of_window]
        characters[..., side][is_candidate] = torch.tensor(flat)
    return characters


def joined_spans(spans: np.ndarray, scores: np.ndarray, context: str) -> tuple[Answer, ...]:
    """Join the spans of the windows of a question, without blanks at their ends and each place once."""
    found: dict[tuple[int, int], float] = {}
    # `scores` is 0 for what is no span, and below where windows have fewer spans.
    for (start, end), score in zip(spans[scores > 0].tolist(), scores[scores > 0].tolist()):
        text = context[start:end]
        place = (start + len(text) - len(text.lstrip()), start + len(text.rstrip()))
        if text.strip():
            found[place] = max(score, found.get(place, 0.0))
    answers = [Answer(context[start:end], score, start, end) for (start, end), score in found.items()]
    return tuple(sorted(answers, key=by_score)[:N_BEST])


def by_score(answer: Answer) -> tuple[float, int, int]:
    return -answer.score, answer.start or 0, answer.end or 0
