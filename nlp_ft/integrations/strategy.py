"""What a strategy's name means for a model whose maker is someone else: a schedule of layers, and rates for them."""

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from nlp_ft.defaults import LAYER_DECAY
from nlp_ft.errors import LayerMapError, UnfreezeError
from nlp_ft.layerwise import LayerMap, Plateau, UnfreezeSchedule, UnfreezeState
from nlp_ft.layerwise.param_groups import Convention
from nlp_ft.layerwise.unfreezing.triggers import AT_ONCE
from nlp_ft.recipe.presets import STRATEGY_PRESETS, laid_over
from nlp_ft.suggest import did_you_mean

logger = logging.getLogger(__name__)
_SPLIT = re.compile("^(eval|val|valid|validation)[_/]")


@dataclass(frozen=True)
class LayerwiseSettings:
    """A strategy, and what stands in place of its own settings; None takes the strategy's.

    Args:
        strategy: a name from `STRATEGY_PRESETS`, or a schedule of one's own (`layer_decay` is then 0.9 unless given).
        layer_decay: factor on the rate from one block to the next below, in (0, 1].
        head_lr: learning rate of the head; None in the strategy too: the base rate.
        convention: how the factors are counted, see `lr_scales`.
        trainable_blocks: blocks below the head that train, for strategies that train the same layers throughout.
        unfreeze: settings of `UnfreezeSchedule.from_settings` (`{"every": "1ep"}`), for those that unfreeze.
    """

    strategy: str | UnfreezeSchedule = "llrd"
    layer_decay: float | None = None
    head_lr: float | None = None
    convention: Convention | None = None
    trainable_blocks: int | Literal["all"] | None = None
    unfreeze: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.strategy, UnfreezeSchedule):
            if self.trainable_blocks is not None or self.unfreeze is not None:
                raise UnfreezeError("trainable_blocks and unfreeze change a strategy given by name, not a schedule")
            return
        if self.strategy == "scratch":
            raise UnfreezeError(
                'strategy "scratch" makes a model with random weights, but this loop is given its model: build it with '
                'AutoModel...from_config(config) and take strategy="full"'
            )
        if self.strategy not in STRATEGY_PRESETS:
            hint = did_you_mean(self.strategy, STRATEGY_PRESETS)
            names = ", ".join(name for name in STRATEGY_PRESETS if name != "scratch")
            raise UnfreezeError(f"strategy must be one of {names}, or an UnfreezeSchedule, got {self.strategy!r}{hint}")
        if self.unfreeze is not None and "unfreeze" not in self.preset["strategy"]:
            raise UnfreezeError(
                f'strategy "{self.strategy}" unfreezes nothing; unfreeze goes with gradual, lp_ft, ulmfit'
            )
        if self.trainable_blocks is not None and "unfreeze" in self.preset["strategy"]:
            raise UnfreezeError(
                f'strategy "{self.strategy}" trains all blocks in the end; take top_layers, or unfreeze'
            )

    @property
    def preset(self) -> dict[str, dict[str, Any]]:
        """What the name stands for; the same without a name, for a schedule."""
        if isinstance(self.strategy, UnfreezeSchedule):
            return {"strategy": {}, "optimizer": {"layer_decay": LAYER_DECAY}}
        return STRATEGY_PRESETS[self.strategy]

    def schedule(self, num_layers: int) -> UnfreezeSchedule:
        """The phases for a model of L blocks, with metrics under their plain names (`loss`, not `eval_loss`).

        Raises:
            UnfreezeError: the settings do not fit the model.
        """
        if isinstance(self.strategy, UnfreezeSchedule):
            if self.strategy.num_layers != num_layers:
                raise UnfreezeError(
                    f"the schedule is for {self.strategy.num_layers} blocks, but the model has {num_layers}"
                )
            return plain_metrics(self.strategy)
        own = self.preset["strategy"]
        unfreeze = laid_over(own["unfreeze"], self.unfreeze or {}) if "unfreeze" in own else None
        blocks = self.trainable_blocks if self.trainable_blocks is not None else own.get("trainable_blocks", "all")
        return plain_metrics(UnfreezeSchedule.from_settings(num_layers, blocks, unfreeze))

    def group_settings(self) -> dict[str, Any]:
        """`layer_decay`, `head_lr` and `convention` for `layerwise_param_groups`."""
        own = self.preset["optimizer"]
        defaults = {"layer_decay": own["layer_decay"], "head_lr": own.get("head_lr"), "convention": "top"}
        given = {"layer_decay": self.layer_decay, "head_lr": self.head_lr, "convention": self.convention}
        asked = {key: value for key, value in given.items() if value is not None}
        return {**defaults, **{key: own[key] for key in ("convention",) if key in own}, **asked}


