"""Checks of the learning rates: how those of the layers compare, and what a scheduler makes of them."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from nlp_ft.layerwise.audit.setup import CannotTell, Finding, TrainingSetup, counted
from nlp_ft.layerwise.layer_map import LayerMap

TOLERANCE = 1e-6
"""Relative difference up to which two rates count as equal, because they may differ in the last bits."""
GROUP_LISTS = ("base_lrs", "min_lrs", "base_values")
"""Attributes in which schedulers keep one value for each group: torch's, torch's ReduceLROnPlateau, timm's."""


def rates_out_of_order(setup: TrainingSetup) -> Iterator[Finding]:
    """Find layers that learn faster than a layer above them."""
    rates = _trainable_rates(setup)
    faster: set[str] = set()
    pairs = []
    for stack in _rates_by_stack(setup.layer_map, rates):
        ceiling, above = float("inf"), -1
        for layer_id in sorted({layer for layer, _ in stack.values()}, reverse=True):
            of_layer = {name: rate for name, (layer, rate) in stack.items() if layer == layer_id}
            wrong = [name for name, rate in of_layer.items() if rate > ceiling * (1 + TOLERANCE)]
            if wrong:
                faster.update(wrong)
                pairs.append(f"{setup.layer_map.layer_name(layer_id)} faster than {setup.layer_map.layer_name(above)}")
            if min(of_layer.values()) < ceiling:
                ceiling, above = min(of_layer.values()), layer_id
    if faster:
        yield Finding(
            "rates_out_of_order",
            "warning",
            f"layers learn faster than layers above them: {'; '.join(dict.fromkeys(pairs))}",
            tuple(name for name in rates if name in faster),
            "The general features of the lower layers are rewritten first, against the purpose of layer-wise rates.",
            "Let the rates rise from the embeddings to the head; layerwise_param_groups makes such groups.",
        )


def shared_block_decayed(setup: TrainingSetup) -> Iterator[Finding]:
    """Find blocks that run several times in one pass while the rates differ by layer."""
    layer_map = setup.layer_map
    main = next(iter(layer_map.stacks))
    below = {name: found for name, found in _trainable_rates(setup).items() if found[0] != layer_map.head_layer}
    names = [name for name, (layer, _) in below.items() if layer in layer_map.shared_layers]
    names = [name for name in names if layer_map.stack(name) == main]
    rates = [rate for _, rate in below.values()]
    if names and max(rates) > min(rates) * (1 + TOLERANCE):
        blocks = ", ".join(layer_map.layer_name(layer) for layer in sorted(layer_map.shared_layers))
        yield Finding(
            "shared_block_decayed",
            "warning",
            f"{blocks} runs several times with the same weights, under rates that differ by layer",
            tuple(names),
            "One set of weights is both a low and a high layer, with one rate: there is no decay over the depth.",
            "Give the encoder of such a model one rate (strategy: full), and the head its own.",
        )


def lr_scale_unread(setup: TrainingSetup) -> Iterator[Finding]:
    """Find groups whose labels `lr_scale` differ while their rates do not follow the labels."""
    labelled = [group for group in setup.groups if "lr_scale" in group]
    scales = [float(group["lr_scale"]) for group in labelled]
    if len(set(scales)) < 2:
        return
    kept, now = [setup.rate(group) for group in labelled], [float(group["lr"]) for group in labelled]
    if _proportional(kept, scales) or _proportional(now, scales):
        return
    yield Finding(
        "lr_scale_unread",
        # Without a scheduler to look at, the loop itself may multiply before each step, as MAE's does.
        "error" if setup.scheduler is not None else "warning",
        f"{len(labelled)} groups carry lr_scale from {min(scales):.3g} to {max(scales):.3g}, "
        f"and rates from {min(kept):.3g} to {max(kept):.3g} that do not follow it",
        tuple(name for group in labelled for name in setup.names_in(group)),
        "torch's optimizers and schedulers ignore lr_scale, so there is no layer-wise decay.",
        "Set group['lr'] = lr * group['lr_scale'] before the scheduler is made, or use one that reads it (timm's).",
    )


