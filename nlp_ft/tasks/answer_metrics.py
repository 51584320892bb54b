"""Exact match and F1 of answers by the definition of SQuAD, and where the errors are.

Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250 (version 1), and Rajpurkar et al. 2018,
https://arxiv.org/abs/1806.03822 (version 2, with questions that have no answer).
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
PUNCTUATION = str.maketrans("", "", string.punctuation)
QUESTION_WORDS = ("how many", "how much", "how", "what", "which", "who", "whom", "whose", "when", "where", "why")
LENGTHS = ((1, "1 word"), (2, "2 words"), (3, "3 words"), (5, "4 to 5 words"), (10, "6 to 10 words"))
"""Most words of an answer in a group -> name of the group."""
NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Gold:
    """A question with its right answers.

    Args:
        question: the question.
        answers: the texts of the answers; none where the context does not answer the question.
        chance_loss: the loss of a model that finds all tokens equally likely.
    """

    question: str
    answers: tuple[str, ...]
    chance_loss: float = 0.0


def normalized(text: str) -> str:
    """Write a text in lower case, without punctuation, articles (a, an, the) and further white space."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(predicted: str, answer: str) -> float:
    """Compare two texts: 1 if they are equal once `normalized`, else 0."""
    return float(normalized(predicted) == normalized(answer))


def token_f1(predicted: str, answer: str, has_unanswerable: bool = False) -> float:
    """Compute the F1 of the words that two texts share.

    Args:
        predicted: the predicted answer.
        answer: a right answer.
        has_unanswerable: whether to score two texts without words as equal, as version 2 of SQuAD does, rather than 0.
    """
    words, expected = normalized(predicted).split(), normalized(answer).split()
    if has_unanswerable and not (words and expected):
        return float(words == expected)
    shared = sum((Counter(words) & Counter(expected)).values())
    return 2 * shared / (len(words) + len(expected)) if shared else 0.0


def row_scores(predicted: Sequence[str], golds: Sequence[Gold]) -> tuple[np.ndarray, np.ndarray]:
    """Compute exact match and F1 of each question, the best over its right answers; both arrays are (rows,).

    Where a question has no answer, version 2 of SQuAD holds for all: an empty prediction is right there.
    """
    has_unanswerable = not all(gold.answers for gold in golds)
    exact, f1 = np.zeros(len(golds)), np.zeros(len(golds))
    for row, (text, gold) in enumerate(zip(predicted, golds, strict=True)):
        answers = [answer for answer in gold.answers if normalized(answer)] if has_unanswerable else gold.answers
        exact[row] = max(exact_match(text, answer) for answer in answers or [""])
        f1[row] = max(token_f1(text, answer, has_unanswerable) for answer in answers or [""])
    return exact, f1


def score_answers(predicted: Sequence[str], golds: Sequence[Gold]) -> dict[str, float]:
    """Compute the scores of SQuAD, as shares of 1.

    Returns:
        `f1` and `exact_match`; where some questions have no answer, also those of the questions with an answer
        (`has_answer_f1`, `has_answer_exact_match`), and `no_answer_accuracy` of those without.
    """
    exact, f1 = row_scores(predicted, golds)
    scores = {"f1": float(f1.mean()), "exact_match": float(exact.mean())}
    has_answer = np.array([bool(gold.answers) for gold in golds])
    if not has_answer.all():
        if has_answer.any():
            scores["has_answer_f1"] = float(f1[has_answer].mean())
            scores["has_answer_exact_match"] = float(exact[has_answer].mean())
        scores["no_answer_accuracy"] = float(exact[~has_answer].mean())
    return scores


def question_word(gold: Gold) -> str:
    """Find the question word that comes first in a question; `other` if it has none of the English ones."""
    words = " ".join(["", *re.findall(r"\w+", gold.question.lower()), ""])
    places = {word: place for word in QUESTION_WORDS if (place := words.find(f" {word} ")) >= 0}
    return min(places, key=lambda word: (places[word], -len(word)), default="other")


def answer_length(gold: Gold) -> str:
    """Name the number of words in the first right answer of a question."""
    if not gold.answers:
        return NO_ANSWER
    num_words = len(gold.answers[0].split())
    return next((name for most, name in LENGTHS if num_words <= most), f"more than {LENGTHS[-1][0]} words")


def grouped(
    predicted: Sequence[str], golds: Sequence[Gold], group: Callable[[Gold], str]
) -> list[tuple[str, int, float, float]]:
    """Score groups of questions: name, questions, exact match and F1 of each, those with most questions first."""
    exact, f1 = row_scores(predicted, golds)
    names = np.array([group(gold) for gold in golds])
    found = [
        (str(name), int((names == name).sum()), float(exact[names == name].mean()), float(f1[names == name].mean()))
        for name in np.unique(names)
    ]
    return sorted(found, key=lambda row: -row[1])


def best_threshold(margins: np.ndarray, f1_of_answer: np.ndarray, f1_of_none: np.ndarray) -> float:
    """Find the threshold on `P(no answer) - P(best answer)` with the highest mean F1.

    Args:
        margins: the difference of each question, (rows,), from -1 to 1.
        f1_of_answer: F1 of each question's best answer, (rows,).
        f1_of_none: F1 of giving no answer, (rows,).

    Returns:
        A threshold: a question whose difference is above it gets no answer. It is in the middle between two
        differences; of equally good ones, the one nearest to 0.
    """
    order = np.argsort(margins, kind="stable")
    ordered = margins[order]
    # After k questions, in the order of the difference: the first k are answered, and the others are not.
    totals = np.concatenate([[0.0], np.cumsum((f1_of_answer - f1_of_none)[order])]) + f1_of_none.sum()
    borders = np.concatenate([[-1.0 - 1e-6], (ordered[:-1] + ordered[1:]) / 2, [1.0]])
    # Between two equal differences there is no border.
    is_border = np.concatenate([[True], ordered[:-1] < ordered[1:], [True]])
    best = is_border & np.isclose(totals, totals[is_border].max())
    return float(min(borders[best], key=abs))
