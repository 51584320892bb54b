"""Accuracy of choices among candidates, and where the errors are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Gold:
    """The candidates of a row, and the index of the right one."""

    candidates: tuple[str, ...]
    index: int


def score_choices(predicted: np.ndarray, golds: Sequence[Gold]) -> dict[str, float]:
    """Score the indices of predicted candidates, (rows,).

    Returns:
        `accuracy`, the share of rows whose right candidate is predicted; and `above_chance`, how far it is on the way
        from chance (0) to all right (1).
    """
    return scores_of(float(np.mean(predicted == np.array([gold.index for gold in golds]))), golds)


def scores_of(accuracy: float, golds: Sequence[Gold]) -> dict[str, float]:
    """Compute `above_chance` for an accuracy; see `score_choices`."""
    by_chance = chance(golds)
    return {"accuracy": accuracy, "above_chance": (accuracy - by_chance) / (1 - by_chance)}


def chance(golds: Sequence[Gold]) -> float:
    """Compute the accuracy that choosing blindly is expected to have."""
    return float(np.mean([1 / len(gold.candidates) for gold in golds]))


def num_candidates(gold: Gold) -> str:
    """Name the number of candidates of a row."""
    return str(len(gold.candidates))


def length_of_right(gold: Gold) -> str:
    """Say how long the right candidate is among the candidates, in characters."""
    lengths = [len(candidate) for candidate in gold.candidates]
    right = lengths.pop(gold.index)
    return "longest" if right > max(lengths) else "shortest" if right < min(lengths) else "between"


def grouped(
    predicted: np.ndarray, golds: Sequence[Gold], group: Callable[[Gold], str]
) -> list[tuple[str, int, float, float]]:
    """Score groups of rows: name, rows, accuracy and above_chance of each, those with most rows first."""
    names = np.array([group(gold) for gold in golds])
    found = []
    for name in np.unique(names):
        rows = np.flatnonzero(names == name).tolist()
        scores = score_choices(predicted[rows], [golds[row] for row in rows])
        found.append((str(name), len(rows), scores["accuracy"], scores["above_chance"]))
    return sorted(found, key=lambda row: -row[1])
