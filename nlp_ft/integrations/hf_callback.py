"""A callback that freezes and unfreezes layers in a Hugging Face Trainer, and logs the learning rate of each layer.

Its state is part of the Trainer's own checkpoints. Every layer that will ever train must be trainable when the Trainer
wraps the model, because DistributedDataParallel looks at `requires_grad` only once.
"""

import logging
from collections.abc import Mapping
from typing import Any, Literal

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from nlp_ft.errors import UnfreezeError, listed
from nlp_ft.integrations.hf_arguments import (
    CHECKPOINTING,
    HOW_TO_SIGNAL,
    first_evaluation,
    refuse_setup,
    schedule_of,
    signals_of,
    steps_per_epoch,
)
from nlp_ft.integrations.strategy import (
    LayerwiseSettings,
    changes,
    freezes,
    is_labelled,
    layers_that_can_train,
    no_gradient,
    plain_metric,
    restored_state,
    saved_form,
    without_empty_phases,
)
from nlp_ft.layerwise import LayerMap, UnfreezePlan, Unfreezer, UnfreezeSchedule, UnfreezeState
from nlp_ft.layerwise.checks import check_fits
from nlp_ft.layerwise.freezing import set_trainable_layers
from nlp_ft.layerwise.lr_schedules import rates_by_name
from nlp_ft.layerwise.unfreezing.phase_table import phase_table_of

logger = logging.getLogger(__name__)
SAVED_AS = "nlp_ft_unfreezing"
"""Key of the callback's state in `trainer_state.json`, among the states of callbacks."""


