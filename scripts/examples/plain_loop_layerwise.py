"""Fine-tune a text classifier in a plain PyTorch loop: a CSV file with the columns text and label.

    python scripts/examples/plain_loop.py bert-base-uncased train.csv runs/plain

On several processes: torchrun --nproc_per_node 2 scripts/examples/plain_loop.py ...
"""

import csv
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

from nlp_ft.layerwise import Unfreezer, build_optimizer

EPOCHS = 3
BATCH_SIZE = 8
LEARNING_RATE = 1e-3

Row = tuple[str, str]


def read(file: Path) -> list[Row]:
    """Texts and labels."""
    with file.open(encoding="utf-8", newline="") as stream:
        return [(row["text"], row["label"]) for row in csv.DictReader(stream)]


def wrap(model: nn.Module) -> nn.Module:
    """The model as the processes share it; itself where there is one."""
    return DistributedDataParallel(model) if distributed.is_initialized() else model


def main(name: str, train_file: Path, output_dir: Path) -> None:
    """Train for the epochs above, and save."""
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")
    torch.manual_seed(0)
    rows = read(train_file)
    labels = sorted({label for _, label in rows})
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=len(labels))

    def collate(batch: list[Row]) -> dict[str, torch.Tensor]:
        encoded = tokenizer([text for text, _ in batch], padding=True, truncation=True, return_tensors="pt")
        return {**encoded, "labels": torch.tensor([labels.index(label) for _, label in batch])}

    data: Any = rows  # a list is data set enough
    sampler: Any = DistributedSampler(data) if distributed.is_initialized() else RandomSampler(data)
    batches: DataLoader[Row] = DataLoader(data, BATCH_SIZE, sampler=sampler, collate_fn=collate)
    total_steps = EPOCHS * len(batches)
    optimizer = build_optimizer(model, lr=LEARNING_RATE, layer_decay=0.9)
    unfreezer = Unfreezer.gradual(model, optimizer, total_steps)
    scheduler = get_linear_schedule_with_warmup(optimizer, 0, total_steps)
    wrapped = wrap(model)
    model.train()
    for step in range(total_steps):
        epoch, batch_number = divmod(step, len(batches))
        if batch_number == 0:
            if distributed.is_initialized():
                sampler.set_epoch(epoch)
            iterator = iter(batches)
        wrapped = wrap(model) if unfreezer.begin_step(step) else wrapped
        loss = wrapped(**next(iterator)).loss
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        print(f"step {step + 1} of {total_steps}: loss {loss.item():.4f}")
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        model.save_pretrained(output_dir)
        tokenizer.save_pretrained(output_dir)
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
