"""Layer-wise rates and gradual unfreezing in PyTorch Lightning.

    def configure_optimizers(self):                                    # of the LightningModule
        return layerwise_optimizer(self.model, "gradual", lr=2e-5)

    Trainer(callbacks=[LayerwiseUnfreezing("gradual", lr_schedule="linear", warmup="10%")])

On several processes, the model is wrapped in DistributedDataParallel again whenever other layers train, because the
wrapper looks at `requires_grad` only once. The state of the unfreezing is part of Lightning's checkpoints.
"""

import logging
import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nlp_ft.defaults import Convention, ScheduleName
from nlp_ft.errors import UnfreezeError
from nlp_ft.integrations.lightning_setup import HOW_TO_SIGNAL, refuse_setup, steps_between_evaluations
from nlp_ft.integrations.strategy import (
    LayerwiseSettings,
    changes,
    is_labelled,
    layers_that_can_train,
    no_gradient,
    plain_metric,
    restored_state,
    saved_form,
    without_empty_phases,
)
from nlp_ft.layerwise import (
    LayerMap,
    LrSchedule,
    Phase,
    UnfreezePlan,
    Unfreezer,
    UnfreezeSchedule,
    UnfreezeState,
    build_lr_schedule,
    build_optimizer,
)
from nlp_ft.layerwise.checks import check_fits
from nlp_ft.layerwise.unfreezing.triggers import as_duration

__all__ = ["LayerwiseUnfreezing", "layerwise_optimizer"]
logger = logging.getLogger(__name__)


def layerwise_optimizer(
    network: nn.Module,
    strategy: str | UnfreezeSchedule = "llrd",
    *,
    lr: float,
    layer_decay: float | None = None,
    head_lr: float | None = None,
    convention: Convention | None = None,
    **keywords: Any,
) -> torch.optim.Optimizer:
    """Build an optimizer with the learning rates of a strategy, for `configure_optimizers` to return.

    Args:
        network: the part of the LightningModule that has layers; every layer that will ever train must be trainable.
        strategy: name of a strategy, or a schedule, see `LayerwiseSettings`.
        lr: base learning rate.
        layer_decay: factor on the rate from one block to the next below; None takes the strategy's.
        head_lr: learning rate of the head; None takes 100 x `lr` for a head of one linear layer and 10 x `lr` for a
            head of several or for tags, or `lr` where the head trains alone or the convention is not `top`.
        convention: how the factors are counted, see `lr_scales`; None takes the strategy's.
        **keywords: further arguments of `build_optimizer`, such as `weight_decay` and `optimizer_class`.

    Returns:
        The optimizer, AdamW unless `optimizer_class` is given, with a group for each layer.

    Raises:
        LayerMapError: a parameter has no layer.
        UnfreezeError: the strategy is unknown.
    """
    settings = LayerwiseSettings(strategy, layer_decay, head_lr, convention)
    layer_map = keywords.pop("layer_map", None) or LayerMap.from_model(network)
    rates = settings.group_settings(network, layer_map, lr)
    return build_optimizer(network, layer_map=layer_map, **rates, **keywords)


