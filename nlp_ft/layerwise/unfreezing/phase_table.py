"""Prints the phases of a plan before training: a table and a timeline."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from nlp_ft.layerwise.layer_map import LayerMap
from nlp_ft.layerwise.unfreezing.plan import UnfreezePlan
from nlp_ft.tables import short_count, short_rate, short_share, terminal_width, text_table, wrapped


def phase_table_of(
    plan: UnfreezePlan, model: nn.Module, layer_map: LayerMap, groups: Sequence[Mapping[str, Any]]
) -> str:
    """Format the phases of a plan for a model; the groups are labelled, and one outside the model does not count."""
    sizes: Counter[int] = Counter()
    for name, parameter in model.named_parameters():
        sizes[layer_map.aligned_layer(name)] += parameter.numel()
    first = [(group["param_names"][0], group["initial_lr"]) for group in groups]
    return phase_table(plan, sizes, {layer_map.aligned_layer(n): rate for n, rate in first if n in layer_map.names})


def phase_table(plan: UnfreezePlan, sizes: Mapping[int, int], rates: Mapping[int, float]) -> str:
    """Format the phases of a plan as a table and a timeline.

    Args:
        plan: the plan.
        sizes: layer id -> number of the layer's parameters.
        rates: layer id -> base learning rate of the layer.
    """
    total = sum(sizes.values())
    rows = []
    for number, (phase, start) in enumerate(zip(plan.schedule.phases, plan.expected_starts())):
        trained = sum(sizes.get(layer, 0) for layer in phase.layers)
        chosen = [rates[layer] * phase.lr_scale for layer in phase.layers if layer in rates]
        low, high = short_rate(min(chosen)), short_rate(max(chosen))
        span = low if low == high else f"{low} to {high}"
        begins = "waits" if start is None else str(start)
        names = plan.schedule.layer_names(phase.layers)
        rows.append([str(number + 1), begins, names, span, short_count(trained), short_share(trained, total)])
    header = ["phase", "step", "layers that train", "lr", "size", "share"]
    table = text_table(header, rows, {0, 1, 3, 4, 5}, terminal_width(), shrink={2})
    return "\n".join([table, *_conditions(plan), "", _timeline(plan)])


def _conditions(plan: UnfreezePlan) -> list[str]:
    """Write a line for each condition that phases wait for."""
    waiting: dict[str, list[int]] = {}
    for number, (phase, start) in enumerate(zip(plan.schedule.phases, plan.expected_starts()), 1):
        if start is None:
            waiting.setdefault(str(phase.start), []).append(number)
    return [wrapped(f"phase {', '.join(map(str, n))} waits for: {condition}") for condition, n in waiting.items()]


def _timeline(plan: UnfreezePlan, width: int = 60) -> str:
    """Draw a row for each layer, from the head down, with marks while it trains.

    The timeline is to scale only if no phase waits for a condition.
    """
    schedule, starts = plan.schedule, plan.expected_starts()
    known = [start for start in starts if start is not None]
    to_scale = len(known) == len(starts)
    edges = [start * width // plan.total_steps for start in known] if to_scale else _even(len(starts), width)
    spans = [end - start for start, end in pairwise([*edges, width])]
    lines = [
        f"{schedule.layer_names([layer]):>10}  "
        + "".join(("#" if layer in phase.layers else ".") * span for phase, span in zip(schedule.phases, spans))
        for layer in range(schedule.num_layers + 1, -1, -1)
    ]
    scale = f"steps 0 to {plan.total_steps}" if to_scale else "not to scale: conditions decide when phases begin"
    return "\n".join([*lines, f"{'':>10}  {scale}"])


def _even(parts: int, width: int) -> list[int]:
    return [width * part // parts for part in range(parts)]
