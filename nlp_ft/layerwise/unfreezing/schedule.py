"""Schedules of gradual unfreezing: phases, each with the layers that train in it and the trigger that begins it.

An `UnfreezeSchedule` is data and touches no model. For a run of known length, an `UnfreezePlan` is made of it.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal

from nlp_ft.defaults import Embeddings, Order
from nlp_ft.durations import Duration
from nlp_ft.errors import UnfreezeError
from nlp_ft.layerwise.unfreezing.triggers import AT_ONCE, TRIGGERS, Trigger, as_duration, as_trigger, check_count


@dataclass(frozen=True)
class Phase:
    """A part of the training in which the same layers train.

    Args:
        layers: ids of the layers that train, at least one.
        start: the trigger that begins the phase, or a duration as a text (`200st`); the first phase begins at once.
        lr_scale: factor on all learning rates within the phase, above 0 (fastai's `fine_tune` halves the rate).
    """

    layers: frozenset[int]
    start: Trigger = AT_ONCE
    lr_scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", frozenset(self.layers))
        if not isinstance(self.start, Trigger):
            object.__setattr__(self, "start", as_duration(self.start, "start of a phase"))
        if not self.layers:
            raise UnfreezeError("a phase must train at least one layer")
        if not 0 < self.lr_scale < math.inf:
            raise UnfreezeError(f"lr_scale of a phase must be above 0, got {self.lr_scale}")


@dataclass(frozen=True)
class UnfreezeSchedule:
    """The phases of a training over the layers 0 (embeddings) to L+1 (head) of a model.

    Args:
        phases: the phases in order; those that begin at a time must be in the order of their times.
        num_layers: L, the number of blocks.
        layer_warmup: time over which the learning rate of a newly unfrozen layer rises linearly from almost 0.
        restart_lr: whether the learning-rate schedule starts again in each phase, over the phase's length, instead of
            running once over the whole run.

    Raises:
        UnfreezeError: there is no phase, the first does not begin at once, or a layer does not exist.
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

    @property
    def layers_ever_trained(self) -> frozenset[int]:
        """Ids of the layers that train in any phase."""
        return frozenset().union(*(phase.layers for phase in self.phases))

    @classmethod
    def fixed(cls, num_layers: int, trainable_blocks: int | Literal["all"] = "all") -> "UnfreezeSchedule":
        """Make a schedule of one phase, in which the head and some blocks below it train.

        Args:
            num_layers: L, the number of blocks.
            trainable_blocks: number of blocks that train, from the top; 0 trains only the head, and `all` trains every
                layer with the embeddings.

        Raises:
            UnfreezeError: the model has fewer blocks.
        """
        if trainable_blocks == "all":
            return cls((Phase(frozenset(range(num_layers + 2))),), num_layers)
        is_count = isinstance(trainable_blocks, Integral) and not isinstance(trainable_blocks, bool)
        if not is_count or not 0 <= trainable_blocks <= num_layers:
            raise UnfreezeError(
                f"trainable_blocks must be at most {num_layers}, the blocks of this model, or all; "
                f"got {trainable_blocks!r}"
            )
        return cls((Phase(frozenset(range(num_layers + 1 - trainable_blocks, num_layers + 2))),), num_layers)

    @classmethod
    def from_settings(
        cls,
        num_layers: int,
        trainable_blocks: int | Literal["all"] = "all",
        unfreeze: Mapping[str, Any] | None = None,
    ) -> "UnfreezeSchedule":
        """Make a schedule from plain settings, as recipes and presets hold them.

        Args:
            num_layers: L, the number of blocks.
            trainable_blocks: see `fixed`; used if `unfreeze` is None.
            unfreeze: the keyword arguments of `gradual`, with `plateau` or `loss_below` (mappings) as alternatives to
                `every`; or `layers`, the text that `parse` reads. `lr_scales` gives a factor on the learning rates for
                each phase. Triggers and durations may be objects or plain values; None means the default.

        Raises:
            UnfreezeError: the settings do not fit the model, or exclude each other.
        """
        if unfreeze is None:
            return cls.fixed(num_layers, trainable_blocks)
        given = {key: value for key, value in unfreeze.items() if value is not None}
        _check_names(given)
        layers, lr_scales = given.pop("layers", None), given.pop("lr_scales", None)
        for name in TRIGGERS.keys() & given.keys():
            given["every"] = as_trigger(name, given.pop(name))
        if "layer_warmup" in given:
            given["layer_warmup"] = as_duration(given["layer_warmup"], "layer_warmup")
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
        """Make a schedule that trains the head alone at first and then unfreezes layer by layer.

        Args:
            num_layers: L, the number of blocks.
            every: length of a phase, or the condition that ends it; None divides the run evenly among the phases.
            blocks_per_phase: number of blocks that join at a time.
            order: `top_down` (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146); `bottom_up`; `all_at_once`
                (linear probing, then fine-tuning: Kumar et al. 2022, https://arxiv.org/abs/2202.10054); or
                `one_at_a_time`, which trains each layer alone, from the input up, and finally all together (named
                chain-thaw by Felbo et al. 2017, https://arxiv.org/abs/1708.00524).
            embeddings: `last` unfreezes the embeddings at the end (`one_at_a_time`: after the head); `never` leaves
                them frozen.
            layer_warmup: see `UnfreezeSchedule`.
            restart_lr: see `UnfreezeSchedule`.

        Raises:
            UnfreezeError: `blocks_per_phase` is below 1, or `order` or `embeddings` is unknown.
        """
        check_count("blocks_per_phase", blocks_per_phase)
        if embeddings not in ("last", "never"):
            raise UnfreezeError(f"embeddings must be last or never, got {embeddings!r}")
        sets = list(_layer_sets(num_layers, blocks_per_phase, order, embeddings))
        starts = _starts(every, len(sets))
        phases = tuple(Phase(frozenset(layers), start) for layers, start in zip(sets, starts))
        return cls(phases, num_layers, layer_warmup, restart_lr)

    @classmethod
    def parse(
        cls, text: str, num_layers: int, layer_warmup: Duration = AT_ONCE, restart_lr: bool = False
    ) -> "UnfreezeSchedule":
        """Make a schedule from a text that gives the time at which each layer begins to train.

        Args:
            text: entries such as `head: 0ep, 10-12: 1ep, 7-9: 30%, embeddings: never`. Times in different units must be
                written in the order in which they occur.
            num_layers: L, the number of blocks.
            layer_warmup: see `UnfreezeSchedule`.
            restart_lr: see `UnfreezeSchedule`.

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
        """Name layers in few words: `head`, `blocks 10-12`, `embeddings`."""
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
    """Check the names of settings. Raises `UnfreezeError` for an unknown name, or two that exclude each other."""
    general, of_gradual = ("layer_warmup", "restart_lr", "lr_scales"), ("blocks_per_phase", "order", "embeddings")
    known = {"layers", *general, *TRIGGERS, *of_gradual}
    unknown = sorted(map(str, given.keys() - known))
    if unknown:
        raise UnfreezeError(f"{unknown[0]!r} is not a setting of unfreeze; there are {', '.join(sorted(known))}")
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
    """Map each layer to the time from which it trains; None means never."""
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
    # At most six of the digits 0-9: the range below must stay small, and Python's `\d` and `isdigit` accept others.
    match = re.fullmatch(r"([0-9]{1,6})(?:\s*-\s*([0-9]{1,6}))?", name)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    return list(range(first, last + 1)) if 1 <= first <= last <= num_layers else []
