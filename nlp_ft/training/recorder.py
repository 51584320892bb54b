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

NUM_SAMPLES = 50
"""Steps of a run that are looked at, beside the first and the last one."""
MOST_ENTRIES = 4096
"""Entries of one tensor that are looked at."""
Layers = Mapping[str, Sequence[torch.nn.Parameter]]


class Recorder:
    """Looks at some steps of a run; the loop calls its methods in the order in which they stand here.

    Args:
        layers: name of each layer -> its parameters, with the weights of the start.
        total_steps: length of the run in optimizer steps.
        num_samples: steps to look at; 0 looks at none.
    """

    def __init__(self, layers: Layers, total_steps: int, num_samples: int = NUM_SAMPLES) -> None:
        self._layers = layers
        self._total_steps = total_steps
        self._every = math.ceil(total_steps / num_samples) if num_samples else 0
        self._start = {name: [_some(one) for one in of] for name, of in layers.items()} if num_samples else {}
        self._size = {name: _whole_norm(of, layers[name]) for name, of in self._start.items()}
        self._looks = False
        self._clock = 0.0
        self._seconds: dict[str, float] = {}
        self._gradients: dict[str, torch.Tensor] = {}
        self._before: dict[str, list[torch.Tensor]] = {}

    @classmethod
    def of_groups(cls, groups: Sequence[Mapping[str, Any]], total_steps: int, is_on: bool = True) -> "Recorder":
        """Make a recorder for the layers of labelled parameter groups, from the head down."""
        layers: dict[str, list[torch.nn.Parameter]] = {}
        for group in groups:
            layers.setdefault(group["name"].removesuffix(", no_weight_decay"), []).extend(group["params"])
        return cls(layers, total_steps, NUM_SAMPLES if is_on else 0)

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
            name: _norm_of(torch._foreach_norm(gradients)) / gradient_scale
            for name, gradients in found.items()
            if gradients
        }
        self._before = {name: [_some(one) for one in self._layers[name]] for name in self._gradients}
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
        if not self._looks:
            return None
        values: dict[str, list[torch.Tensor]] = {"gradient_norm": [], "update_ratio": [], "drift": []}
        for name, before in self._before.items():
            whole = self._layers[name]
            after = [_some(one) for one in whole]
            values["gradient_norm"].append(self._gradients[name])
            change = _whole_norm(torch._foreach_sub(after, before), whole)
            values["update_ratio"].append(change / _whole_norm(before, whole))
            values["drift"].append(_whole_norm(torch._foreach_sub(after, self._start[name]), whole) / self._size[name])
        record: dict[str, Any] = {"step": step}
        for quantity, of_layers in values.items():
            numbers = torch.stack(of_layers).tolist() if of_layers else []
            record[quantity] = {name: number for name, number in zip(self._before, numbers) if math.isfinite(number)}
        self._before, self._gradients = {}, {}
        return {**record, "seconds": {part: round(seconds, 6) for part, seconds in self._seconds.items()}}


def _some(weights: torch.Tensor) -> torch.Tensor:
    """Copy at most `MOST_ENTRIES` entries of a tensor, evenly spread, (entries,), in float32."""
    flat = weights.detach().reshape(-1)
    # An odd distance does not meet the same columns of a matrix again and again.
    return flat[:: math.ceil(flat.numel() / MOST_ENTRIES) | 1].float().clone()


def _whole_norm(entries: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor]) -> torch.Tensor:
    """Estimate the norm of whole tensors from some of their entries."""
    shares = [whole.numel() / some.numel() for whole, some in zip(parameters, entries, strict=True)]
    norms = torch.stack(list(torch._foreach_norm(tuple(entries)))).double()
    return (norms.square() * torch.tensor(shares, dtype=torch.float64, device=norms.device)).sum().sqrt()


def _norm_of(norms: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([norm.double() for norm in norms]).square().sum().sqrt()


def _now() -> float:
    """Read the clock after the accelerator has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
