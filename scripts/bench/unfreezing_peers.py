"""Do two processes stay equal when layers unfreeze? The largest difference of a weight between them after each epoch.

A small BERT with random weights, its encoder frozen in the first of four epochs; SGD, rate 0.1. What is compared:
`requires_grad` flipped under DistributedDataParallel, Lightning's own BackboneFinetuning, and the three ways of nlp_ft.
Prints a table, or with --json one line.

    torchrun --nproc_per_node 2 scripts/bench/unfreezing_peers.py
"""

import argparse
import json
import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler
from transformers import AutoConfig, AutoModelForSequenceClassification, TrainerCallback, TrainingArguments

from nlp_ft.integrations.hf_trainer import LayerwiseTrainer
from nlp_ft.integrations.lightning import LayerwiseUnfreezing, layerwise_optimizer
from nlp_ft.layerwise import UnfreezePlan, Unfreezer, UnfreezeSchedule, build_optimizer

EPOCHS = 4
BLOCKS = 2
LR = 0.1


def build_model() -> Any:
    """The same on every process and for every method."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": BLOCKS, "num_attention_heads": 2}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = AutoConfig.for_model("bert", vocab_size=100, num_labels=3, **sizes, **no_dropout)
    return AutoModelForSequenceClassification.from_config(config)


def build_data() -> Any:
    """64 rows of 8 tokens."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 100, (64, 8), generator=generator)
    labels = torch.randint(3, (64,), generator=generator)
    return [{"input_ids": row, "labels": label} for row, label in zip(tokens, labels)]


def batches() -> Any:
    """8 rows an update, half of them on each process."""
    data = build_data()
    return DataLoader(data, 4, sampler=DistributedSampler(data, shuffle=False))


def difference(model: nn.Module) -> float:
    """The largest difference of a weight between the processes."""
    largest = torch.zeros(())
    for parameter in model.parameters():
        first = parameter.detach().clone()
        distributed.broadcast(first, 0)
        largest = torch.maximum(largest, (parameter.detach() - first).abs().max())
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return largest.item()


def plan(steps_per_epoch: int) -> UnfreezePlan:
    """The encoder unfreezes after the first epoch."""
    schedule = UnfreezeSchedule.parse(f"head: 0ep, 1-{BLOCKS}: 1ep, embeddings: 1ep", BLOCKS)
    return UnfreezePlan(schedule, EPOCHS * steps_per_epoch, steps_per_epoch)


def run_loop(model: Any, optimizer: torch.optim.Optimizer, before_step: Callable[[int, Any], Any]) -> list[float]:
    """A plain loop; `before_step` may give another wrapper."""
    wrapped, loader, differences = DistributedDataParallel(model), batches(), []
    for epoch in range(EPOCHS):
        for number, batch in enumerate(loader):
            wrapped = before_step(epoch * len(loader) + number, wrapped)
            wrapped(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        differences.append(difference(model))
    return differences


def naive_flip() -> list[float]:
    """Frozen, wrapped, and unfrozen by `requires_grad` when its time has come."""
    model = build_model()
    model.bert.requires_grad_(False)

    def flip(step: int, wrapped: nn.Module) -> nn.Module:
        if step == len(batches()):
            model.requires_grad_(True)
        return wrapped

    return run_loop(model, torch.optim.SGD(model.parameters(), lr=LR), flip)


def plain_loop() -> list[float]:
    """`Unfreezer`, and a new wrapper when it says so."""
    model = build_model()
    optimizer = build_optimizer(model, lr=LR, weight_decay=0.0, layer_decay=1.0, optimizer_class=torch.optim.SGD)
    unfreezer = Unfreezer(model, optimizer, plan(len(batches())))
    return run_loop(
        model, optimizer, lambda step, old: DistributedDataParallel(model) if unfreezer.begin_step(step) else old
    )


def trainer() -> list[float]:
    """`LayerwiseTrainer`."""
    differences: list[float] = []

    class AfterEpoch(TrainerCallback):
        def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
            differences.append(difference(kwargs["model"]))

    settings: dict[str, Any] = {"report_to": [], "disable_tqdm": True, "log_level": "error", "save_strategy": "no"}
    optimization: dict[str, Any] = {"optim": "sgd", "learning_rate": LR, "lr_scheduler_type": "constant"}
    args = TrainingArguments(
        "runs/unfreezing_peers",
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=4,
        use_cpu=True,
        **settings,
        **optimization,
    )
    LayerwiseTrainer(
        strategy="lp_ft",
        unfreeze={"every": "1ep"},
        layer_decay=1.0,
        head_lr=LR,
        model=build_model(),
        args=args,
        train_dataset=build_data(),
        callbacks=[AfterEpoch()],
    ).train()
    return differences


class Module(pl.LightningModule):
    """As Lightning's documentation of BackboneFinetuning has it."""

    def __init__(self, is_peer: bool) -> None:
        super().__init__()
        self.model = build_model()
        self.backbone = self.model.bert
        self.is_peer = is_peer

    def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        """The loss."""
        loss: torch.Tensor = self.model(**batch).loss
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The head alone, to which BackboneFinetuning adds; or all layers."""
        if self.is_peer:
            return torch.optim.SGD(self.model.classifier.parameters(), lr=LR)
        return layerwise_optimizer(self.model, "full", lr=LR, weight_decay=0.0, optimizer_class=torch.optim.SGD)


def with_lightning(callback: pl.Callback, is_peer: bool) -> list[float]:
    """Lightning under its strategy ddp."""
    differences: list[float] = []

    class AfterEpoch(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            differences.append(difference(pl_module.model))

    silent: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler"),
        False,
    )
    fit = pl.Trainer(
        accelerator="cpu",
        strategy="ddp",
        devices=distributed.get_world_size(),
        max_epochs=EPOCHS,
        callbacks=[callback, AfterEpoch()],
        **silent,
    )
    fit.fit(Module(is_peer), batches())
    return differences


def main() -> None:
    """Run each and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON in place of the table")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    distributed.init_process_group("gloo")
    schedule = plan(1).schedule
    results = {
        "requires_grad flipped under DDP": naive_flip(),
        "Lightning, BackboneFinetuning": with_lightning(BackboneFinetuning(unfreeze_backbone_at_epoch=1), True),
        "nlp_ft, plain loop": plain_loop(),
        "nlp_ft, LayerwiseTrainer": trainer(),
        "nlp_ft, Lightning": with_lightning(LayerwiseUnfreezing(schedule), False),
    }
    if distributed.get_rank() == 0:
        if options.json:
            print(json.dumps(results))
        else:
            for name, differences in results.items():
                print(f"{name:34}", *(f"{value:10.3g}" for value in differences))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