class UnfreezeCallback(TrainerCallback):
    """Trains the layers of a strategy in any Trainer.

    Give the Trainer a model whose parameters all train; a parameter that is frozen at that time stays frozen. The
    callback leaves the optimizer's learning rates alone: for LLRD, and for strategies that change rates (`lp_ft`), pass
    `optimizers=(build_optimizer(model, ...), None)` to the Trainer, or use `LayerwiseTrainer`.

    Args:
        strategy: name of a strategy, or a schedule, see `LayerwiseSettings`.
        trainable_blocks: see `LayerwiseSettings`.
        unfreeze: see `LayerwiseSettings`.
        layer_map: the model's layer map; None builds it.
    """

    def __init__(
        self,
        strategy: str | UnfreezeSchedule = "gradual",
        *,
        trainable_blocks: int | Literal["all"] | None = None,
        unfreeze: Mapping[str, Any] | None = None,
        layer_map: LayerMap | None = None,
    ) -> None:
        self.settings = LayerwiseSettings(strategy, trainable_blocks=trainable_blocks, unfreeze=unfreeze)
        self.unfreezer: Unfreezer | None = None
        self.rates: dict[str, float] = {}
        """Learning rate of each layer at the current update under the key `lr/LAYER`; 0 while the layer is frozen."""
        self.asked: dict[str, tuple[float, float]] = {}
        """Rate and weight decay of each group as a `LayerwiseTrainer` built them, before a checkpoint was loaded."""
        self._given_map = layer_map
        self._model: nn.Module | None = None
        self._user_gave_scheduler = False
        self._is_training = False
        self._is_new_phase = False
        self._resumed_at = 0

    def bind(self, model: nn.Module) -> None:
        """Find the layers of a model, and the parameters that its user has frozen, unless the model is known already.

        Raises:
            LayerMapError: a parameter has no layer, or the given map is of another model.
            UnfreezeError: the strategy does not fit the model.
        """
        if model is self._model:
            return
        self.layer_map = LayerMap.from_model(model) if self._given_map is None else self._given_map
        check_fits(model, self.layer_map)
        self.never = frozenset(name for name, parameter in model.named_parameters() if not parameter.requires_grad)
        schedule = self.settings.schedule(self.layer_map.num_layers)
        self.schedule = without_empty_phases(schedule, layers_that_can_train(model, self.layer_map, self.never))
        self._model = model

    def make_wrappable(self, model: nn.Module) -> None:
        """Make every layer trainable that will ever train, so that wrappers take it into account."""
        set_trainable_layers(model, self.layer_map, self.schedule.layers_ever_trained, self.never)

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Refuse set-ups that would go wrong, before anything is trained. Raises `UnfreezeError`."""
        self.bind(kwargs["model"])
        self._user_gave_scheduler = kwargs.get("lr_scheduler") is not None
        refuse_setup(args, AcceleratorState().distributed_type, self.schedule)
        if self.never and args.process_index == 0:
            logger.warning(
                "frozen when the Trainer got the model, so they stay frozen: %s", listed(sorted(self.never), 3)
            )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the unfreezing, from the Trainer's checkpoint if it resumes from one.

        Raises:
            LayerMapError: the optimizer lacks parameters of layers that will train.
            UnfreezeError: the strategy does not fit the run, the optimizer or the checkpoint.
        """
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        self.bind(model)
        self._check_checkpointing(model)
        plan = UnfreezePlan(
            self.schedule, state.max_steps, steps_per_epoch(args, kwargs["train_dataloader"], state.max_steps)
        )
        evaluate_from = first_evaluation(args, plan.steps_per_epoch)
        plan.require_signals(*signals_of(args, state, plan.steps_per_epoch), HOW_TO_SIGNAL, evaluate_from)
        moves_rates = plan.moves_rates
        if moves_rates and (self._user_gave_scheduler or not is_labelled(optimizer)):
            raise UnfreezeError(
                "this strategy changes the rates of layers: it needs groups from build_optimizer and the schedule of "
                "TrainingArguments; use LayerwiseTrainer, or optimizers=(build_optimizer(model, ...), None)"
            )
        lr_schedule = schedule_of(args) if moves_rates else None
        self.unfreezer = Unfreezer(
            model, optimizer, plan, self.layer_map, lr_schedule, self.never, self._saved_state(state)
        )
        # The very attributes, not a copy, so that each checkpoint holds their values at its time.
        _saved_states(state)[SAVED_AS] = saved_form(self.unfreezer.state, self.schedule)
        self._is_training, self._resumed_at = True, state.global_step
        if state.global_step and args.process_index == 0:
            self._warn_of_other_rates(optimizer)
        if args.process_index == 0 and len(self.schedule.phases) > 1 and is_labelled(optimizer):
            print(phase_table_of(plan, model, self.layer_map, optimizer.param_groups))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Freeze and unfreeze the layers that are due before an update, and set the learning rates."""
        assert self.unfreezer is not None
        begins = self.unfreezer.begin_step(state.global_step)
        self._is_new_phase = self._is_new_phase or begins
        if begins and args.torch_compile:
            # A graph compiled with frozen layers may be used again after they unfreeze (pytorch #139476).
            torch.compiler.reset()
        self.rates = self._rates(kwargs["optimizer"])

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that gradients have reached the model at the start of a phase.

        Raises:
            UnfreezeError: no trainable parameter of the model has a gradient.
        """
        model = kwargs["model"]
        if self._is_new_phase and all(p.grad is None for p in model.parameters() if p.requires_grad):
            raise no_gradient(model)
        self._is_new_phase = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Record the training loss before a checkpoint, because a resumed run would not know the part before it."""
        may_save = control.should_save or (control.should_evaluate and args.save_strategy == "best")
        if may_save and args.logging_strategy != "no":
            control.should_log = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record the training loss before a checkpoint at the end of an epoch."""
        self.on_step_end(args, state, control)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note the training loss, and add the learning rates to the log history."""
        logs = kwargs["logs"]
        if "loss" not in logs or not self._is_training:
            return
        assert self.unfreezer is not None
        self.unfreezer.on_loss(state.global_step, logs["loss"])
        state.log_history[-1].update(self.logged_rates())

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note the scores of an evaluation during training."""
        if not self._is_training or self.unfreezer is None:
            return
        scores = {plain_metric(name): value for name, value in kwargs["metrics"].items()}
        # With eval_on_start, a resumed training begins with an evaluation that an unbroken one does not have.
        is_repeated = state.global_step > 0 and state.global_step == self._resumed_at
        if is_repeated or self._is_of_another_set(scores):
            return
        # Scores computed from gathered predictions should agree on all processes; those of the first process decide.
        [scores] = broadcast_object_list([scores])
        self.unfreezer.on_scores(state.global_step, scores)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop noting scores, since evaluations after the training decide nothing; name what has never trained."""
        self._is_training = False
        assert self.unfreezer is not None
        frozen = self.unfreezer.plan.never_trained(self.unfreezer.state)
        if frozen and args.process_index == 0:
            logger.warning(
                "the run ended in phase %d of %d, so these never trained: %s",
                self.unfreezer.phase + 1,
                len(self.schedule.phases),
                self.schedule.layer_names(frozen),
            )

    def logged_rates(self) -> dict[str, float]:
        """Return the learning rates to log: one key for each layer, and the head's rate under the Trainer's own key."""
        own = {"learning_rate": next(iter(self.rates.values()))} if self.rates else {}
        return {**own, **self.rates}

    def _is_of_another_set(self, scores: Mapping[str, float]) -> bool:
        """Whether the scores are those of one of several evaluation sets (`eval_long_loss`), without the metric."""
        assert self.unfreezer is not None
        awaited = self.unfreezer.plan.awaited_metric(self.unfreezer.state)
        return awaited is not None and awaited not in scores and "runtime" not in scores

    def _saved_state(self, state: TrainerState) -> UnfreezeState:
        saved = _saved_states(state).get(SAVED_AS)
        if saved is not None:
            return restored_state(saved, self.schedule)
        if state.global_step and changes(self.schedule):
            raise UnfreezeError(
                f"the checkpoint of step {state.global_step} was written without this callback, so it does not "
                "say which phase was running; start a new run, or resume with the Trainer that wrote it"
            )
        return UnfreezeState()

    def _rates(self, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        return {f"lr/{name}": rate for name, rate in rates_by_name(optimizer).items()} if is_labelled(optimizer) else {}

    def _warn_of_other_rates(self, optimizer: torch.optim.Optimizer) -> None:
        found = group_settings_of(optimizer) if self.asked else {}
        changed = [name for name in found if found[name] != self.asked.get(name, found[name])]
        if changed:
            logger.warning(
                "the checkpoint was written with other settings, which count: %s has learning rate %g and weight decay "
                "%g, not %g and %g; to change them, start a new run from its weights",
                changed[0],
                *found[changed[0]],
                *self.asked[changed[0]],
            )

    def _check_checkpointing(self, model: nn.Module) -> None:
        functions = [getattr(module, "_gradient_checkpointing_func", None) for module in model.modules()]
        reentrant = any(getattr(f, "keywords", {}).get("use_reentrant", True) for f in functions if f is not None)
        if reentrant and freezes(self.schedule):
            raise UnfreezeError(
                "reentrant checkpointing gives no gradients above frozen embeddings; set "
                f'{CHECKPOINTING}_kwargs={{"use_reentrant": False}} in TrainingArguments'
            )


def group_settings_of(optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    """Return the learning rate, before any schedule, and the weight decay of each named group."""
    return {group["name"]: (group["initial_lr"], group["weight_decay"]) for group in optimizer.param_groups}


def _saved_states(state: TrainerState) -> dict[str, Any]:
    """Return the states of callbacks by name; Transformers annotates them as a list."""
    states: Any = state.stateful_callbacks
    assert isinstance(states, dict)
    return states
