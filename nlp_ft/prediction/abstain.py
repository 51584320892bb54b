"""Abstaining: a prediction whose probability is below `--min-confidence` is left out."""

from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc

from nlp_ft.errors import DataError
from nlp_ft.tasks.outputs import Outputs, Predictions, score_table

SCORE = "predicted_score"
ABSTAINED = "abstained"


def require_confidence(outputs: Outputs) -> None:
    """Check that predictions have a probability. Raises: DataError."""
    if outputs.without_confidence:
        raise DataError(f"--min-confidence: this run {outputs.without_confidence}")


def without_unsure(columns: pyarrow.Table, min_confidence: float) -> pyarrow.Table:
    """Empty the predictions whose `predicted_score` is too low, and say so in a column `abstained`.

    Args:
        columns: what `Outputs.columns` gives; the score and `probability_LABEL` stay.
        min_confidence: the lowest score that is kept, in [0, 1].
    """
    # Not `less`: a score that is no number is not high enough.
    abstained = pc.invert(pc.greater_equal(columns[SCORE], min_confidence))
    kept = {
        name: pc.if_else(abstained, None, values) if name.startswith("predicted_") and name != SCORE else values
        for name, values in zip(columns.column_names, columns.columns, strict=True)
    }
    return pyarrow.table({**kept, ABSTAINED: abstained})


def unsure_line(prediction: Any, min_confidence: float) -> list[str]:
    """Write the line that stands above a prediction that is left out; none above one that is kept."""
    if prediction.score >= min_confidence:
        return []
    return [f"abstains: {prediction.score:.4f} is below {min_confidence:g}"]


def format_kept(predictions: Predictions, min_confidence: float, width: int | None) -> str:
    """Write how many rows are kept, and the scores of these, as a table and a sentence."""
    confidences = predictions.confidences
    assert confidences is not None, "require_confidence was called"
    rows, total = np.flatnonzero(confidences >= min_confidence), len(confidences)
    coverage = f"--min-confidence {min_confidence:g} keeps {len(rows):,} of {total:,} rows ({len(rows) / total:.1%})"
    if not len(rows):
        return coverage
    kept = predictions.kept(rows)
    table = score_table({"kept rows": kept.scores()}, predictions.outputs.shown_metrics, width)
    return f"{table}\n\n{coverage}: {kept.intervals(kept.margins())}"
