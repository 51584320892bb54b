"""Runs of Lightning on a tiny BERT, for tests to compare; they may take place in other processes."""

import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BackboneFinetuning
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, DistributedSampler
from transformers import default_data_collator

from nlp_ft.integrations.lightning import LayerwiseUnfreezing, layerwise_optimizer
from tests.integrations.hf_runs import tiny_data, tiny_model, weights_hash


class Classifier(pl.LightningModule):
    """What a user writes, with ours in `configure_optimizers`."""

    def __init__(self, dropout: float = 0.0, strategy: Any = "gradual") -> None:
        super().__init__()
        self.model = tiny_model(dropout=dropout)
        self.strategy = strategy

    def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        loss: torch.Tensor = self.model(**batch).loss
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], number: int) -> None:
        self.log("val_loss", self.model(**batch).loss)
        # Not synchronised on purpose: better from epoch to epoch on the first process, worse on the second.
        self.log("val_score", float(self.current_epoch * (1 - 2 * self.global_rank)))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return layerwise_optimizer(self.model, self.strategy, lr=0.1, optimizer_class=torch.optim.SGD, weight_decay=0.0)


class Peer(Classifier):
    """As the documentation of BackboneFinetuning wants it: the optimizer knows nothing of the backbone at first."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = self.model.bert

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.classifier.parameters(), lr=0.1)


class Watch(pl.Callback):
    """Notes of each update the weights' hash after it, the names that train, and (layer, rate) of each group."""

    def __init__(self) -> None:
        self.hashes: list[str] = []
        self.trainable: list[set[str]] = []
        self.rates: list[list[tuple[int, float]]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *unused: Any) -> None:
        if trainer.global_step == len(self.hashes):
            return
        groups = trainer.optimizers[0].param_groups
        self.hashes.append(weights_hash(module.model))
        self.trainable.append({name for name, parameter in module.model.named_parameters() if parameter.requires_grad})
        self.rates.append([(group.get("layer_id", 0), group["lr"]) for group in groups])


def trained(
    folder: str,
    strategy: Any = "gradual",
    *,
    processes: int = 1,
    accumulation: int = 1,
    dropout: float = 0.0,
    epochs: int = 2,
    peer: bool = False,
    checkpoint: str | None = None,
    **keywords: Any,
) -> dict[str, Any]:
    """Train on 64 rows, 8 an update, in their order, and give what there is to compare."""
    warnings.simplefilter("ignore")
    watch = Watch()
    module = Peer() if peer else Classifier(dropout, strategy)
    ours = LayerwiseUnfreezing(strategy, **keywords)
    data: Any = tiny_data(64)
    # Lightning's own sampler would shuffle.
    order: Any = DistributedSampler(data, processes, int(os.environ.get("RANK", 0)), shuffle=False)
    size = 8 // processes // accumulation
    rows: Any = DataLoader(data, size, sampler=order, collate_fn=default_data_collator)
    trainer = pl.Trainer(
        accelerator="cpu",
        # Processes that disagree would wait for each other for half an hour.
        strategy=DDPStrategy(timeout=timedelta(seconds=60)) if processes > 1 else "auto",
        devices=processes,
        max_epochs=epochs,
        use_distributed_sampler=False,
        accumulate_grad_batches=accumulation,
        callbacks=[BackboneFinetuning(unfreeze_backbone_at_epoch=1) if peer else ours, watch],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, rows, rows, ckpt_path=checkpoint)
    trainer.save_checkpoint(Path(folder) / "last.ckpt")
    return {
        "weights": {name: tensor.clone() for name, tensor in module.model.state_dict().items()},
        "hashes": watch.hashes,
        "trainable": watch.trainable,
        "rates": watch.rates,
        "starts": None if ours.unfreezer is None else ours.unfreezer.state.starts,
    }
