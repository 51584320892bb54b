"""A recipe over several seeds: mean and standard deviation of a test metric, and what it cost.

Each run is a process of its own. With --peer, a command that prints one JSON line with `accuracy` and `train_s` takes
turns with ours, so that both meet the same machine; give it several times to try several settings. {seed} is filled in.

    python scripts/bench/seeds.py recipes/banking77.yaml --seeds 0 1 2 --output runs/banking77-seeds.json
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from nlp_ft.recipe.loader import load_recipe


def run_ours(recipe: str, overrides: list[str], seed: int, folder: Path) -> dict[str, Any]:
    """One run of the recipe; what its summary says."""
    command = [sys.executable, "-m", "nlp_ft", "train", recipe, *overrides, f"seed={seed}", f"output_dir={folder}"]
    subprocess.run([*command, "--overwrite"], check=True, stdout=subprocess.DEVNULL)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def run_peer(command: str, seed: int) -> dict[str, Any]:
    """One run of the other command; the JSON line that it prints last."""
    words = shlex.split(command.format(seed=seed))
    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--metric", help="a score of the test split; that by which the recipe chooses its model if left out"
    )
    parser.add_argument("--peer", action="append", default=[], metavar="COMMAND", help="may be given several times")
    parser.add_argument("--output", required=True, metavar="JSON")
    options = parser.parse_args()
    output = Path(options.output)
    ours: list[dict[str, Any]] = []
    peers: list[dict[str, Any]] = []
    for i, seed in enumerate(options.seeds):
        folder = output.parent / f"{output.stem}-seed{seed}"
        summary = run_ours(options.recipe, options.overrides, seed, folder)
        ours.append({"seed": seed, "train_s": summary["train_seconds"], **summary["metrics"]["test"]})
        print(json.dumps({"ours": ours[-1]}), flush=True)
        for command in options.peer[i :: len(options.seeds)]:
            peers.append({"command": command, **run_peer(command, seed)})
            print(json.dumps({"peer": peers[-1]}), flush=True)
    metric = options.metric or load_recipe(options.recipe, options.overrides).training.metric
    scores = [run[metric] for run in ours]
    result = {
        "metric": metric,
        "mean": statistics.mean(scores),
        "standard_deviation": statistics.stdev(scores) if len(scores) > 1 else None,
        "seeds": options.seeds,
        "train_s": statistics.mean(run["train_s"] for run in ours),
        "processors": os.cpu_count() if not hasattr(os, "sched_getaffinity") else len(os.sched_getaffinity(0)),
        "ours": ours,
        "peers": peers,
    }
    output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in ("metric", "mean", "standard_deviation", "train_s")}))


if __name__ == "__main__":
    main()
