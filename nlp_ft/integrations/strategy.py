"""Turns the name of a strategy into unfreezing phases and learning rates, for a model that another framework trains."""

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from nlp_ft.defaults import LAYER_DECAY
from nlp_ft.errors import UnfreezeError
from nlp_ft.layerwise import LayerMap, Plateau, UnfreezeSchedule, UnfreezeState
from nlp_ft.layerwise.param_groups import Convention, head_lr_ratio
from nlp_ft.layerwise.unfreezing.triggers import AT_ONCE
from nlp_ft.recipe.presets import STRATEGY_PRESETS, laid_over
from nlp_ft.suggest import did_you_mean

logger = logging.getLogger(__name__)
_SPLIT = re.compile("^(eval|val|valid|validation)[_/]")


@dataclass(frozen=True)
class LayerwiseSettings:
    """A strategy, and settings that replace its own; None takes the strategy's setting.

    Args:
        strategy: a name from `STRATEGY_PRESETS`, or an `UnfreezeSchedule` (`layer_decay` is then 0.9 unless given).
        layer_decay: factor on the rate from one block to the next below, in (0, 1].
        head_lr: learning rate of the head; see `group_settings` for that of a strategy.
        convention: how the factors are counted, see `lr_scales`.
        trainable_blocks: number of blocks below the head that train, for strategies without unfreezing.
        unfreeze: settings of `UnfreezeSchedule.from_settings` (`{"every": "1ep"}`), for strategies with unfreezing.

    Raises:
        UnfreezeError: the strategy is unknown, or a setting does not go with it.
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
                'strategy "scratch" makes a model with random weights, but this loop is given its model; build it with '
                'AutoModel...from_config(config) and use strategy="full"'
            )
        if self.strategy == "lora":
            raise UnfreezeError(
                'strategy "lora" puts adapters into the model of a recipe, but this loop is given its model; '
                "train a recipe with it, or use PEFT yourself"
            )
        if self.strategy == "probe":
            raise UnfreezeError(
                'strategy "probe" solves the head of a recipe without a loop; train a recipe with it, or use head_only'
            )
        if not isinstance(self.strategy, str) or self.strategy not in STRATEGY_PRESETS:
            hint = did_you_mean(str(self.strategy), STRATEGY_PRESETS)
            names = ", ".join(name for name in STRATEGY_PRESETS if name not in ("lora", "probe", "scratch"))
            raise UnfreezeError(f"strategy must be one of {names}, or an UnfreezeSchedule, got {self.strategy!r}{hint}")
        if not isinstance(self.unfreeze, Mapping | None):
            raise UnfreezeError(f'unfreeze must be a mapping, such as {{"every": "1ep"}}, got {self.unfreeze!r}')
        if self.unfreeze is not None and "unfreeze" not in self.preset["strategy"]:
            raise UnfreezeError(
                f'strategy "{self.strategy}" unfreezes nothing; unfreeze goes with gradual, lp_ft, ulmfit'
            )
        if self.trainable_blocks is not None and "unfreeze" in self.preset["strategy"]:
            raise UnfreezeError(f'strategy "{self.strategy}" trains all blocks in the end; use top_layers, or unfreeze')

    @property
    def preset(self) -> dict[str, dict[str, Any]]:
        """The settings of the strategy; for an `UnfreezeSchedule`, the default `layer_decay`."""
        if isinstance(self.strategy, UnfreezeSchedule):
            return {"strategy": {}, "optimizer": {"layer_decay": LAYER_DECAY}}
        return STRATEGY_PRESETS[self.strategy]

    def schedule(self, num_layers: int) -> UnfreezeSchedule:
        """Make the phases for a model of L blocks, with plain names of metrics (`loss`, not `eval_loss`).

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

    def group_settings(self, model: nn.Module, layer_map: LayerMap, lr: float) -> dict[str, Any]:
        """Return `lr`, `layer_decay`, `head_lr` and `convention` for `layerwise_param_groups`.

        Without `head_lr`, the head is assumed to be new, and has `head_lr_ratio` x `lr` as in a recipe. It has `lr`
        where it trains alone, and under a convention other than `top`.

        Args:
            model: the model.
            layer_map: its layer map.
            lr: the base learning rate.
        """
        own = {"convention": "top", **self.preset["optimizer"]}
        given = {"layer_decay": self.layer_decay, "head_lr": self.head_lr, "convention": self.convention}
        settings = {key: own.get(key) if value is None else value for key, value in given.items()}
        if settings["head_lr"] is None and settings["convention"] == "top" and not self._trains_head_alone:
            settings["head_lr"] = head_lr_ratio(model, layer_map) * lr
        return {"lr": lr, **settings}

    @property
    def _trains_head_alone(self) -> bool:
        if isinstance(self.strategy, UnfreezeSchedule):
            return self.strategy.layers_ever_trained == {self.strategy.num_layers + 1}
        own = self.preset["strategy"].get("trainable_blocks")
        return (own if self.trainable_blocks is None else self.trainable_blocks) == 0


