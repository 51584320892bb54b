"""Transfer of a CNN between halves of CIFAR-10: what a strategy is worth with few images, over several seeds.

Torchvision's own ResNet-18 (no stem for small images) is trained from nothing on 5 classes at 32 pixels; its weights
then begin runs on the other 5 classes. A seed draws the images and the order, and initializes the head. Prints a table
in Markdown; `--output` gets every figure as JSON. Every run is one of nlp_ft's.

    python scripts/bench/cnn_transfer.py --data ../shared/data/cifar10 --output runs/cnn-transfer.json
"""

import argparse
import json
import random
import statistics
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.training.run import train

SOURCE = ("airplane", "automobile", "bird", "cat", "deer")
TARGET = ("dog", "frog", "horse", "ship", "truck")
STRATEGIES: dict[str, dict[str, Any]] = {
    "head_only": {"strategy": "head_only", "optimizer": {"lr": 1e-2}},
    "full, one rate": {"strategy": "full", "optimizer": {"lr": 1e-3}},
    "full, differential rates": {"strategy": "full", "optimizer": {"lr": 3e-4, "head_lr": 3e-3}},
    "full, from nothing": {"strategy": "full", "optimizer": {"lr": 1e-3}, "model": {"weights": None}},
}
"""Rates: the best of two or three with 20 images a class of seed 90, scored on other training images, never on test."""
LENGTHS = {20: (15, 25), 100: (10, 50)}
"""Images of a class -> epochs, and images of a batch."""


def write_classes(archive: Path, classes: Sequence[str], folder: Path, count: int | None = None, seed: int = 0) -> str:
    """Unpack so many images of each class, drawn by the seed, as a folder of class folders."""
    with zipfile.ZipFile(archive) as zipped:
        for name in classes:
            members = sorted(member for member in zipped.namelist() if member.startswith(f"{name}/"))
            if count is not None:
                members = random.Random(f"{seed} {name}").sample(members, count)
            for member in members:
                (folder / name).mkdir(parents=True, exist_ok=True)
                (folder / name / Path(member).name).write_bytes(zipped.read(member))
    return str(folder)


def run(
    folder: Path, data: dict[str, Any], length: tuple[int, int], seed: int, changes: dict[str, Any]
) -> dict[str, Any]:
    """One run; what its summary says. The last model is kept: nothing is chosen on the test images."""
    epochs, batch_size = length
    augmentation = {"crop": "random", "crop_padding": 4}
    strategy = {"name": changes["strategy"], "grain": "stage"}
    recipe = {
        "task": "image_classification",
        "data": {"image_size": 32, "resize_size": 32, "augmentation": augmentation, **data},
        "model": {"name": "resnet18", **changes.get("model", {})},
        "strategy": strategy,
        "optimizer": {"weight_decay": 0.05, **changes["optimizer"]},
        "schedule": {"name": "cosine"},
        "training": {"duration": f"{epochs}ep", "per_device_batch_size": batch_size, "checkpoint_every": f"{epochs}ep"},
        "seed": seed,
        "output_dir": str(folder),
    }
    return train(recipe_from_dict(recipe), overwrite=True)


def pretrain(archives: Path, work: Path, epochs: int) -> dict[str, Any]:
    """ResNet-18 from nothing on the source classes."""
    data = {
        "train": write_classes(archives / "train.zip", SOURCE, work / "source-train"),
        "test": write_classes(archives / "test.zip", SOURCE, work / "source-test"),
    }
    return run(work / "pretrained", data, (epochs, 50), 0, STRATEGIES["full, from nothing"])


def transfer(archives: Path, work: Path, seeds: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
    """Every strategy with every number of images and every seed, on the target classes."""
    weights = {"weights": str(work / "pretrained/model.safetensors")}
    test = write_classes(archives / "test.zip", TARGET, work / "target-test")
    results = []
    for count in LENGTHS:
        for seed in seeds:
            few = write_classes(archives / "train.zip", TARGET, work / f"target-{count}-{seed}", count, seed)
            for name in names:
                changes = {"model": weights, **STRATEGIES[name]}
                summary = run(work / "run", {"train": few, "test": test}, LENGTHS[count], seed, changes)
                result = {
                    "strategy": name,
                    "images_per_class": count,
                    "seed": seed,
                    "accuracy": summary["metrics"]["test"]["accuracy"],
                    "train_s": summary["train_seconds"],
                }
                print(json.dumps(result), flush=True)
                results.append(result)
    return results


def table(results: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """A row a strategy; accuracy in percent, mean and standard deviation over the seeds, and mean seconds."""
    header = ["strategy", *(f"{count} a class{what}" for count in LENGTHS for what in (", accuracy", ", s"))]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name in names:
        cells = [name]
        for count in LENGTHS:
            found = [r for r in results if (r["strategy"], r["images_per_class"]) == (name, count)]
            scores = [100 * r["accuracy"] for r in found]
            deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
            cells += [
                f"{statistics.mean(scores):.1f} ± {deviation:.1f}",
                f"{statistics.mean(r['train_s'] for r in found):.0f}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/cifar10"), help="holds train.zip and test.zip"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=list(STRATEGIES), metavar="NAME")
    parser.add_argument("--pretrain-epochs", type=int, default=8)
    parser.add_argument("--output", type=Path, required=True, metavar="JSON")
    options = parser.parse_args()
    work = options.output.with_suffix("")
    pretrained = pretrain(options.data, work, options.pretrain_epochs)
    results = transfer(options.data, work, options.seeds, options.strategies)
    facts = {"accuracy": pretrained["metrics"]["test"]["accuracy"], "train_s": pretrained["train_seconds"]}
    values = {"pretrained": facts, "seeds": options.seeds, "device": pretrained["device"], "results": results}
    options.output.write_text(json.dumps(values, indent=2) + "\n")
    print(
        f"\npretrained on {', '.join(SOURCE)}: {facts['accuracy']:.1%} of their test images, {facts['train_s']:.0f} s\n"
    )
    print(table(results, options.strategies))


if __name__ == "__main__":
    main()
