"""Runs of the Hugging Face Trainer on a tiny BERT, for tests to compare; they may take place in other processes."""

import atexit
import gc
import hashlib
import os
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from nlp_ft.integrations.hf_trainer import LayerwiseTrainer
from tests.tiny import tiny_config

# The Trainer collects garbage as it begins, which takes half a second for what the imports above brought.
gc.freeze()
atexit.register(gc.unfreeze)

NUM_BLOCKS = 3
HEAD = NUM_BLOCKS + 1


def tiny_model(model_type: str = "bert", dropout: float = 0.0, **changes: object) -> Any:
    """A PreTrainedModel of three blocks and three classes, with the same random weights each time."""
    settings: dict[str, object] = {"num_labels": 3, **changes}
    if model_type == "bert":
        settings |= {"num_hidden_layers": NUM_BLOCKS}
        settings |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(tiny_config(model_type, **settings))


def tiny_data(rows: int = 32, labels: int = 3) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "input_ids": torch.randint(5, 19, (8,), generator=generator),
            "attention_mask": torch.ones(8, dtype=torch.long),
            "labels": int(torch.randint(labels, (1,), generator=generator)),
        }
        for _ in range(rows)
    ]


def arguments(folder: Path | str, **changes: Any) -> TrainingArguments:
    """Two epochs of 8 rows an update, without a word."""
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
    }
    return TrainingArguments(**{**settings, **changes})


def phase_starts(trainer: Trainer) -> list[int]:
    """The steps at which phases began, as the Trainer's state keeps them."""
    callbacks: Any = trainer.state.stateful_callbacks
    return list(callbacks["nlp_ft_unfreezing"]["attributes"]["starts"])


def weights_hash(model: torch.nn.Module) -> str:
    """Of all weights and buffers."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Watch(TrainerCallback):
    """Notes of each update the weights' hash after it, what trains, and (layer, rate) of each group."""

    def __init__(self) -> None:
        self.hashes: list[str] = []
        self.trainable: list[set[str]] = []
        self.rates: list[list[tuple[int, float]]] = []

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        groups = enumerate(kwargs["optimizer"].param_groups)
        self.rates.append([(group.get("layer_id", number), group["lr"]) for number, group in groups])

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        self.hashes.append(weights_hash(model))
        self.trainable.append({name for name, parameter in model.named_parameters() if parameter.requires_grad})


class KillAt(TrainerCallback):
    """Ends the process with signal 9 after so many updates, once what belongs to the update is saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save(self, *args: Any, **kwargs: Any) -> None:
        if args[1].global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        if args[1].global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def losses(trainer: Trainer) -> list[tuple[float, float]]:
    """(loss, norm of the gradient) of each update."""
    return [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]


def trained(
    folder: str,
    strategy: Any = "gradual",
    *,
    rows: int = 32,
    changes: Mapping[str, Any] | None = None,
    model: Callable[[], PreTrainedModel] = tiny_model,
    before: Callable[[torch.nn.Module], object] | None = None,
    trainer_class: type[Trainer] = LayerwiseTrainer,
    **keywords: Any,
) -> dict[str, Any]:
    """Train and give what there is to compare."""
    watch, network = Watch(), model()
    if before is not None:
        before(network)
    if issubclass(trainer_class, LayerwiseTrainer):
        keywords["strategy"] = strategy
    # A partial is one that is made here, in the process that uses it.
    given = [callback() if isinstance(callback, partial) else callback for callback in keywords.pop("callbacks", [])]
    trainer = trainer_class(
        model=network,
        args=arguments(folder, **(changes or {})),
        train_dataset=tiny_data(rows),
        callbacks=[*given, watch],
        **keywords,
    )
    trainer.train()
    return {
        "weights": {name: tensor.clone() for name, tensor in network.state_dict().items()},
        "hashes": watch.hashes,
        "trainable": watch.trainable,
        "rates": watch.rates,
        "losses": losses(trainer),
        "is_wrapped": isinstance(trainer.model_wrapped, DistributedDataParallel),
    }
