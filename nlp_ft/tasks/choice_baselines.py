"""Baselines of multiple choice, which need no model: chance, the longest candidate, and the nearest one by TF-IDF."""

from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from sklearn.feature_extraction.text import TfidfVectorizer

from nlp_ft.tasks.choice_metrics import Gold, chance, score_choices, scores_of


def score_baselines(choices: Dataset, train: Dataset) -> dict[str, dict[str, float]]:
    """Score the baselines on one split.

    Args:
        choices: rows with the columns of `nlp_ft.data.choices.rows.SCHEMA`.
        train: the rows of train, whose words are weighted.

    Returns:
        Baseline -> metric -> value.
    """
    golds = golds_of(choices)
    longest = [int(np.argmax([len(candidate) for candidate in gold.candidates])) for gold in golds]
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\w+")  # noqa: S106  # no password
    try:
        words.fit([*train["prompt"], *(candidate for of_row in train["candidates"] for candidate in of_row)])
        near = nearest(words, list(choices["prompt"]), golds)
    except ValueError:
        near = np.zeros(len(golds), int)  # train has no word, and no candidate is nearer than another
    return {
        "chance": scores_of(chance(golds), golds),
        "longest_candidate": score_choices(np.array(longest), golds),
        "tfidf_candidate": score_choices(near, golds),
    }


def golds_of(choices: Dataset) -> list[Gold]:
    """List candidates and label of each row."""
    return [Gold(tuple(row["candidates"]), row["label"]) for row in choices]


def nearest(words: TfidfVectorizer, prompts: Sequence[str], golds: Sequence[Gold]) -> np.ndarray:
    """Find for each prompt the candidate that is nearest to it, the first of equally near ones; indices, (rows,)."""
    asked = words.transform(prompts)
    candidates = words.transform([candidate for gold in golds for candidate in gold.candidates])
    ends = np.cumsum([len(gold.candidates) for gold in golds])
    return np.array(
        [
            int((candidates[start:end] @ asked[row].T).toarray().argmax())
            for row, (start, end) in enumerate(zip([0, *ends], ends))
        ]
    )
