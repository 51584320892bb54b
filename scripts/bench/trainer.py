"""The peer of `against_trainer.py`: what one writes with transformers.Trainer, with nothing of nlp_ft in it.

Prints one JSON line: accuracy on the test file, and seconds of training. `--unfreeze` is the usual callback, which
makes blocks trainable at the beginning of an epoch.

    python scripts/bench/trainer.py --model MODEL --train train.csv --test test.csv --epochs 5 --frozen-blocks 4
"""

import argparse
import json
import tempfile
import time
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)


def freeze(model: Any, blocks: int) -> None:
    """Freeze the embeddings and so many blocks from below; -1 freezes nothing."""
    model.requires_grad_(True)
    if blocks >= 0:
        model.base_model.embeddings.requires_grad_(False)
        for block in model.base_model.encoder.layer[:blocks]:
            block.requires_grad_(False)


class Unfreeze(TrainerCallback):
    """Frozen blocks by epoch; those without an entry keep what they had."""

    def __init__(self, blocks_at_epoch: dict[int, int]) -> None:
        self.blocks_at_epoch = blocks_at_epoch

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Freeze as the epoch wants it."""
        epoch = round(state.epoch)
        if epoch in self.blocks_at_epoch:
            freeze(kwargs["model"], self.blocks_at_epoch[epoch])


class StopAt(TrainerCallback):
    """Score after each epoch, not counting the time it takes, and stop at an accuracy."""

    def __init__(self, accuracy: float) -> None:
        self.accuracy = accuracy
        self.trainer: Any = None
        self.accuracies: list[float] = []
        self.seconds = 0.0

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score."""
        started = time.perf_counter()
        self.accuracies.append(self.trainer.evaluate()["eval_accuracy"])
        control.should_training_stop = self.accuracies[-1] >= self.accuracy
        self.seconds += time.perf_counter() - started


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True, help="CSV with the columns text and label")
    parser.add_argument("--test", required=True)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--sampling", default="random", choices=["random", "group_by_length"])
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--frozen-blocks", type=int, default=-1, help="from below, with the embeddings; -1 for none")
    parser.add_argument("--unfreeze", type=json.loads, default={}, help='frozen blocks by epoch, as {"0": 6, "1": 5}')
    parser.add_argument("--stop-at", type=float, help="score after each epoch, and stop at this accuracy")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    set_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    frames = {"train": Dataset.from_csv(options.train), "test": Dataset.from_csv(options.test)}
    label_ids = {label: i for i, label in enumerate(sorted(map(str, frames["train"].unique("label"))))}

    def encoded(rows: Dataset) -> Dataset:
        texts = {
            "text": [str(text) for text in rows["text"]],
            "label": [label_ids[str(name)] for name in rows["label"]],
        }
        split = Dataset.from_dict(texts)
        return split.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True)

    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=len(label_ids))
    blocks_at_epoch = {int(epoch): blocks for epoch, blocks in options.unfreeze.items()}
    # An optimizer built by the Trainer would leave out what is frozen when it is made.
    own = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.01, fused=True)
    freeze(model, options.frozen_blocks)
    stop = StopAt(options.stop_at or 2)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=options.epochs,
                learning_rate=options.lr,
                warmup_steps=0.1,
                weight_decay=0.01,
                per_device_train_batch_size=options.batch_size,
                per_device_eval_batch_size=64,
                train_sampling_strategy=options.sampling,
                bf16=options.bf16,
                use_cpu=not torch.accelerator.is_available(),
                save_strategy="no",
                seed=options.seed,
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=encoded(frames["train"]),
            eval_dataset=encoded(frames["test"]),
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda p: {"accuracy": float(np.mean(np.argmax(p.predictions, -1) == p.label_ids))},
            optimizers=(own if blocks_at_epoch else None, None),
            callbacks=[Unfreeze(blocks_at_epoch)] if blocks_at_epoch else [],
        )
        if options.stop_at:
            stop.trainer = trainer
            trainer.add_callback(stop)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started - stop.seconds
        scores = trainer.evaluate()
    print(json.dumps({"accuracy": scores["eval_accuracy"], "accuracies": stop.accuracies, "train_s": seconds}))


if __name__ == "__main__":
    main()
