"""What each strategy is worth on one data set: accuracy over several seeds, and what it cost.

Each run is a process of its own. With --per-class, a seed also draws the rows of train that all strategies get. Prints
a table in Markdown; --output gets every figure as JSON and is written anew after each run.

    python scripts/bench/strategies.py recipes/banking77.yaml training.duration=15ep --per-class 10 --output runs/s.json
"""

import argparse
import csv
import json
import random
import resource
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlp_ft.recipe.loader import load_recipe

STRATEGIES: dict[str, list[str]] = {
    "head_only": ["strategy=head_only", "optimizer={lr: 1e-2}"],
    "full": ["strategy=full", "optimizer.layer_decay=1"],
    "llrd": ["strategy=llrd"],
    "gradual": ["strategy=gradual"],
    "lp_ft": ["strategy=lp_ft", "optimizer.layer_decay=1"],
}
"""What is laid over the recipe; its rates, and that of its head, count for all but `head_only`."""


def draw_rows(file: str, label: str, per_class: int, seed: int, target: Path) -> Path:
    """Write so many rows of each class, drawn by the seed."""
    with open(file, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    of_class: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        of_class[row[label]].append(row)
    chosen = [
        row for name in sorted(of_class) for row in random.Random(f"{seed} {name}").sample(of_class[name], per_class)
    ]
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(chosen)
    return target


def run(recipe: str, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """One run: its test scores, seconds of training, and processor seconds of everything."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "nlp_ft", "train", recipe, *overrides, f"output_dir={folder}", "--overwrite"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "model.safetensors").unlink()
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"train_s": summary["train_seconds"], "processor_s": processor_s, **summary["metrics"]["test"]}


def table(runs: Sequence[dict[str, Any]]) -> str:
    """A row a strategy: mean and standard deviation of the accuracy, and the cost."""
    lines = ["| strategy | seeds | test accuracy | processor s | train s |", "|---|---|---|---|---|"]
    for strategy in dict.fromkeys(run["strategy"] for run in runs):
        mine = [run for run in runs if run["strategy"] == strategy]
        accuracy = [100 * run["accuracy"] for run in mine]
        deviation = f" ± {statistics.stdev(accuracy):.2f}" if len(accuracy) > 1 else ""
        processor, train = (statistics.mean(run[key] for run in mine) for key in ("processor_s", "train_s"))
        lines.append(
            f"| {strategy} | {len(mine)} | {statistics.mean(accuracy):.2f}{deviation} | {processor:.0f} | {train:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--per-class", type=int, help="rows of each class of train; all without it")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--output", required=True, metavar="JSON")
    options = parser.parse_args()
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe(options.recipe, options.overrides)
    runs: list[dict[str, Any]] = []
    for seed in options.seeds:
        rows = []
        if options.per_class:
            file = output.parent / f"{output.stem}-{seed}.csv"
            rows = [f"data.train={draw_rows(str(recipe.data.train), recipe.data.label, options.per_class, seed, file)}"]
        for strategy in options.strategies:
            overrides = [*options.overrides, *STRATEGIES[strategy], *rows, f"seed={seed}"]
            result = run(options.recipe, overrides, output.parent / f"{output.stem}-run")
            runs.append({"strategy": strategy, "seed": seed, **result})
            print(json.dumps(runs[-1]), flush=True)
            output.write_text(json.dumps({"settings": vars(options), "runs": runs}, indent=2) + "\n")
    print(table(runs))


if __name__ == "__main__":
    main()
