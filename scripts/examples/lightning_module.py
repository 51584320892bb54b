"""Fine-tune a text classifier with PyTorch Lightning: a CSV file with the columns text and label.

    python scripts/examples/lightning_module.py bert-base-uncased train.csv runs/lightning

On several processes: torchrun --nproc_per_node 2 scripts/examples/lightning_module.py ...
"""

import csv
import os
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer

EPOCHS = 3
BATCH_SIZE = 8
LEARNING_RATE = 1e-3


class Classifier(LightningModule):
    """A pretrained encoder with a new head."""

    def __init__(self, name: str, num_labels: int) -> None:
        super().__init__()
        self.model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=num_labels)

    def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        """The loss of a batch."""
        loss: torch.Tensor = self.model(**batch).loss
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE)


def main(name: str, train_file: Path, output_dir: Path) -> None:
    """Train for the epochs above, and save."""
    seed_everything(0)
    with train_file.open(encoding="utf-8", newline="") as stream:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(stream)]
    labels = sorted({label for _, label in rows})
    tokenizer = AutoTokenizer.from_pretrained(name)

    def collate(batch: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
        encoded = tokenizer([text for text, _ in batch], padding=True, truncation=True, return_tensors="pt")
        return {**encoded, "labels": torch.tensor([labels.index(label) for _, label in batch])}

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = Trainer(
        max_epochs=EPOCHS,
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        default_root_dir=output_dir,
        logger=False,
    )
    module = Classifier(name, len(labels))
    trainer.fit(module, DataLoader(rows, BATCH_SIZE, shuffle=True, collate_fn=collate))  # type: ignore[arg-type]
    if trainer.is_global_zero:
        module.model.save_pretrained(output_dir)
        tokenizer.save_pretrained(output_dir)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
