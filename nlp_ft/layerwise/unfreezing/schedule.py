"""Which layers train when: phases, each with the layers that train in it and what begins it.

An `UnfreezeSchedule` is data and touches no model. Over a run of known length it becomes an `UnfreezePlan`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from nlp_ft.defaults import Embeddings, Order
from nlp_ft.durations import Duration
from nlp_ft.errors import UnfreezeError
from nlp_ft.layerwise.unfreezing.triggers import AT_ONCE, TRIGGERS, Trigger, as_duration, as_trigger


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    Args:
        layers: ids of the layers that train, at least one.
        start: what begins it; the first phase begins at once.
        lr_scale: factor on all learning rates within it, above 0 (fastai's fine_tune halves the rate).
    """

    layers: frozenset[int]
    start: Trigger = AT_ONCE
    lr_scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.layers:
            raise UnfreezeError("a phase must train at least one layer")
        if not 0 < self.lr_scale < math.inf:
            raise UnfreezeError(f"lr_scale of a phase must be above 0, got {self.lr_scale}")


@dataclass(frozen=True)
class UnfreezeSchedule:
    """Phases over the layers 0 (embeddings) to L+1 (head) of a model.

    Args:
        phases: in their order; those that a time begins must stand in the order of their times.
        num_layers: L.
        layer_warmup: a layer that begins to train has its rate raised linearly over so long, so that it gets no shock.
        restart_lr: run the learning-rate schedule anew in each phase, over the phase's length, instead of over the run.

    Raises:
        UnfreezeError: no phase, or one with a layer that does not exist.
    """

    phases: tuple[Phase, ...]
    num_layers: int
    layer_warmup: Duration = AT_ONCE
    restart_lr: bool = False

    def __post_init__(self) -> None:
        if not self.phases:
            raise UnfreezeError("a schedule needs at least one phase")
        first = self.phases[0].start
        if not isinstance(first, Duration) or first.value:
            raise UnfreezeError(f"the first phase must begin at 0st, got {first}")
        head = self.num_layers + 1
        wrong = sorted(layer for phase in self.phases for layer in phase.layers if not 0 <= layer <= head)
        if wrong:
            raise UnfreezeError(f"layer {wrong[0]} does not exist; layers go from 0 (embeddings) to {head} (head)")

    @classmethod
    def fixed(cls, num_layers: int, trainable_blocks: int | Literal["all"] = "all") -> "UnfreezeSchedule":
        """One phase: the head and so many blocks below it, 0 for the head alone; `all` are with the embeddings.

        Raises:
            UnfreezeError: there are not so many blocks.
        """
        if trainable_blocks == "all":
            return cls((Phase(frozenset(range(num_layers + 2))),), num_layers)
        if not 0 <= trainable_blocks <= num_layers:
            raise UnfreezeError(
                f"trainable_blocks must be at most {num_layers}, the blocks of this model, or all; "
                f"got {trainable_blocks}"
            )
        return cls((Phase(frozenset(range(num_layers + 1 - trainable_blocks, num_layers + 2))),), num_layers)

    @classmethod
    def from_settings(
        cls,
        num_layers: int,
        trainable_blocks: int | Literal["all"] = "all",
        unfreeze: Mapping[str, Any] | None = None,
    ) -> "UnfreezeSchedule":
        """The schedule of plain settings, as recipes and presets hold them.

        Args:
            num_layers: L.
            trainable_blocks: see `fixed`; what counts without `unfreeze`.
            unfreeze: the keywords of `gradual`, where `plateau` or `loss_below` (a mapping each) may stand in place of
                `every`; or `layers` for the text that `parse` reads; `lr_scales`, a factor on the rates for each phase.
                Triggers and durations may be objects or plain values, and None stands for a default.

        Raises:
            UnfreezeError: the settings do not fit the model or each other.
        """
        if unfreeze is None:
            return cls.fixed(num_layers, trainable_blocks)
        given = {key: value for key, value in unfreeze.items() if value is not None}
        _check_names(given)
        layers, lr_scales = given.pop("layers", None), given.pop("lr_scales", None)
        for name in TRIGGERS.keys() & given.keys():
            given["every"] = as_trigger(name, given.pop(name))
        if "layer_warmup" in given:
            given["layer_warmup"] = as_duration(given["layer_warmup"])
        schedule = cls.gradual(num_layers, **given) if layers is None else cls.parse(layers, num_layers, **given)
        if lr_scales is None:
            return schedule
        if len(lr_scales) != len(schedule.phases):
            raise UnfreezeError(f"lr_scales must hold {len(schedule.phases)} factors, one a phase, got {lr_scales}")
        phases = tuple(replace(phase, lr_scale=scale) for phase, scale in zip(schedule.phases, lr_scales))
        return replace(schedule, phases=phases)

    @classmethod
    def gradual(
        cls,
        num_layers: int,
        every: Trigger | None = None,
        *,
        blocks_per_phase: int = 1,
        order: Order = "top_down",
        embeddings: Embeddings = "last",
        layer_warmup: Duration = AT_ONCE,
        restart_lr: bool = False,
    ) -> "UnfreezeSchedule":
        """First the head, then layer by layer.

        Args:
            num_layers: L.
            every: length of a phase (`1ep`), or the condition that ends it; None divides the run evenly.
            blocks_per_phase: blocks that join at a time.
            order: `top_down` (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146), `bottom_up`, `all_at_once`
                (linear probing, then fine-tuning: Kumar et al. 2022, https://arxiv.org/abs/2202.10054), or
                `one_at_a_time`: each layer alone from the input up, at last all together (chain-thaw: Felbo et al.
                2017, https://arxiv.org/abs/1708.00524).
            embeddings: `last` to join, or `never`.
            layer_warmup: see `UnfreezeSchedule`.
            restart_lr: see `UnfreezeSchedule`.
        """
        if blocks_per_phase < 1:
            raise UnfreezeError(f"blocks_per_phase must be at least 1, got {blocks_per_phase}")
        sets = list(_layer_sets(num_layers, blocks_per_phase, order, embeddings))
        starts = _starts(every, len(sets))
        phases = tuple(Phase(frozenset(layers), start) for layers, start in zip(sets, starts))
        return cls(phases, num_layers, layer_warmup, restart_lr)

    @classmethod
    def parse(
        cls, text: str, num_layers: int, layer_warmup: Duration = AT_ONCE, restart_lr: bool = False
    ) -> "UnfreezeSchedule":
        """Read layers with the time from which each trains: `head: 0ep, 10-12: 1ep, 7-9: 30%, embeddings: never`.

        Times in different units stand in the order in which they come to pass.

        Raises:
            UnfreezeError: an entry has another form, or a layer is missing, unknown or named twice.
        """
        times = {layer: time for layer, time in _parse_times(text, num_layers).items() if time is not None}
        moments = sorted(
            {time if time.value else AT_ONCE: None for time in times.values()}, key=lambda time: time.value > 0
        )
        if len({moment.unit for moment in moments if moment.value}) < 2:
            moments.sort(key=lambda moment: moment.value)
        phases: list[Phase] = []
        trained: frozenset[int] = frozenset()
        for moment in moments:
            trained |= {layer for layer, time in times.items() if (time if time.value else AT_ONCE) == moment}
            phases.append(Phase(trained, moment))
        return cls(tuple(phases), num_layers, layer_warmup, restart_lr)

    def layer_names(self, layers: Iterable[int]) -> str:
        """Layers told shortly: `head`, `blocks 10-12`, `embeddings`."""
        chosen = sorted(layers, reverse=True)
        blocks = [layer for layer in chosen if 0 < layer <= self.num_layers]
        parts = ["head"] if self.num_layers + 1 in chosen else []
        if blocks:
            together = blocks == list(range(blocks[0], blocks[-1] - 1, -1))
            names = (
                f"{blocks[-1]}-{blocks[0]}" if together and len(blocks) > 1 else ", ".join(map(str, reversed(blocks)))
            )
            parts.append(f"block{'s' if len(blocks) > 1 else ''} {names}")
        return ", ".join([*parts, *(["embeddings"] if 0 in chosen else [])])


