"""The peer of `against_trainer.py` and `compare_cost.py`: what one writes with transformers.Trainer, without nlp_ft.

Prints one JSON line: accuracy on the test file, and seconds of training. `--unfreeze` is the usual callback, which
makes blocks trainable at a point of the training.

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
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoConfig,
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
    """Frozen blocks from an epoch on, which may be a fraction."""

    def __init__(self, blocks_at_epoch: dict[float, int]) -> None:
        self.blocks_at_epoch = blocks_at_epoch
        self.blocks: int | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Freeze as the step wants it."""
        blocks = self.blocks_at_epoch[max(epoch for epoch in self.blocks_at_epoch if epoch <= state.epoch + 1e-6)]
        if blocks != self.blocks:
            freeze(kwargs["model"], blocks)
            self.blocks = blocks


def decayed(model: Any, lr: float, decay: float) -> list[dict[str, Any]]:
    """Parameter groups with a rate that falls by a factor from each block to the one below."""
    parts = [model.base_model.embeddings, *model.base_model.encoder.layer]
    groups: list[dict[str, Any]] = [
        {"params": [*part.parameters()], "lr": lr * decay ** (len(parts) - 1 - depth)}
        for depth, part in enumerate(parts)
    ]
    placed = {parameter for group in groups for parameter in group["params"]}
    return [*groups, {"params": [p for p in model.parameters() if p not in placed], "lr": lr}]


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
    parser.add_argument("--unfreeze", type=json.loads, default={}, help='frozen blocks by epoch, as {"0": 6, "1.5": 5}')
    parser.add_argument("--layer-decay", type=float, default=1.0)
    parser.add_argument("--lora", type=int, help="rank of the adapters")
    parser.add_argument("--scratch", action="store_true", help="from random weights")
    parser.add_argument("--validation", help="CSV; score it after each epoch and keep the best")
    parser.add_argument("--stop-at", type=float, help="score after each epoch, and stop at this accuracy")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    set_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    train = Dataset.from_csv(options.train)
    label_ids = {label: i for i, label in enumerate(sorted(map(str, train.unique("label"))))}

    def encoded(rows: Dataset) -> Dataset:
        texts = {
            "text": [str(text) for text in rows["text"]],
            "label": [label_ids[str(name)] for name in rows["label"]],
        }
        split = Dataset.from_dict(texts)
        return split.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True)

    if options.scratch:
        config = AutoConfig.from_pretrained(options.model, num_labels=len(label_ids))
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=len(label_ids))
    blocks_at_epoch = {float(epoch): blocks for epoch, blocks in options.unfreeze.items()}
    # An optimizer built by the Trainer would leave out what is frozen when it is made.
    groups = decayed(model, options.lr, options.layer_decay)
    own = torch.optim.AdamW(groups, lr=options.lr, weight_decay=0.01, fused=True)
    if options.lora:
        model = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, r=options.lora, lora_alpha=16))
    else:
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
                eval_strategy="epoch" if options.validation else "no",
                save_strategy="epoch" if options.validation else "no",
                load_best_model_at_end=bool(options.validation),
                metric_for_best_model="accuracy",
                save_only_model=True,
                save_total_limit=1,
                seed=options.seed,
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=encoded(train),
            eval_dataset=encoded(Dataset.from_csv(options.validation or options.test)),
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda p: {"accuracy": float(np.mean(np.argmax(p.predictions, -1) == p.label_ids))},
            optimizers=(own if blocks_at_epoch or options.layer_decay != 1 else None, None),
            callbacks=[Unfreeze(blocks_at_epoch)] if blocks_at_epoch else [],
        )
        if options.stop_at:
            stop.trainer = trainer
            trainer.add_callback(stop)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started - stop.seconds
        scores = trainer.evaluate(encoded(Dataset.from_csv(options.test)))
    print(json.dumps({"accuracy": scores["eval_accuracy"], "accuracies": stop.accuracies, "train_s": seconds}))


if __name__ == "__main__":
    main()
