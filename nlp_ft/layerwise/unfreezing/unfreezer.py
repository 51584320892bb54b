"""Carries out an `UnfreezePlan` on a model and its optimizer, in any training loop."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn

from nlp_ft.defaults import Embeddings, Order
from nlp_ft.durations import Duration
from nlp_ft.errors import UnfreezeError
from nlp_ft.layerwise.checks import check_fits, check_optimizer
from nlp_ft.layerwise.freezing import set_trainable_layers
from nlp_ft.layerwise.layer_map import LayerMap
from nlp_ft.layerwise.lr_schedules import LrSchedule
from nlp_ft.layerwise.unfreezing.plan import UnfreezePlan, UnfreezeState
from nlp_ft.layerwise.unfreezing.schedule import UnfreezeSchedule
from nlp_ft.layerwise.unfreezing.triggers import Trigger, as_trigger


class Unfreezer:
    """Freezes and unfreezes the layers of a model as a plan says, and sets the learning rates of their groups.

    A loop calls `begin_step` before each update. When the trainable layers have changed, the loop must wrap the model
    again: DistributedDataParallel looks at `requires_grad` only once, in its constructor. A loop that evaluates also
    calls `on_scores`, and a loop that knows its training loss calls `on_loss`, with the same values on every process.

    `Unfreezer.gradual` makes the plan of gradual unfreezing in the same call.

    Args:
        model: the bare model, without wrappers.
        optimizer: an optimizer over all parameters of the model; with `lr_schedule` it must come from
            `build_optimizer`.
        plan: which layers train when.
        layer_map: layer map of the model; None builds it.
        lr_schedule: makes a learning-rate schedule from a number of steps; None leaves the rates alone.
        never: names of parameters that stay frozen throughout.
        state: the state to start from, out of a checkpoint; None starts at the first phase.

    Raises:
        LayerMapError: the optimizer lacks parameters that will train, or the map is of another model.
        UnfreezeError: the plan changes learning rates, but there is no `lr_schedule`; there is one, but the groups of
            the optimizer have no labels; or the state is of another plan.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        plan: UnfreezePlan,
        layer_map: LayerMap | None = None,
        lr_schedule: Callable[[int], LrSchedule] | None = None,
        never: Collection[str] = (),
        state: UnfreezeState | None = None,
    ) -> None:
        if lr_schedule is None and plan.moves_rates:
            raise UnfreezeError("layer_warmup, restart_lr and lr_scale change the rates; pass an lr_schedule")
        self.plan = plan
        self.state = UnfreezeState() if state is None else state
        plan.check_state(self.state)
        self._model = model
        self._layer_map = LayerMap.from_model(model) if layer_map is None else layer_map
        check_fits(model, self._layer_map)
        check_optimizer(optimizer, model, self._layer_map, plan.schedule.layers_ever_trained, never)
        # The groups are looked up at each step, because loading a state (as Accelerate does too) replaces them.
        self._optimizer = optimizer
        self._lr_schedule = lr_schedule
        # Groups without labels, from any other optimizer, will do as long as no rates are set.
        groups = optimizer.param_groups if lr_schedule else []
        if not all("param_names" in group and "initial_lr" in group for group in groups):
            raise UnfreezeError("lr_schedule sets a rate for each layer; make the optimizer with build_optimizer")
        own = {name for name, _ in model.named_parameters()}
        names = [group["param_names"][0] for group in groups]
        # Parameters outside the model, such as the weights of a loss, count as part of the head.
        head = self._layer_map.head_layer
        self._layers = [self._layer_map.aligned_layer(name) if name in own else head for name in names]
        self._never = frozenset(never)
        self._applied: frozenset[int] | None = None

    @classmethod
    def gradual(
        cls,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        total_steps: int,
        *,
        every: Trigger | str | None = None,
        steps_per_epoch: int | None = None,
        blocks_per_phase: int = 1,
        order: Order = "top_down",
        embeddings: Embeddings = "last",
        layer_map: LayerMap | None = None,
        never: Collection[str] = (),
        state: UnfreezeState | None = None,
    ) -> "Unfreezer":
        """Unfreeze a model gradually: first the head trains alone, then layer after layer joins.

        Source: Howard and Ruder 2018, https://arxiv.org/abs/1801.06146. The learning rates are left alone; for plans
        that change them, make an `UnfreezePlan` and pass it to the constructor with an `lr_schedule`.

        Args:
            model: the bare model, without wrappers.
            optimizer: an optimizer over all parameters of the model, the frozen ones too, as `build_optimizer` makes.
            total_steps: optimizer steps of the whole run.
            every: length of a phase (`"1ep"`, `"200st"`, `"10%"`), or the condition that ends it (a `Plateau` or
                `LossBelow`); None divides the run evenly among the phases.
            steps_per_epoch: optimizer steps of an epoch; needed only if something is counted in epochs.
            blocks_per_phase: blocks that join at a time.
            order: order in which layers join, see `UnfreezeSchedule.gradual`.
            embeddings: `last` joins the embeddings at the end, `never` leaves them frozen.
            layer_map: layer map of the model; None builds it.
            never: names of parameters that stay frozen throughout.
            state: the state to start from, out of a checkpoint; None starts at the first phase.

        Raises:
            LayerMapError: a parameter has no layer, or the optimizer lacks it.
            UnfreezeError: the run is too short for its phases, `steps_per_epoch` is missing, or `every` is not a
                duration.
        """
        trigger = every if every is None else as_trigger("every", every)
        times = [trigger, *(getattr(trigger, bound, None) for bound in ("at_least", "at_most"))]
        if steps_per_epoch is None and any(isinstance(time, Duration) and time.unit == "ep" for time in times):
            raise UnfreezeError(f"every={every} counts epochs, whose length is not known; pass steps_per_epoch")
        layer_map = LayerMap.from_model(model) if layer_map is None else layer_map
        check_fits(model, layer_map)
        schedule = UnfreezeSchedule.gradual(
            layer_map.num_layers, trigger, blocks_per_phase=blocks_per_phase, order=order, embeddings=embeddings
        )
        plan = UnfreezePlan(schedule, total_steps, steps_per_epoch or total_steps)
        return cls(model, optimizer, plan, layer_map, never=never, state=state)

    @property
    def phase(self) -> int:
        """Index of the running phase, from 0."""
        return len(self.state.starts) - 1

    def begin_step(self, step: int) -> bool:
        """Freeze and unfreeze what is due before an update, and set the learning rates.

        Args:
            step: number of the update, from 0.

        Returns:
            Whether other layers train than before, so that the model must be wrapped again.
        """
        self.plan.on_step(self.state, step)
        layers = self.plan.layers(self.state)
        changed = layers != self._applied
        if changed:
            set_trainable_layers(self._model, self._layer_map, layers, self._never)
            self._applied = layers
        self._set_rates(step)
        return changed

    def on_scores(self, step: int, scores: Mapping[str, float]) -> bool:
        """Note the scores of an evaluation made after `step` updates; return whether the next update begins a phase.

        Raises:
            UnfreezeError: the plan waits for a metric that is not among the scores.
        """
        return self.plan.on_scores(self.state, step, scores)

    def on_loss(self, step: int, loss: float) -> bool:
        """Note the mean training loss after `step` updates; return whether the next update begins a phase."""
        return self.plan.on_loss(self.state, step, loss)

    def _set_rates(self, step: int) -> None:
        if self._lr_schedule is None:
            return
        start, length = self.plan.lr_span(self.state)
        factor = self._lr_schedule(length)(step - start)
        for group, layer in zip(self._optimizer.param_groups, self._layers, strict=True):
            group["lr"] = group["initial_lr"] * factor * self.plan.lr_scale(self.state, step, layer)