def _check_names(given: Mapping[str, Any]) -> None:
    """Raises: UnfreezeError: a setting that does not exist, or two that exclude each other."""
    general, of_gradual = ("layer_warmup", "restart_lr", "lr_scales"), ("blocks_per_phase", "order", "embeddings")
    known = {"layers", *general, *TRIGGERS, *of_gradual}
    unknown = sorted(map(str, given.keys() - known))
    if unknown:
        raise UnfreezeError(f"{unknown[0]!r} is no setting of unfreeze; there are {', '.join(sorted(known))}")
    ends = [name for name in TRIGGERS if name in given]
    if len(ends) > 1:
        raise UnfreezeError(f"{' and '.join(ends)} cannot both end a phase; give one")
    doubled = [name for name in given if name in of_gradual or name in TRIGGERS]
    if "layers" in given and doubled:
        raise UnfreezeError(f"layers says when each layer trains, so {doubled[0]} has no place beside it")


def _layer_sets(num_layers: int, blocks_per_phase: int, order: Order, embeddings: Embeddings) -> Iterable[set[int]]:
    head, everything = num_layers + 1, set(range(num_layers + 2)) - ({0} if embeddings == "never" else set())
    blocks = list(range(1, num_layers + 1))
    if order == "top_down":
        blocks.reverse()
    elif order not in ("bottom_up", "all_at_once", "one_at_a_time"):
        raise UnfreezeError(f"order must be top_down, bottom_up, all_at_once or one_at_a_time, got {order!r}")
    yield {head}
    groups = [blocks[i : i + blocks_per_phase] for i in range(0, num_layers, blocks_per_phase)]
    if order == "one_at_a_time":
        yield from ([{0}] if embeddings == "last" else [])
        yield from map(set, groups)
        yield everything
        return
    trained = {head}
    for group in groups if order != "all_at_once" else []:
        trained = trained | set(group)
        yield trained
    if trained != everything:
        yield everything


