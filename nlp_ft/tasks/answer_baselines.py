"""Baselines of question answering: sentences of the context, which no model had to be trained for."""

import re

import numpy as np
from datasets import Dataset
from sklearn.feature_extraction.text import TfidfVectorizer

from nlp_ft.tasks.answer_metrics import Gold, score_answers

BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])[\"')\]]*\s+")
"""White space after a full stop, question mark or exclamation mark, with closing quotation marks and brackets."""


def score_baselines(questions: Dataset, has_unanswerable: bool) -> dict[str, dict[str, float]]:
    """Score the baselines on one split.

    Args:
        questions: rows with the columns of `nlp_ft.data.answer_checks.SCHEMA`.
        has_unanswerable: whether to score also that no question has an answer.

    Returns:
        Baseline -> metric -> value.
    """
    golds = [Gold(row["question"], tuple(row["answers"])) for row in questions]
    of_context = {context: sentences(context) for context in set(questions["context"])}
    of_row = [of_context[context] for context in questions["context"]]
    found = {
        "first_sentence": [of_one[0] for of_one in of_row],
        "tfidf_sentence": nearest_sentences(list(questions["question"]), of_row),
        **({"no_answer": [""] * len(golds)} if has_unanswerable else {}),
    }
    return {name: score_answers(predicted, golds) for name, predicted in found.items()}


def sentences(context: str) -> list[str]:
    """Divide a text into sentences; there is always one."""
    found = [sentence.strip() for sentence in BETWEEN_SENTENCES.split(context)]
    return [sentence for sentence in found if sentence] or [context]


def nearest_sentences(questions: list[str], of_row: list[list[str]]) -> list[str]:
    """Find for each question the sentence that shares most words with it, weighted by TF-IDF; the first, if none does.

    Args:
        questions: the questions.
        of_row: the sentences of the context of each.
    """
    flat = [sentence for of_one in of_row for sentence in of_one]
    words = TfidfVectorizer(sublinear_tf=True)
    try:
        vectors = words.fit_transform(flat)
    except ValueError:  # no context has a word of two letters or more
        return [of_one[0] for of_one in of_row]
    asked = words.transform(questions)
    starts = np.concatenate([[0], np.cumsum([len(of_one) for of_one in of_row])])
    return [
        of_one[int((vectors[start:end] @ asked[row].T).toarray().argmax())]
        for row, (of_one, start, end) in enumerate(zip(of_row, starts, starts[1:]))
    ]