def plain_metric(name: str) -> str:
    """A score without the name of its split: `loss` for `eval_loss`, `val_loss` and `val/loss`."""
    return _SPLIT.sub("", name, count=1)


def plain_metrics(schedule: UnfreezeSchedule) -> UnfreezeSchedule:
    """The schedule with the plain names of the metrics that it waits for."""
    phases = [
        replace(phase, start=replace(phase.start, metric=plain_metric(phase.start.metric)))
        if isinstance(phase.start, Plateau)
        else phase
        for phase in schedule.phases
    ]
    return replace(schedule, phases=tuple(phases))


def layers_ever_trained(schedule: UnfreezeSchedule) -> frozenset[int]:
    """The layers that train in any phase."""
    return frozenset().union(*(phase.layers for phase in schedule.phases))


def without_empty_phases(schedule: UnfreezeSchedule, trainable: Collection[int]) -> UnfreezeSchedule:
    """The schedule without the phases that would train nothing: a head may be tied or empty, a block frozen for good.

    The phase before goes on in place of one that falls out; where it is the first, the next begins at once.

    Args:
        schedule: the phases.
        trainable: layers that have a parameter of their own that may train.

    Raises:
        UnfreezeError: no phase trains anything.
    """
    trains = [bool(phase.layers & set(trainable)) for phase in schedule.phases]
    if not any(trains):
        names = schedule.layer_names(schedule.phases[-1].layers)
        raise UnfreezeError(
            f"this strategy trains {names}, which has no parameter of its own here: it is tied to another layer or "
            "frozen; take one that trains more, such as top_layers or llrd"
        )
    first = trains.index(True)
    for number, phase in enumerate(schedule.phases):
        if not trains[number]:
            instead = (
                f"training begins with {schedule.layer_names(schedule.phases[first].layers)}"
                if number < first
                else "the phase before it goes on"
            )
            logger.warning(
                "%s has no parameter of its own here (it is tied to another layer, or frozen): %s",
                schedule.layer_names(phase.layers),
                instead,
            )
    _, *later = (phase for phase, kept in zip(schedule.phases, trains) if kept)
    return replace(schedule, phases=(replace(schedule.phases[first], start=AT_ONCE), *later))


def no_gradient(network: nn.Module) -> UnfreezeError:
    """What to say where the loss of a step depends on nothing that trains in it."""
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    return UnfreezeError(
        f"the loss depends on nothing that trains in this phase ({', '.join(trained[:3])}, ...): choose a strategy "
        "whose first phase trains more, such as llrd, or top_layers with trainable_blocks"
    )


def layers_that_can_train(model: nn.Module, layer_map: LayerMap, never: Collection[str]) -> frozenset[int]:
    """Layers with a parameter of their own that is not among those that never train."""
    return frozenset(layer_map.aligned_layer(name) for name, _ in model.named_parameters() if name not in never)


def freezes(schedule: UnfreezeSchedule) -> bool:
    """Whether any layer is frozen at any time."""
    return any(len(phase.layers) < schedule.num_layers + 2 for phase in schedule.phases)


def changes(schedule: UnfreezeSchedule) -> bool:
    """Whether other layers train at one time than at another."""
    return len({phase.layers for phase in schedule.phases}) > 1


def saved_form(state: UnfreezeState, schedule: UnfreezeSchedule) -> dict[str, Any]:
    """What a checkpoint holds: the very attributes of the state, not a copy, and the layers of each phase."""
    return {"attributes": vars(state), "phases": [sorted(phase.layers) for phase in schedule.phases]}


def restored_state(saved: Mapping[str, Any], schedule: UnfreezeSchedule) -> UnfreezeState:
    """The state of `saved_form`.

    Raises:
        UnfreezeError: it was saved by a run with other phases.
    """
    if saved["phases"] != [sorted(phase.layers) for phase in schedule.phases]:
        raise UnfreezeError(
            "the checkpoint was written by a run with other phases; resume with its strategy, or begin a new run from "
            "its weights"
        )
    return UnfreezeState(**saved["attributes"])


def check_optimizer(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    layer_map: LayerMap,
    layers: Collection[int],
    never: Collection[str],
) -> None:
    """Prove that the optimizer holds every parameter of these layers, but for those that never train.

    Raises:
        LayerMapError: it lacks some: it was made from a model that was partly frozen.
    """
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    lacking = [
        name
        for name, parameter in model.named_parameters()
        if id(parameter) not in known and name not in never and layer_map.aligned_layer(name) in layers
    ]
    if lacking:
        raise LayerMapError(
            f"{len(lacking)} parameters that are to train stand in no group of the optimizer, such as {lacking[0]}; "
            "make the optimizer with build_optimizer, which takes all"
        )


def is_labelled(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the groups are those of `layerwise_param_groups`, one for each layer."""
    return all("param_names" in group and "name" in group for group in optimizer.param_groups)
