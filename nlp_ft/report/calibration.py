"""How far the probabilities of a model can be believed: reliability in bins, and the expected calibration error."""

from collections.abc import Sequence
from typing import Any

import numpy as np

NUM_BINS = 10


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
