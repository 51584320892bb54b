"""Records how each layer trains: gradients, updates, drift, and where the time of a step goes.

It looks at a few steps of a run, and of each tensor of weights at a few entries, evenly spread; gradients it takes
whole. It only reads, so a run with it has the same weights to the bit. Which steps it looks at depends on the length of
the run alone, and what it finds on the step and on the weights at the start: a resumed run records the same, but for
the seconds.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nlp_ft.training.whole_tensors import whole

MOST_LOOKS = 50
"""Steps of a run that are looked at, beside the first and the last one."""
STEPS_BETWEEN_LOOKS = 8
"""Fewest steps from one look to the next: a look costs 3 % of a step of a small encoder on a CPU."""
MOST_ENTRIES = 4096
"""Entries of one tensor that are looked at."""
Layers = Mapping[str, Sequence[torch.nn.Parameter]]


class Recorder:
    """Looks at some steps of a run; the loop calls its methods in the order in which they stand here.

    Args:
        layers: name of each layer -> its parameters, with the weights of the start.
        total_steps: length of the run in optimizer steps.
        is_on: whether to look at all.
    """

    def __init__(self, layers: Layers, total_steps: int, is_on: bool = True) -> None:
        self._layers = {name: [one for one in of if one.numel()] for name, of in layers.items()} if is_on else {}
        self._total_steps = total_steps
        self._every = max(STEPS_BETWEEN_LOOKS, math.ceil(total_steps / MOST_LOOKS)) if is_on else 0
        self._looks = False
        self._clock = 0.0
        self._seconds: dict[str, float] = {}
        self._gradients: dict[str, torch.Tensor] = {}
        self._start = self._before = self._some_weights()
        self._sizes = self._norms(self._start)

    @classmethod
    def of_groups(cls, groups: Sequence[Mapping[str, Any]], total_steps: int, is_on: bool = True) -> "Recorder":
        """Make a recorder for the layers of labelled parameter groups, from the head down."""
        layers: dict[str, list[torch.nn.Parameter]] = {}
        for group in groups:
            layers.setdefault(group["name"].removesuffix(", no_weight_decay"), []).extend(group["params"])
        return cls(layers, total_steps, is_on)

    def begin(self, step: int) -> None:
        """Decide whether to look at update `step`, from 0, and start its clock."""
        number = step + 1
        self._looks = bool(self._every) and (number % self._every == 0 or number in (1, self._total_steps))
        if self._looks:
            self._seconds = {}
            self._clock = _now()

    def passed(self, part: str) -> None:
        """Note that a part of the step has ended, such as `forward`; its parts of several micro-batches add up."""
        if self._looks:
            now = _now()
            self._seconds[part] = self._seconds.get(part, 0.0) + now - self._clock
            self._clock = now

    def before_update(self, gradient_scale: float = 1.0) -> None:
        """Look at the gradients before they are clipped, and at the weights.

        Args:
            gradient_scale: factor on the gradients, from a scaler of float16.
        """
        if not self._looks:
            return
        found = {name: [one.grad for one in of if one.grad is not None] for name, of in self._layers.items()}
        self._gradients = {
            name: whole(torch.stack(torch._foreach_norm(gradients))).float().cpu().double().norm() / gradient_scale
            for name, gradients in found.items()
            if gradients
        }
        self._before = self._some_weights()
        self._clock = _now()

    def after_update(self, step: int) -> dict[str, Any] | None:
        """Look at the weights after an update.

        Args:
            step: number of updates that are done.

        Returns:
            A record with `step`, and for each layer that trains `gradient_norm`, `update_ratio` (norm of the change of
            this update / norm of the weights) and `drift` (norm of the change since the start / norm at the start); and
            `seconds` of each part of the step. None if this step is not looked at.
        """
        if not self._looks or not self._gradients:
            return None
        after = self._some_weights()
        ratios = [
            self._norms(after - self._before) / self._norms(self._before),
            self._norms(after - self._start) / self._sizes,
        ]
        names = list(self._layers)
        update, drift = (dict(zip(names, ratio.tolist())) for ratio in ratios)
        gradients = dict(zip(self._gradients, torch.stack([*self._gradients.values()]).tolist()))
        found = {"gradient_norm": gradients, "update_ratio": update, "drift": drift}
        known = {
            quantity: {name: of[name] for name in gradients if math.isfinite(of[name])}
            for quantity, of in found.items()
        }
        seconds = {part: round(value, 6) for part, value in self._seconds.items()}
        return {"step": step, **known, "seconds": seconds}

    def _some_weights(self) -> torch.Tensor:
        """Copy at most `MOST_ENTRIES` entries of each tensor, evenly spread, (entries,), in float32 to the CPU.

        An entry is multiplied by the root of the entries that it stands for, so that norms are those of whole tensors.
        """
        parts = []
        for parameter in (one for of in self._layers.values() for one in of):
            some = whole(parameter.detach()).reshape(-1)[:: _distance(parameter)]
            parts.append(some * math.sqrt(parameter.numel() / some.numel()))
        return torch.cat(parts).float().cpu() if parts else torch.empty(0)

    def _norms(self, entries: torch.Tensor) -> torch.Tensor:
        """Compute the norm of each layer, (layers,), from `_some_weights`, (entries,)."""
        if not self._layers:
            return torch.empty(0)
        lengths = [sum(math.ceil(one.numel() / _distance(one)) for one in of) for of in self._layers.values()]
        return torch.stack([part.double().norm() for part in torch.split(entries, lengths)])


def _distance(parameter: torch.Tensor) -> int:
    """Choose the distance between the entries to look at; an odd one does not meet the same columns again and again."""
    return math.ceil(parameter.numel() / MOST_ENTRIES) | 1


def _now() -> float:
    """Read the clock after the accelerator has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
