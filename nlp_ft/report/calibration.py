"""How far the probabilities of a model can be believed: calibration, and what is right among the surest rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

NUM_BINS = 10
MOST_POINTS = 200
SHARES_SHOWN = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)


def calibration(scores: Sequence[float], is_right: Sequence[bool], num_bins: int = NUM_BINS) -> dict[str, Any]:
    """Compare the probability of each prediction with how often such predictions are right.

    The expected calibration error (ECE) is the mean distance between the two over bins of equal width, weighted by
    their rows (Guo et al. 2017, https://arxiv.org/abs/1706.04599). A bin holds the scores above its lower end, up to
    its upper one.

    Args:
        scores: the probability of each prediction, (rows,), in [0, 1].
        is_right: whether each prediction is right, (rows,).
        num_bins: number of bins.

    Returns:
        `ece`, `mean_score`, `share_right`, and `bins`, each with `from`, `to`, `rows`, `mean_score` and `share_right`;
        bins without rows are left out.
    """
    found, right = np.asarray(scores, float), np.asarray(is_right, float)
    places = np.clip(np.ceil(found * num_bins).astype(int) - 1, 0, num_bins - 1)
    bins = []
    for place in range(num_bins):
        inside = places == place
        if inside.any():
            bins.append(
                {
                    "from": place / num_bins,
                    "to": (place + 1) / num_bins,
                    "rows": int(inside.sum()),
                    "mean_score": float(found[inside].mean()),
                    "share_right": float(right[inside].mean()),
                }
            )
    ece = sum(one["rows"] * abs(one["mean_score"] - one["share_right"]) for one in bins) / len(found)
    return {"ece": ece, "mean_score": float(found.mean()), "share_right": float(right.mean()), "bins": bins}


def coverage(scores: Sequence[float], is_right: Sequence[bool]) -> dict[str, list[dict[str, float]]]:
    """Say what share is right if only rows with a high probability are kept, for each share of kept rows.

    One minus this is the risk-coverage curve (El-Yaniv and Wiener 2010, https://jmlr.org/papers/v11/el-yaniv10a.html).
    Rows with the same probability are kept or left out together.

    Args:
        scores: the probability of each prediction, (rows,), in [0, 1].
        is_right: whether each prediction is right, (rows,).

    Returns:
        `points`, at most `MOST_POINTS`, the fewest rows first, each with `kept` (share of the rows), `share_right` (of
        the kept ones) and `min_confidence` (their lowest probability); and `shown`: of the points that keep at least
        each of `SHARES_SHOWN`, those that keep the fewest.
    """
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    ordered = np.asarray(scores, float)[order]
    right = np.asarray(is_right, float)[order].cumsum()
    ends = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    points = [
        {
            "kept": float((end + 1) / len(ordered)),
            "share_right": float(right[end] / (end + 1)),
            "min_confidence": float(ordered[end]),
        }
        for end in ends
    ]
    shown = [next(point for point in points if point["kept"] >= share) for share in SHARES_SHOWN]
    drawn = np.unique(np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).round().astype(int))
    return {
        "points": [points[place] for place in drawn],
        "shown": [point for place, point in enumerate(shown) if point not in shown[:place]],
    }
