"""STS-B with transformers.Trainer and the stock regression head, with nothing of nlp_ft in it: the peer of stsb.yaml.

Prints one JSON line: Spearman on validation and test, and seconds of training. Choose the rate on validation:

    python scripts/bench/stsb_trainer.py --model MODEL --data ../shared/data/stsb --lr 1e-4 --seed 0
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from datasets import Dataset
from scipy.stats import spearmanr
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="folder of train.csv, validation.csv and test.csv")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    set_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model)

    def encoded(split: str) -> Dataset:
        rows = Dataset.from_csv(str(Path(options.data) / f"{split}.csv")).rename_column("score", "label")
        return rows.map(
            lambda batch: tokenizer(batch["text_a"], batch["text_b"], truncation=True, max_length=128),
            batched=True,
            remove_columns=["text_a", "text_b"],
        )

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=1),
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=options.epochs,
                learning_rate=options.lr,
                warmup_steps=0.1,
                weight_decay=0.01,
                per_device_train_batch_size=options.batch_size,
                per_device_eval_batch_size=64,
                train_sampling_strategy="group_by_length",
                bf16=options.bf16,
                use_cpu=True,
                save_strategy="no",
                seed=options.seed,
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=encoded("train"),
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda p: {"spearman": float(spearmanr(np.ravel(p.predictions), p.label_ids).statistic)},
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        scores = {split: trainer.evaluate(encoded(split))["eval_spearman"] for split in ("validation", "test")}
    settings = {"lr": options.lr, "seed": options.seed}
    print(json.dumps({**settings, "spearman": scores["test"], "validation": scores["validation"], "train_s": seconds}))


if __name__ == "__main__":
    main()
