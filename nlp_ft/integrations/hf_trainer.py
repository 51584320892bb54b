"""The Hugging Face Trainer with layer-wise learning rates, strategies by name, gradual unfreezing and the true loss.

    trainer = LayerwiseTrainer(strategy="gradual", model=model, args=args, train_dataset=...)

Learning rate, schedule, warm-up and weight decay are those of TrainingArguments.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import EarlyStoppingCallback, SchedulerType, Trainer, TrainerCallback

from nlp_ft.errors import TrainingError
from nlp_ft.integrations.hf_callback import UnfreezeCallback, group_settings_of
from nlp_ft.integrations.hf_loss import TrueLossMixin
from nlp_ft.integrations.strategy import LayerwiseSettings, changes, is_labelled, no_gradient
from nlp_ft.layerwise import LayerMap, UnfreezeSchedule, layerwise_param_groups
from nlp_ft.layerwise.param_groups import Convention

__all__ = ["LayerwiseTrainer", "LayerwiseTrainerMixin", "UnfreezeCallback"]
logger = logging.getLogger(__name__)


class LayerwiseTrainerMixin(TrueLossMixin):
    """Adds layer-wise training to any Trainer class: `class Mine(LayerwiseTrainerMixin, Seq2SeqTrainer): pass`.

    It builds the optimizer over all parameters, with a group for each layer, so layers that unfreeze later have their
    learning rate and their place in every checkpoint. It logs the rate of each layer, computes the true loss if a
    model's loss is a mean over the micro-batch, and skips damaged checkpoints on `train(resume_from_checkpoint=True)`.

    On several processes, all layers that will ever train are trainable while the Trainer wraps the model and are frozen
    afterwards: otherwise DistributedDataParallel would never average the gradients of a layer that unfreezes later. It
    is set to look for layers without gradients, and sends zeros for them.

    Args:
        *args: positional arguments of the Trainer.
        strategy: `full`, `llrd`, `head_only`, `top_layers`, `gradual`, `lp_ft`, `discriminative`, `ulmfit`, or an
            `UnfreezeSchedule`.
        layer_decay: factor on the rate from one block to the next below. For this and the next four arguments, None
            takes the strategy's setting, see `LayerwiseSettings`.
        head_lr: learning rate of the head; None takes 100 x `learning_rate` for a head of one linear layer and 10 x
            for a head of several or for tags, or `learning_rate` where the head trains alone or the convention is not
            `top`.
        convention: how the factors are counted, see `lr_scales`.
        trainable_blocks: number of blocks below the head that train.
        unfreeze: settings of the unfreezing; `{"plateau": {"metric": "eval_loss"}}` waits for evaluations.
        layer_map: the model's layer map; None builds it.
        callbacks: callbacks of the Trainer.
        **kwargs: further keyword arguments of the Trainer.

    Raises:
        LayerMapError: a parameter has no layer.
        UnfreezeError: the strategy does not fit the model or the set-up (DeepSpeed, FSDP, static graph).
        TrainingError: an optimizer or an `UnfreezeCallback` was given, or the Trainer comes before the mixin among the
            bases of a class.
    """

    optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Trainer in cls.__mro__ and cls.__mro__.index(Trainer) < cls.__mro__.index(LayerwiseTrainerMixin):
            raise TrainingError(
                f"{cls.__name__}: LayerwiseTrainerMixin must come before the Trainer, whose methods would hide its "
                f"own: class {cls.__name__}(LayerwiseTrainerMixin, ...)"
            )

    def __init__(
        self,
        *args: Any,
        strategy: str | UnfreezeSchedule = "llrd",
        layer_decay: float | None = None,
        head_lr: float | None = None,
        convention: Convention | None = None,
        trainable_blocks: int | Literal["all"] | None = None,
        unfreeze: Mapping[str, Any] | None = None,
        layer_map: LayerMap | None = None,
        callbacks: list[TrainerCallback] | None = None,
        **kwargs: Any,
    ) -> None:
        if any(isinstance(callback, UnfreezeCallback) for callback in callbacks or []):
            raise TrainingError("a LayerwiseTrainer has an UnfreezeCallback already; name what it trains with strategy")
        self._unfreezing = UnfreezeCallback(
            strategy, trainable_blocks=trainable_blocks, unfreeze=unfreeze, layer_map=layer_map
        )
        self._settings = LayerwiseSettings(strategy, layer_decay, head_lr, convention, trainable_blocks, unfreeze)
        # Callbacks given by position make Python raise a TypeError here, as they should.
        super().__init__(*args, callbacks=[*(callbacks or []), self._unfreezing], **kwargs)  # type: ignore[misc]
        if self.optimizer is not None:
            raise TrainingError(
                "a LayerwiseTrainer builds its own optimizer; leave optimizers out (TrainingArguments.optim names the "
                "class), or keep your Trainer with optimizers=(build_optimizer(model, ...), None) and UnfreezeCallback"
            )
        self._warn_of_skipped_settings()

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer that TrainingArguments names, over the groups of `layerwise_param_groups`.

        Raises:
            TrainingError: the optimizer makes its own groups (GaLore, LOMO, Muon).
        """
        self._unfreezing.bind(self._network)
        # The Trainer wraps the model next.
        self._unfreezing.make_wrappable(self._network)
        if changes(self._unfreezing.schedule) and self.accelerator.ddp_handler is not None:
            self.accelerator.ddp_handler.find_unused_parameters = True
        if self.optimizer is None:
            given = self.optimizer_cls_and_kwargs
            optimizer_class, options, of_loss = self._optimizer_options()
            groups = [*self._param_groups(), *self._loss_groups(of_loss)]
            self.optimizer_cls_and_kwargs = optimizer_class, {**options, "params": groups}
            super().create_optimizer()
            self.optimizer_cls_and_kwargs = given
        assert self.optimizer is not None
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Make the scheduler of TrainingArguments, once the optimizer has a group for each layer.

        Raises:
            TrainingError: another `create_optimizer` made the optimizer, without these groups.
        """
        if self.optimizer is not None and not is_labelled(self.optimizer):
            raise TrainingError(
                f"a create_optimizer of {type(self).__name__} makes an optimizer without groups of layers, so the "
                "rates of the strategy would be lost; take it out, or keep your Trainer with UnfreezeCallback"
            )
        self._unfreezing.asked = group_settings_of(self.optimizer) if self.optimizer is not None else {}
        return super().create_scheduler(num_training_steps, optimizer)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as the Trainer does, but with `resume_from_checkpoint=True` from the last checkpoint that is whole.

        Raises:
            TrainingError: there is no whole checkpoint to resume from.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_whole_checkpoint(Path(str(self.args.output_dir)), self.args.world_size)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the learning rate of each layer together with the loss."""
        if "loss" in logs:
            logs.update(self._unfreezing.logged_rates())
        super().log(logs, *args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute the true loss, see `TrueLossMixin`.

        Raises:
            UnfreezeError: the loss does not depend on anything that trains in this phase.
        """
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = found[0] if return_outputs else found
        if model.training and torch.is_grad_enabled() and isinstance(loss, torch.Tensor) and not loss.requires_grad:
            raise no_gradient(self._network)
        return found

    @property
    def _network(self) -> nn.Module:
        """The model without wrappers."""
        assert self.model is not None
        return self.model

    @property
    def _group_settings(self) -> dict[str, Any]:
        # As in the Trainer, the rate that comes with a class of optimizer goes before learning_rate.
        _, options = self.optimizer_cls_and_kwargs or (None, {})
        lr = options.get("lr", self.args.learning_rate)
        return self._settings.group_settings(self._network, self._unfreezing.layer_map, lr)

    def _param_groups(self) -> list[dict[str, Any]]:
        return layerwise_param_groups(
            self._network,
            self._unfreezing.layer_map,
            weight_decay=self.args.weight_decay,
            **self._group_settings,
        )

    def _optimizer_options(self) -> tuple[type[torch.optim.Optimizer], dict[str, Any], list[nn.Parameter]]:
        """Find the class and the keyword arguments of the optimizer, and parameters outside the model.

        Such parameters belong to a loss: SentenceTransformerTrainer makes groups that include those of its loss.

        Raises:
            TrainingError: the optimizer makes its own groups, or the user gave rates for single parameters.
        """
        network: Any = self._network
        by_transformers = Trainer.get_optimizer_cls_and_kwargs(self.args, network)
        optimizer_class, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(
            self.args, network
        )
        is_optimizer = isinstance(optimizer_class, type) and issubclass(optimizer_class, torch.optim.Optimizer)
        own_groups = {"params", "model", "optimizer_dict"} & options.keys()
        held_groups = [group for key in own_groups for group in options[key]]
        if any("lr" in group for group in held_groups):
            raise TrainingError(
                "learning_rate_mapping sets the rates of parameters, and so does the strategy; leave it out "
                "(head_lr and layer_decay set the rates of layers)"
            )
        is_refused = own_groups & by_transformers[1].keys() or "model" in own_groups or self.optimizer_cls_and_kwargs
        if not is_optimizer or (own_groups and is_refused):
            raise TrainingError(f"optim={self.args.optim} makes its own groups, so layers cannot have their own rates")
        known = {id(parameter) for parameter in network.parameters()}
        held = [parameter for group in held_groups for parameter in group["params"]]
        others = {key: value for key, value in options.items() if key not in own_groups}
        return optimizer_class, others, [parameter for parameter in held if id(parameter) not in known]

    def _loss_groups(self, parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
        """Make the group of a loss's parameters, with the head's learning rate and without weight decay."""
        if not parameters:
            return []
        rate = self._group_settings["head_lr"] or self.args.learning_rate
        labels = {"name": "loss", "layer_id": self._unfreezing.layer_map.head_layer, "stack": "", "lr_scale": 1.0}
        names = [f"loss.{number}" for number in range(len(parameters))]
        rates = {"lr": rate, "initial_lr": rate, "weight_decay": 0.0}
        return [{"params": parameters, **rates, **labels, "param_names": names}]

    def _warn_of_skipped_settings(self) -> None:
        """Warn of settings of the strategy that TrainingArguments override, and of early stopping."""
        if self.args.process_index:
            return
        preset = self._settings.preset
        lr = preset["optimizer"].get("lr", self.args.learning_rate)
        if lr != self.args.learning_rate:
            logger.warning("learning_rate=%g counts, not the %g of the strategy", self.args.learning_rate, lr)
        if "schedule" in preset:
            logger.warning(
                "lr_scheduler_type=%s and warmup_steps count, not the %s of the strategy; linear with warmup_steps=0.1 "
                "comes near it",
                SchedulerType(self.args.lr_scheduler_type).value,
                preset["schedule"]["name"],
            )
        if type(self).get_decay_parameter_names is not Trainer.get_decay_parameter_names:
            logger.warning(
                "get_decay_parameter_names of %s is not read: weight decay is left out for norms and biases alone",
                type(self).__name__,
            )
        stoppers = [
            callback for callback in self.callback_handler.callbacks if isinstance(callback, EarlyStoppingCallback)
        ]
        if stoppers and changes(self._unfreezing.schedule):
            logger.warning(
                "EarlyStoppingCallback knows no phases: the patience of an early one (%d evaluations) may end the run "
                "before the last begins",
                stoppers[0].early_stopping_patience,
            )


class LayerwiseTrainer(LayerwiseTrainerMixin, Trainer):
    """`transformers.Trainer` with layer-wise training; see `LayerwiseTrainerMixin`."""


def last_whole_checkpoint(output_dir: Path, num_processes: int = 1) -> str:
    """Find the last checkpoint that is whole; a Trainer that is killed while writing leaves one that is not.

    Args:
        output_dir: folder of the checkpoints.
        num_processes: number of processes that wrote them.

    Returns:
        Path of the checkpoint.

    Raises:
        TrainingError: there is no whole checkpoint.
    """
    folders = [path for path in output_dir.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for folder in sorted(folders, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        if _is_whole(folder, num_processes):
            return str(folder)
        logger.warning("%s was not written to its end; skipping it", folder)
    raise TrainingError(
        f"no whole checkpoint in {output_dir} to resume from; start a new run without resume_from_checkpoint"
    )


def _is_whole(folder: Path, num_processes: int) -> bool:
    """Whether a checkpoint is whole: the first process writes trainer_state.json last, others their random state."""
    names = ["rng_state.pth"] if num_processes == 1 else [f"rng_state_{rank}.pth" for rank in range(num_processes)]
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((folder / name).exists() for name in names)
