"""Runs on every engine: rows a second from file to file, in turns, and what the engine changes on validation.

Each run is exported for OpenVINO and ONNX Runtime, in float32 and in 8-bit integers, and predicts the rows of its test
file. Where Transformers has a pipeline for it, the pipeline has the same rows, in batches of the best size of a trial.

    python scripts/bench/engines.py runs/quickstart runs/wnut17 --output runs/engines.json
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from prediction import BATCH_SIZES, pipelines, seconds

from nlp_ft.export.export import export_run
from nlp_ft.prediction.predict import Source, load_run, predict_to_file
from nlp_ft.prediction.text_run import TextRun
from nlp_ft.prediction.trained_run import TrainedRun
from nlp_ft.tables import text_table

ENGINES = ("openvino", "onnx")
MOST_LOSS = 100.0
"""No export is refused here: the table shows what it costs."""
TRIAL_SHARE = 8


def exported(folder: Path, place: Path) -> dict[str, dict[str, Any]]:
    """Export a run in every form; name of the form -> how it compares with the original, in `export.json`'s words."""
    found: dict[str, dict[str, Any]] = {}
    for engine in ENGINES:
        for int8 in (False, True):
            name = f"{engine}{' int8' if int8 else ''}"
            check = export_run(folder, place / name, engine, int8=int8, max_loss=MOST_LOSS)
            found[name] = asdict(check)
            print(f"{folder.name}: {name}: {check.changed:.1%} of {check.rows} predictions change", flush=True)
    return found


def enough_rows(file: str, most: int, folder: Path) -> tuple[str, list[str]]:
    """Write at least `most` rows of a CSV or JSON Lines file, in turn; return the file, and its lines of rows."""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    header = lines[:1] if file.endswith(".csv") else []
    rows = list(islice(cycle(lines[len(header) :]), most))
    written = folder / f"rows{Path(file).suffix}"
    written.write_text("\n".join([*header, *rows]) + "\n", encoding="utf-8")
    return str(written), rows


def best_pipeline(run: TrainedRun, file: str) -> tuple[str, Callable[[], Any]] | None:
    """The pipeline of a run on the texts of a file, in its best format and batch size; None if it has none."""
    if (
        not isinstance(run, TextRun)
        or run.recipe.task != "text_classification"
        or not isinstance(run.recipe.data.text, str)
    ):
        return None
    texts = [text for inputs, _ in run.read(Source(file=file)) for text in inputs]
    made, trial = pipelines(run), texts[::TRIAL_SHARE]
    taken = {(name, size): seconds(partial(made[name], trial, size))[0] for name in made for size in BATCH_SIZES}
    name, size = min(taken, key=lambda key: taken[key])
    return f"pipeline at its best ({name}, {size})", partial(made[name], texts, size)


def measure(folder: Path, rows: int, repeats: int, place: Path) -> dict[str, Any]:
    """Compare the engines on one run: `checks` of the exports, and `rows_per_second` of every form in each repeat."""
    checks = exported(folder, place)
    run = load_run(folder)
    data = run.recipe.data
    file, lines = enough_rows(str(data.test or data.validation), rows, place)
    output = str(place / "predictions.jsonl")
    runs = {"torch": run, **{name: load_run(place / name) for name in checks}}
    works: dict[str, Callable[[], Any]] = {
        name: partial(predict_to_file, of, Source(file=file), output) for name, of in runs.items()
    }
    if (best := best_pipeline(run, file)) is not None:
        works |= dict([best])
    speeds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            speeds[name].append(len(lines) / seconds(work)[0])
    return {"task": run.recipe.task, "checks": checks, "rows_per_second": speeds}


def table(found: dict[str, dict[str, Any]]) -> str:
    """Make the table: medians, the largest and smallest, and how each export compares with the run."""
    header = [
        "run",
        "engine",
        "rows a second",
        "x torch",
        "changed",
        "difference",
        "metric",
        "before",
        "after",
        "interval",
    ]
    lines = []
    for run, of_run in found.items():
        torch_speeds = of_run["rows_per_second"]["torch"]
        for name, speeds in of_run["rows_per_second"].items():
            ratio = statistics.median(ours / theirs for ours, theirs in zip(speeds, torch_speeds))
            line = [
                run,
                name,
                f"{statistics.median(speeds):.0f} ({min(speeds):.0f} to {max(speeds):.0f})",
                f"{ratio:.2f}",
            ]
            if check := of_run["checks"].get(name):
                low, high = check["interval"]
                line += [f"{check['changed']:.1%}", f"{check['largest_difference']:.1e}", check["metric"]]
                line += [f"{check['before']:.4f}", f"{check['after']:.4f}", f"{low:+.4f} to {high:+.4f}"]
            lines.append(line + [""] * (len(header) - len(line)))
    return text_table(header, lines)


def main() -> None:
    """Measure each run, print the table, and write every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, with a validation split")
    parser.add_argument("--rows", type=int, default=2000, help="rows to predict, those of the test file in turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", required=True, type=Path, metavar="JSON")
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for folder in options.runs:
        with tempfile.TemporaryDirectory() as place:
            found[folder.name] = measure(folder, options.rows, options.repeats, Path(place))
    print(table(found))
    print(f"{torch.get_num_threads()} thread(s)")
    options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
