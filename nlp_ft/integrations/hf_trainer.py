"""The Hugging Face Trainer with a rate for each layer, every strategy by name, gradual unfreezing, and the true loss.

    trainer = LayerwiseTrainer(strategy="gradual", model=model, args=args, train_dataset=...)

Learning rate, schedule, warm-up and weight decay are those of TrainingArguments.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers import EarlyStoppingCallback, SchedulerType, Trainer, TrainerCallback

from nlp_ft.errors import TrainingError
from nlp_ft.integrations.hf_callback import UnfreezeCallback
from nlp_ft.integrations.strategy import LayerwiseSettings, changes, no_gradient
from nlp_ft.layerwise import LayerMap, UnfreezeSchedule, layerwise_param_groups
from nlp_ft.layerwise.param_groups import Convention

__all__ = ["LayerwiseTrainer", "LayerwiseTrainerMixin", "UnfreezeCallback"]
logger = logging.getLogger(__name__)
# A mixin has no base of its own; for the type checker it is what it will be mixed into.
if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


class LayerwiseTrainerMixin(_Base):
    """Goes before a Trainer class: `class Mine(LayerwiseTrainerMixin, Seq2SeqTrainer): pass`.

    It builds the optimizer over all parameters, a group for each layer, so that what unfreezes later has its rate and
    its place in every checkpoint. It logs the rate of each layer, gives the true loss where a model's loss is a mean
    over its micro-batch, and on `train(resume_from_checkpoint=True)` passes over a checkpoint that is not whole.

    Over several processes all layers that will ever train are trainable while the Trainer wraps the model, and are
    frozen after: DistributedDataParallel would never average the gradients of one that unfreezes later. It is told to
    look for layers without gradients, at the price of sending zeros for them.

    Args:
        *args: of the Trainer.
        strategy: `full`, `llrd`, `head_only`, `top_layers`, `gradual`, `lp_ft`, `discriminative`, `ulmfit`, or an
            `UnfreezeSchedule`.
        layer_decay: in place of the strategy's; so are the next four, see `LayerwiseSettings`.
        head_lr: learning rate of the head.
        convention: how the factors are counted.
        trainable_blocks: blocks below the head that train.
        unfreeze: which layers unfreeze when; `{"plateau": {"metric": "eval_loss"}}` waits for an evaluation.
        layer_map: of the model; None builds it.
        callbacks: of the Trainer.
        **kwargs: of the Trainer.

    Raises:
        LayerMapError: a parameter has no layer.
        UnfreezeError: the strategy does not fit the model or the set-up (DeepSpeed, FSDP, static graph).
        TrainingError: an optimizer was given.
    """

    optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None

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
        self._unfreezing = UnfreezeCallback(
            strategy, trainable_blocks=trainable_blocks, unfreeze=unfreeze, layer_map=layer_map
        )
        self._settings = LayerwiseSettings(strategy, layer_decay, head_lr, convention, trainable_blocks, unfreeze)
        self._loss_is_mean: bool | None = None
        """Whether the model's loss is a mean over its micro-batch, whatever it is told; None until it is tried."""
        # With callbacks by position this is an error of Python's, as it should be.
        super().__init__(*args, callbacks=[*(callbacks or []), self._unfreezing], **kwargs)  # type: ignore[misc]
        if self.optimizer is not None:
            raise TrainingError(
                "a LayerwiseTrainer builds its optimizer; leave optimizers out (TrainingArguments.optim names the "
                "class), or keep your Trainer with optimizers=(build_optimizer(model, ...), None) and UnfreezeCallback"
            )
        self._say_what_counts()

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer of TrainingArguments, over one group for each layer and for decayed or not.

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

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's; True resumes from the last checkpoint that is whole."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_whole_checkpoint(Path(str(self.args.output_dir)), self.args.world_size)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the rate of each layer beside the loss."""
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
        """The loss, divided by the number of labels of the effective batch also where the model divides by its own.

        A Trainer that says how its own loss is scaled (`loss_is_scaled_for_ga`) is believed.

        The Trainer takes any model whose `forward` has keywords for one that divides by `num_items_in_batch`, and so
        multiplies the loss and the gradients of most classifiers by accumulation steps x processes.
        """
        is_told = getattr(self, "loss_is_scaled_for_ga", None) is not None
        if num_items_in_batch is None or is_told or not self._is_mean_loss(inputs, num_items_in_batch):
            found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch=num_items_in_batch)
            self._require_gradient(found[0] if return_outputs else found, model)
            return found
        num_labels = self._count_labels(inputs)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch=None)
        self._require_gradient(loss, model)
        if model.training:
            loss = loss * (num_labels / self._labels_for_each_process(num_items_in_batch))
        return (loss, outputs) if return_outputs else loss

    def _require_gradient(self, loss: Any, model: nn.Module) -> None:
        """Raises: UnfreezeError: nothing that trains in this phase has a part in the loss."""
        if model.training and torch.is_grad_enabled() and isinstance(loss, torch.Tensor) and not loss.requires_grad:
            raise no_gradient(self._network)

    def _labels_for_each_process(self, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
        """What to divide a sum by, so that the mean over processes is the mean over the effective batch."""
        total = torch.as_tensor(num_items_in_batch, device=self.args.device).flatten()[0]
        averaged = self.args.average_tokens_across_devices
        share: torch.Tensor = total / self.accelerator.num_processes if averaged else total * max(1, self.args.n_gpu)
        return share

    def _count_labels(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        labels = inputs["labels"][..., 1:] if getattr(self, "_loss_shifts_labels", False) else inputs["labels"]
        count: torch.Tensor = labels.ne(-100).sum()
        return count

    def _is_mean_loss(self, inputs: Mapping[str, Any], num_items_in_batch: torch.Tensor | int) -> bool:
        """Whether the model's loss stays the same when it is told twice as many items; tried once."""
        if self.compute_loss_func is not None or self.label_smoother is not None:
            return False
        times = self.args.gradient_accumulation_steps * max(self.accelerator.num_processes, self.args.n_gpu)
        if self._loss_is_mean is None and times > 1:
            self._loss_is_mean = self._try_loss(inputs, num_items_in_batch)
            if self._loss_is_mean and self.args.process_index == 0:
                logger.warning(
                    "%s divides its loss by the labels of a micro-batch, which the Trainer does not expect: loss and "
                    "gradients would be up to %d times too large; each micro-batch counts by its labels instead",
                    type(self.model).__name__,
                    times,
                )
        return bool(self._loss_is_mean)

    def _try_loss(self, inputs: Mapping[str, Any], num_items_in_batch: torch.Tensor | int) -> bool:
        network = self._network
        was_training = network.training
        network.eval()
        with torch.no_grad(), torch.random.fork_rng():
            told_once: Any = super().compute_loss(network, dict(inputs), num_items_in_batch=num_items_in_batch)
            told_twice: Any = super().compute_loss(network, dict(inputs), num_items_in_batch=num_items_in_batch * 2)
        network.train(was_training)
        told = torch.ne(told_once, told_twice) & torch.isfinite(told_once)
        # One answer for all processes: one whose labels are all ignored sees nothing.
        return not bool(self.accelerator.gather(told.reshape(1).int()).any())

    @property
    def _network(self) -> nn.Module:
        """The bare model."""
        assert self.model is not None
        return self.model

    def _param_groups(self) -> list[dict[str, Any]]:
        return layerwise_param_groups(
            self._network,
            self._unfreezing.layer_map,
            lr=self.args.learning_rate,
            weight_decay=self.args.weight_decay,
            **self._settings.group_settings(),
        )

    def _optimizer_options(self) -> tuple[type[torch.optim.Optimizer], dict[str, Any], list[nn.Parameter]]:
        """Class and keywords of the optimizer, and what it is to hold beside the network: the weights of a loss.

        SentenceTransformerTrainer groups the parameters itself, to have those of its loss among them.
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
                "learning_rate_mapping gives parameters rates of their own, which the strategy does too; leave it out "
                "(head_lr and layer_decay set the rates of layers)"
            )
        is_refused = own_groups & by_transformers[1].keys() or "model" in own_groups or self.optimizer_cls_and_kwargs
        if not is_optimizer or (own_groups and is_refused):
            raise TrainingError(f"optim={self.args.optim} makes its own groups, so that layers can have no rates")
        known = {id(parameter) for parameter in network.parameters()}
        held = [parameter for group in held_groups for parameter in group["params"]]
        others = {key: value for key, value in options.items() if key not in own_groups}
        return optimizer_class, others, [parameter for parameter in held if id(parameter) not in known]

    def _loss_groups(self, parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
        """Parameters of a loss learn as the head does, and without decay."""
        if not parameters:
            return []
        rate = self._settings.group_settings()["head_lr"] or self.args.learning_rate
        labels = {"name": "loss", "layer_id": self._unfreezing.layer_map.head_layer, "stack": "", "lr_scale": 1.0}
        names = [f"loss.{number}" for number in range(len(parameters))]
        rates = {"lr": rate, "initial_lr": rate, "weight_decay": 0.0}
        return [{"params": parameters, **rates, **labels, "param_names": names}]

    def _say_what_counts(self) -> None:
        """Name what gives way to TrainingArguments, and what may surprise."""
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
    """`transformers.Trainer`, layer by layer; see `LayerwiseTrainerMixin`."""


def last_whole_checkpoint(output_dir: Path, num_processes: int = 1) -> str:
    """The last checkpoint that was written to its end; a Trainer killed while writing leaves one that was not.

    Raises:
        TrainingError: there is none.
    """
    folders = [path for path in output_dir.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for folder in sorted(folders, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        if _is_whole(folder, num_processes):
            return str(folder)
        logger.warning("%s was not written to its end; passing over it", folder)
    raise TrainingError(
        f"no whole checkpoint in {output_dir} to resume from; begin anew without resume_from_checkpoint"
    )


def _is_whole(folder: Path, num_processes: int) -> bool:
    """The first process writes trainer_state.json last; the others write only their random state."""
    names = ["rng_state.pth"] if num_processes == 1 else [f"rng_state_{rank}.pth" for rank in range(num_processes)]
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((folder / name).exists() for name in names)
