"""What is a tuned threshold worth? F1 of a run with several labels at 0.5, and at thresholds tuned on validation.

Thresholds are tuned on some rows of one file (means over 30 draws, or all rows) and scored on the rows of another one,
so no threshold is scored on the rows that it was tuned on.

    python scripts/bench/thresholds.py runs/emotions --tune validation.jsonl --score test.jsonl --label labels
"""

import argparse
import json
from pathlib import Path

import numpy as np

import nlp_ft
from nlp_ft.tables import text_table
from nlp_ft.tasks.label_set_metrics import Thresholds, score, tuned

SIZES = (40, 160, 640)
DRAWS = 30
WAYS: tuple[Thresholds, ...] = ("tuned", "tuned_per_label")


def predicted(run: nlp_ft.Run, file: Path, text: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities and the labels as 0 and 1 of the rows of a JSON Lines file, each (rows, labels)."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    scores = [prediction.scores for prediction in run.predict([row[text] for row in rows])]
    names = list(scores[0])
    references = [[int(name in row[label]) for name in names] for row in rows]
    return np.array([[of_row[name] for name in names] for of_row in scores]), np.array(references)


def main() -> None:
    """Print macro and micro F1 for each way to find the threshold, and number of rows that it is tuned on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder of a multi-label classifier")
    parser.add_argument("--tune", type=Path, required=True, help="JSON Lines with rows to tune on")
    parser.add_argument("--score", type=Path, required=True, help="JSON Lines with other rows")
    parser.add_argument("--text", default="text", help="key of the text (default: text)")
    parser.add_argument("--label", default="labels", help="key of the list of labels (default: labels)")
    options = parser.parse_args()
    run = nlp_ft.load(options.run)
    tuning = predicted(run, options.tune, options.text, options.label)
    probabilities, references = predicted(run, options.score, options.text, options.label)

    def f1(thresholds: np.ndarray | float) -> tuple[float, float]:
        found = score(probabilities, (probabilities >= thresholds).astype(int), references)
        return 100 * found["macro_f1"], 100 * found["micro_f1"]

    rows = [["0.5", "", *(f"{value:.1f}" for value in f1(0.5))]]
    generator = np.random.default_rng(0)
    for way in WAYS:
        for size in (*(size for size in SIZES if size < len(tuning[0])), len(tuning[0])):
            draws = DRAWS if size < len(tuning[0]) else 1
            chosen = [generator.permutation(len(tuning[0]))[:size] for _ in range(draws)]
            values = np.array([f1(tuned(way, tuning[0][of_draw], tuning[1][of_draw])) for of_draw in chosen])
            rows.append([way, f"{size:,}", *(f"{value:.1f}" for value in values.mean(0))])
    print(text_table(("threshold", "rows of validation", "macro F1", "micro F1"), rows))


if __name__ == "__main__":
    main()