def group_without_schedule(setup: TrainingSetup) -> Iterator[Finding]:
    """Find groups that were added to the optimizer after its scheduler was made."""
    if setup.scheduled_optimizer is not setup.optimizer:
        return
    number = min(map(_num_scheduled, _single_schedulers(setup.scheduler)))
    late = setup.groups[number:]
    if late:
        rates = ", ".join(f"{float(group['lr']):g}" for group in late)
        yield Finding(
            "group_without_schedule",
            "error",
            f"{counted(len(late), 'group')} newer than the {type(setup.scheduler).__name__}, "
            f"which knows {number} of {len(setup.groups)}",
            tuple(name for group in late for name in setup.names_in(group)),
            f"Their rate stays at {rates}, or scheduler.step() raises.",
            "Make all groups at the start, the frozen parameters included, and the scheduler after them.",
        )


def scheduler_of_another_optimizer(setup: TrainingSetup) -> Iterator[Finding]:
    """Find a scheduler that was made for another optimizer."""
    if setup.scheduler is None:
        return
    if setup.scheduled_optimizer is None:
        raise CannotTell(f"{type(setup.scheduler).__name__} does not say which optimizer it schedules")
    if setup.scheduled_optimizer is not setup.optimizer:
        yield Finding(
            "scheduler_of_another_optimizer",
            "error",
            f"the {type(setup.scheduler).__name__} schedules another optimizer",
            tuple(name for group in setup.groups for name in setup.names_in(group)),
            "The rates of this optimizer stay as they are; those of the other optimizer change.",
            "Make a new scheduler whenever you make a new optimizer.",
        )


def _trainable_rates(setup: TrainingSetup) -> dict[str, tuple[int, float]]:
    """Return layer id and highest rate of each trainable parameter in the optimizer, by name."""
    return {
        name: (setup.layer_map.layer_id(name), max(map(setup.rate, setup.groups_of[id(parameter)])))
        for name, parameter in setup.trainable().items()
        if id(parameter) in setup.groups_of
    }


def _rates_by_stack(layer_map: LayerMap, rates: dict[str, tuple[int, float]]) -> Iterator[dict[str, tuple[int, float]]]:
    """Yield the rates of each stack, together with those of the head that all stacks share."""
    head = {name: rates[name] for name in rates if rates[name][0] == layer_map.head_layer}
    stacks: dict[str, dict[str, tuple[int, float]]] = {}
    for name in rates.keys() - head.keys():
        stacks.setdefault(layer_map.stack(name), dict(head))[name] = rates[name]
    yield from stacks.values()


def _proportional(rates: Sequence[float], scales: Sequence[float]) -> bool:
    """Whether the rates are proportional to the scales; False if all are zero, as at the start of a warm-up."""
    lr = max((rate / scale for rate, scale in zip(rates, scales) if scale > 0), default=0.0)
    return lr > 0 and all(abs(rate - lr * scale) <= TOLERANCE * lr * scale for rate, scale in zip(rates, scales))


def _single_schedulers(scheduler: Any) -> list[Any]:
    """List the schedulers inside a SequentialLR or ChainedScheduler, or the scheduler itself."""
    inner = getattr(scheduler, "_schedulers", None)
    return [single for each in inner for single in _single_schedulers(each)] if inner else [scheduler]


def _num_scheduled(scheduler: Any) -> int:
    """Count the groups of the optimizer, from the first on, to which the scheduler gives a rate."""
    num_groups: int = len(scheduler.optimizer.param_groups)
    known = next((getattr(scheduler, key) for key in GROUP_LISTS if hasattr(scheduler, key)), None)
    # ReduceLROnPlateau extends its list by itself if it was given one lowest rate for all groups.
    if known is None or len(known) >= num_groups or getattr(scheduler, "default_min_lr", None) is not None:
        return num_groups
    # StepLR and others multiply the rate that each group has, which includes the groups added later.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return len(scheduler.get_lr())
        except (AttributeError, KeyError, NotImplementedError, ValueError):
            return len(known)