def plain_metric(name: str) -> str:
    """Remove the name of the split from a metric: `loss` for `eval_loss`, `val_loss` and `val/loss`."""
    return _SPLIT.sub("", name, count=1)


def plain_metrics(schedule: UnfreezeSchedule) -> UnfreezeSchedule:
    """Replace the metrics that a schedule waits for by their plain names."""
    phases = [
        replace(phase, start=replace(phase.start, metric=plain_metric(phase.start.metric)))
        if isinstance(phase.start, Plateau)
        else phase
        for phase in schedule.phases
    ]
    return replace(schedule, phases=tuple(phases))


def without_empty_phases(schedule: UnfreezeSchedule, trainable: Collection[int]) -> UnfreezeSchedule:
    """Drop the phases of a schedule that would train nothing, with a warning.

    A head may be tied or have no parameters, and a block may be frozen for good. The phase before a dropped one
    continues in its place; if the first phase is dropped, the next begins at once.

    Args:
        schedule: the phases.
        trainable: layers with a parameter of their own that may train.

    Raises:
        UnfreezeError: no phase trains anything.
    """
    trains = [bool(phase.layers & set(trainable)) for phase in schedule.phases]
    if not any(trains):
        names = schedule.layer_names(schedule.phases[-1].layers)
        raise UnfreezeError(
            f"this strategy trains {names}, which has no parameter of its own here: it is tied to another layer or "
            "frozen; use one that trains more, such as top_layers or llrd"
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
    """Make the error for a loss that does not depend on anything that trains."""
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    return UnfreezeError(
        f"the loss depends on nothing that trains in this phase ({', '.join(trained[:3])}, ...): choose a strategy "
        "whose first phase trains more, such as llrd, or top_layers with trainable_blocks"
    )


def layers_that_can_train(model: nn.Module, layer_map: LayerMap, never: Collection[str]) -> frozenset[int]:
    """Return the ids of the layers with at least one parameter that may train.

    Args:
        model: the model without wrappers.
        layer_map: the model's layer map.
        never: names of parameters that never train.
    """
    return frozenset(layer_map.aligned_layer(name) for name, _ in model.named_parameters() if name not in never)


def freezes(schedule: UnfreezeSchedule) -> bool:
    """Whether a schedule freezes any layer at any time."""
    return any(len(phase.layers) < schedule.num_layers + 2 for phase in schedule.phases)


def changes(schedule: UnfreezeSchedule) -> bool:
    """Whether different layers train in different phases of a schedule."""
    return len({phase.layers for phase in schedule.phases}) > 1


def saved_form(state: UnfreezeState, schedule: UnfreezeSchedule) -> dict[str, Any]:
    """Return the entry of a checkpoint: the attributes of the state (not a copy), and the layers of each phase."""
    return {"attributes": vars(state), "phases": [sorted(phase.layers) for phase in schedule.phases]}


def restored_state(saved: Mapping[str, Any], schedule: UnfreezeSchedule) -> UnfreezeState:
    """Restore the state from the entry of a checkpoint that `saved_form` made.

    Raises:
        UnfreezeError: the checkpoint was written by a run with other phases.
    """
    if saved["phases"] != [sorted(phase.layers) for phase in schedule.phases]:
        raise UnfreezeError(
            "the checkpoint was written by a run with other phases; resume with its strategy, or start a new run from "
            "its weights"
        )
    return UnfreezeState(**saved["attributes"])


def is_labelled(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the groups of an optimizer are those of `layerwise_param_groups`, one or two for each layer."""
    return all("param_names" in group and "name" in group for group in optimizer.param_groups)