class LayerwiseUnfreezing(Callback):
    """Trains the layers of a strategy in a Lightning Trainer, on one process or with DDP.

    A parameter that is frozen when the fit begins stays frozen. Under `fast_dev_run`, which takes too few steps for
    phases, all layers that will ever train do so from the first step.

    Args:
        strategy: name of a strategy, or a schedule, see `LayerwiseSettings`. A plateau may wait for any logged metric
            (`val_loss`).
        trainable_blocks: see `LayerwiseSettings`.
        unfreeze: see `LayerwiseSettings`.
        network: name of the part of the LightningModule that has layers; "" for the module itself.
        lr_schedule: name of the learning-rate schedule, used in place of a scheduler; None leaves the rates alone.
        warmup: length of the schedule's warm-up, such as `10%`, `100st` or `1ep`.
        layer_map: the network's layer map; None builds it.
    """

    def __init__(
        self,
        strategy: str | UnfreezeSchedule = "gradual",
        *,
        trainable_blocks: int | Literal["all"] | None = None,
        unfreeze: Mapping[str, Any] | None = None,
        network: str = "model",
        lr_schedule: ScheduleName | None = None,
        warmup: str = "0st",
        layer_map: LayerMap | None = None,
    ) -> None:
        self.settings = LayerwiseSettings(strategy, trainable_blocks=trainable_blocks, unfreeze=unfreeze)
        self.unfreezer: Unfreezer | None = None
        self._network_name = network
        self._network: nn.Module | None = None
        self._lr_schedule = lr_schedule
        self._warmup = as_duration(warmup, "warmup")
        if self._warmup.value and lr_schedule is None:
            raise UnfreezeError(f"warmup={warmup} belongs to lr_schedule; give both, or put it into your scheduler")
        self._given_map = layer_map
        self._loaded: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the layers of the network, and make them trainable before Lightning wraps the module.

        Raises:
            LayerMapError: a parameter has no layer.
            UnfreezeError: the strategy does not fit the network or the way it is distributed.
        """
        if stage != "fit":
            return
        try:
            network = pl_module.get_submodule(self._network_name)
        except AttributeError:
            parts = ", ".join(name for name, _ in pl_module.named_children())
            raise UnfreezeError(
                f"network={self._network_name!r} is no part of {type(pl_module).__name__}, whose parts are: {parts}"
            ) from None
        self.layer_map = LayerMap.from_model(network) if self._given_map is None else self._given_map
        check_fits(network, self.layer_map)
        if network is not self._network:
            self._network = network
            self.never = frozenset(name for name, p in network.named_parameters() if not p.requires_grad)
        schedule = self.settings.schedule(self.layer_map.num_layers)
        self.schedule = without_empty_phases(schedule, layers_that_can_train(network, self.layer_map, self.never))
        # Lightning sets it at run time, where types do not see it.
        if getattr(trainer, "fast_dev_run", False):
            self.schedule = UnfreezeSchedule((Phase(self.schedule.layers_ever_trained),), schedule.num_layers)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name not in self.never)
        refuse_setup(trainer, pl_module, self.schedule, self._lr_schedule is not None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the unfreezing, from Lightning's checkpoint if the fit resumes from one.

        Raises:
            LayerMapError: the optimizer lacks parameters of layers that will train.
            UnfreezeError: the length of the run is not known or shorter than the warm-up, there are several optimizers,
                or the strategy does not fit the run, the optimizer or the checkpoint.
        """
        total_steps = trainer.estimated_stepping_batches
        if len(trainer.optimizers) != 1 or math.isinf(total_steps):
            raise UnfreezeError("phases need one optimizer and a run of known length: set max_epochs or max_steps")
        network, optimizer = pl_module.get_submodule(self._network_name), trainer.optimizers[0]
        batches = trainer.num_training_batches
        # As in the Hugging Face Trainer, an epoch of unknown length counts as the whole run.
        per_epoch = int(total_steps) if math.isinf(batches) else math.ceil(batches / trainer.accumulate_grad_batches)
        plan = UnfreezePlan(self.schedule, int(total_steps), per_epoch)
        # The run may be the first part of a longer one, so only a run without evaluations is sure to wait for ever.
        every = steps_between_evaluations(trainer, per_epoch)
        if every is None or every >= total_steps:
            plan.require_signals(None, None, HOW_TO_SIGNAL)
        lr_schedule = self._schedule_over(per_epoch) if self._lr_schedule is not None else None
        warmup = self._warmup.steps(per_epoch, int(total_steps))
        if warmup > total_steps and not getattr(trainer, "fast_dev_run", False):
            raise UnfreezeError(
                f"warmup={self._warmup} lasts {warmup} steps, but the run {total_steps}; make it shorter"
            )
        if lr_schedule is not None and trainer.lr_scheduler_configs:
            raise UnfreezeError(
                "lr_schedule takes the place of a scheduler, but configure_optimizers returns one; return the "
                "optimizer alone, or leave lr_schedule out"
            )
        if lr_schedule is not None and not is_labelled(optimizer):
            raise UnfreezeError("lr_schedule sets a rate for each layer; make the optimizer with layerwise_optimizer")
        is_resumed = trainer.ckpt_path is not None and self._loaded
        if trainer.ckpt_path is not None and trainer.global_step and changes(self.schedule) and not self._loaded:
            raise UnfreezeError(
                f"the checkpoint of step {trainer.global_step} was written without this callback, so it does not say "
                "which phase was running; start a new run from its weights, or resume with the callbacks that wrote it"
            )
        state = restored_state(self._loaded, self.schedule) if is_resumed else UnfreezeState()
        self.unfreezer = Unfreezer(network, optimizer, plan, self.layer_map, lr_schedule, self.never, state)
        self._has_begun = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Freeze and unfreeze the layers that are due before an update, and set the learning rates."""
        assert self.unfreezer is not None
        # Never between the micro-batches of one update, but where a fit resumes there.
        is_first = batch_idx % trainer.accumulate_grad_batches == 0 or not self._has_begun
        self._has_begun = True
        if is_first and self.unfreezer.begin_step(trainer.global_step):
            # Lightning does not change modes, and from_pretrained returns models in eval mode. Frozen layers stay in
            # eval mode all the same.
            pl_module.get_submodule(self._network_name).train()
            rewrap(trainer.strategy, pl_module)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Check that the loss depends on the layers that train. Raises `UnfreezeError` if it does not."""
        if not loss.requires_grad:
            raise no_gradient(pl_module.get_submodule(self._network_name))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the scores of an evaluation during training, averaged over the processes."""
        if self.unfreezer is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        awaited = self.unfreezer.plan.awaited_metric(self.unfreezer.state)
        if awaited is None:
            return
        logged = trainer.callback_metrics
        # A `loss` that the training logs has the plain name of `val_loss`, and does not count beside it.
        scores = {**logged, **{plain_metric(name): logged[name] for name in logged if plain_metric(name) != name}}
        if awaited in scores:
            # Lightning averages a metric over the processes only if it was logged with sync_dist=True.
            scores[awaited] = trainer.strategy.reduce(scores[awaited].detach().clone(), reduce_op="mean")
        self.unfreezer.on_scores(trainer.global_step, {name: float(value) for name, value in scores.items()})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Name the layers of phases that had not begun when the fit ended."""
        assert self.unfreezer is not None
        if (frozen := self.unfreezer.plan.never_trained(self.unfreezer.state)) and trainer.is_global_zero:
            logger.warning(
                "the fit ended in phase %d of %d, so these never trained: %s",
                self.unfreezer.phase + 1,
                len(self.schedule.phases),
                self.schedule.layer_names(frozen),
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the unfreezing, for Lightning's checkpoints."""
        return deepcopy(saved_form(self.unfreezer.state, self.schedule)) if self.unfreezer is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state from a Lightning checkpoint; it is used if a fit starts from that checkpoint."""
        self._loaded = dict(state_dict)

    def _schedule_over(self, steps_per_epoch: int) -> Any:
        assert self._lr_schedule is not None
        name = self._lr_schedule

        def over(num_steps: int) -> LrSchedule:
            return build_lr_schedule(name, num_steps, min(num_steps, self._warmup.steps(steps_per_epoch, num_steps)))

        return over


def rewrap(strategy: Any, module: LightningModule) -> None:
    """Wrap the module in a new DistributedDataParallel; does nothing on one process."""
    if isinstance(strategy.model, DistributedDataParallel):
        strategy.model = module
        strategy.configure_ddp()