def _starts(every: Trigger | None, num_phases: int) -> Sequence[Trigger]:
    if every is None:
        every = Duration(100 / num_phases, "%")
    if not isinstance(every, Duration):
        return [AT_ONCE, *[every] * (num_phases - 1)]
    return [Duration(every.value * number, every.unit) for number in range(num_phases)]


def _parse_times(text: str, num_layers: int) -> dict[int, Duration | None]:
    """Layer -> the time from which it trains, None for never; every layer has one."""
    times: dict[int, Duration | None] = {}
    for entry in text.split(","):
        name, colon, when = (part.strip() for part in entry.partition(":"))
        layers = _parse_layers(name, num_layers) if colon else []
        if not layers:
            raise UnfreezeError(
                f"{entry.strip()!r} must be layers and a time, such as head: 0ep, 10-12: 1ep, 9: 30% or "
                f"embeddings: never (blocks 1 to {num_layers})"
            )
        try:
            time = None if when == "never" else Duration.parse(when)
        except ValueError as error:
            raise UnfreezeError(f"{entry.strip()!r}: the time {error}, or never") from None
        repeated = times.keys() & set(layers)
        if repeated:
            raise UnfreezeError(f"{entry.strip()!r}: layer {min(repeated)} has a time already")
        times.update(dict.fromkeys(layers, time))
    missing = sorted(set(range(num_layers + 2)) - times.keys())
    if missing:
        names = ", ".join("embeddings" if m == 0 else "head" if m > num_layers else str(m) for m in missing)
        raise UnfreezeError(f"{text!r} does not say when these layers train: {names}; give a time, or never")
    return times


def _parse_layers(name: str, num_layers: int) -> list[int]:
    if name in ("head", "embeddings"):
        return [num_layers + 1 if name == "head" else 0]
    # The digits are bounded: a range is made, and `²` is a digit to Python.
    match = re.fullmatch(r"([0-9]{1,6})(?:\s*-\s*([0-9]{1,6}))?", name)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    return list(range(first, last + 1)) if 1 <= first <= last <= num_layers else []
