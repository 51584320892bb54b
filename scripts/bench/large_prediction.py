"""Many rows predicted with kills in between: whether the bytes are those of an unbroken run, and peak memory.

Trains a small encoder for 100 steps on short texts and predicts CSVs of them: once without a break, then again, where
the process is killed after each so many finished chunks and goes on with --resume. Prints a table in Markdown.

    python scripts/bench/large_prediction.py --rows 100000 1000000 --kills 3 --output runs/large-prediction.json
"""

import argparse
import filecmp
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from large_input import save_encoder, write_csv

TRAIN_ROWS = 2_000


def predict(run: Path, rows: Path, output: Path, chunks: int | None) -> dict[str, float]:
    """Predict in a new process; kill it once so many more chunks are finished.

    Returns:
        The seconds, the peak memory in MB, and the finished chunks at the end: 0 if the process came to its end.
    """
    command = [sys.executable, "-m", "nlp_ft", "predict", str(run), "--file", str(rows), "--output", str(output)]
    started, partial = time.perf_counter(), Path(f"{output}.partial")
    finished = len(list(partial.glob("chunk-*.arrow")))
    process = subprocess.Popen([*command, "--resume", "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    usage = None
    while usage is None:
        time.sleep(0.1)
        if chunks is not None and len(list(partial.glob("chunk-*.arrow"))) >= finished + chunks:
            os.kill(process.pid, signal.SIGKILL)  # `send_signal` would take the exit status, which has the memory
        ended, status, given = os.wait4(process.pid, os.WNOHANG)
        usage = given if ended else None
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(process.stderr.read().decode() if process.stderr else "")
    seconds = time.perf_counter() - started
    return {"s": seconds, "peak_mb": usage.ru_maxrss * 1024 / 1e6, "chunks": len(list(partial.glob("chunk-*.arrow")))}


def measure(folder: Path, rows: int, kills: int) -> dict[str, Any]:
    """Predict a file of so many rows without a break and with kills, and compare the two files."""
    data, whole, broken = (folder / f"{rows}{ending}.csv" for ending in ("", "-whole", "-broken"))
    write_csv(data, rows)
    unbroken = predict(folder / "run", data, whole, None)
    parts = [predict(folder / "run", data, broken, chunks=2) for _ in range(kills)]
    parts.append(predict(folder / "run", data, broken, None))
    return {
        "rows": rows,
        "rows_per_s": rows / unbroken["s"],
        "peak_mb": unbroken["peak_mb"],
        "killed_after_chunks": [part["chunks"] for part in parts[:-1]],
        "peak_mb_resumed": max(part["peak_mb"] for part in parts),
        "same_bytes": filecmp.cmp(whole, broken, shallow=False),
    }


def main() -> None:
    """Train, predict and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--output", required=True, metavar="JSON")
    options = parser.parse_args()
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_encoder(folder / "encoder")
        write_csv(folder / "train.csv", TRAIN_ROWS)
        settings = [f"model.name={folder / 'encoder'}", "training.duration=100st", "baselines=false"]
        paths = [f"data.train={folder / 'train.csv'}", f"output_dir={folder / 'run'}"]
        (folder / "recipe.yaml").write_text("strategy: scratch\n")
        command = [sys.executable, "-m", "nlp_ft", "train", str(folder / "recipe.yaml"), *settings, *paths]
        subprocess.run(command, check=True, capture_output=True)
        print("| rows | rows a second | killed with so many chunks | same bytes | peak memory, MB | resumed |")
        print("|---|---|---|---|---|---|")
        for rows in options.rows:
            run = measure(folder, rows, options.kills)
            found.append(run)
            killed = ", ".join(map(str, run["killed_after_chunks"]))
            same = "yes" if run["same_bytes"] else "NO"
            print(
                f"| {rows:,} | {run['rows_per_s']:,.0f} | {killed} | {same} | {run['peak_mb']:.0f} | "
                f"{run['peak_mb_resumed']:.0f} |",
                flush=True,
            )
            Path(options.output).write_text(json.dumps({"settings": vars(options), "runs": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
