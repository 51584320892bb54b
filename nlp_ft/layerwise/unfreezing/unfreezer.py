"""Carries out an `UnfreezePlan` on a model and its optimizer, in a loop of any kind."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn

from nlp_ft.errors import UnfreezeError
from nlp_ft.layerwise.freezing import set_trainable_layers
from nlp_ft.layerwise.layer_map import LayerMap
from nlp_ft.layerwise.lr_schedules import LrSchedule
from nlp_ft.layerwise.unfreezing.plan import UnfreezePlan, UnfreezeState


class Unfreezer:
    """Freezes and unfreezes layers as a plan says, and sets the rates of their groups.

    A loop calls `begin_step` before each update; where the trainable set changed it must build wrappers such as
    DistributedDataParallel anew, which look at `requires_grad` only once. A loop that evaluates calls `on_scores`, one
    that knows its training loss `on_loss`; both must be given the same values on every process.

    Args:
        model: the bare model, without wrappers.
        optimizer: over all its parameters, from `build_optimizer` unless the rates are left alone.
        plan: what trains when.
        layer_map: of the model; None builds it.
        lr_schedule: makes the learning-rate schedule of a given number of steps; None leaves the rates alone.
        never: names of parameters that stay frozen.
        state: where to begin; a checkpoint holds it.

    Raises:
        UnfreezeError: the plan moves rates, but no `lr_schedule` is given to do it by.
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
            raise UnfreezeError("layer_warmup, restart_lr and lr_scale move the rates; pass lr_schedule= to do it by")
        self.plan = plan
        self.state = state or UnfreezeState()
        self._model = model
        self._layer_map = layer_map or LayerMap.from_model(model)
        # Its groups are looked up at each step: loading a state, which Accelerate does too, puts new ones in place.
        self._optimizer = optimizer
        self._lr_schedule = lr_schedule
        # An optimizer of someone else has no labels; they are needed only to set rates.
        groups = optimizer.param_groups if lr_schedule else []
        own = {name for name, _ in model.named_parameters()}
        names = [group["param_names"][0] for group in groups]
        # What is not the model's own, such as the weights of a loss, goes with the head.
        head = self._layer_map.head_layer
        self._layers = [self._layer_map.aligned_layer(name) if name in own else head for name in names]
        self._never = frozenset(never)
        self._applied: frozenset[int] | None = None

    @property
    def phase(self) -> int:
        """Index of the running phase, from 0."""
        return len(self.state.starts) - 1

    def begin_step(self, step: int) -> bool:
        """Be ready for update `step`, counted from 0; True when other layers train than before."""
        self.plan.on_step(self.state, step)
        layers = self.plan.layers(self.state)
        changed = layers != self._applied
        if changed:
            set_trainable_layers(self._model, self._layer_map, layers, self._never)
            self._applied = layers
        self._set_rates(step)
        return changed

    def on_scores(self, step: int, scores: Mapping[str, float]) -> bool:
        """Note an evaluation after `step` updates; True when the next update begins a phase."""
        return self.plan.on_scores(self.state, step, scores)

    def on_loss(self, step: int, loss: float) -> bool:
        """Note a mean training loss after `step` updates; True when the next update begins a phase."""
        return self.plan.on_loss(self.state, step, loss)

    def _set_rates(self, step: int) -> None:
        if self._lr_schedule is None:
            return
        start, length = self.plan.lr_span(self.state)
        factor = self._lr_schedule(length)(step - start)
        for group, layer in zip(self._optimizer.param_groups, self._layers, strict=True):
            group["lr"] = group["initial_lr"] * factor * self.plan.lr_scale(self.state, step, layer)
