"""`TrainingSetup`, which the checks of the audit look at, and `Finding`, which they yield."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

from nlp_ft.errors import listed
from nlp_ft.layerwise.layer_map import LayerMap

Severity = Literal["error", "warning"]
Group = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """One thing that will go wrong in a training.

    Args:
        check: name of the check that found it.
        severity: `error` if the training will not do what its set-up says; `warning` if it will, but the set-up is
            probably not what was meant.
        what: the fact, in one sentence.
        parameters: names of the parameters concerned, as in `model.named_parameters()`.
        effect: its effect on the training.
        remedy: how to correct it.
    """

    check: str
    severity: Severity
    what: str
    parameters: tuple[str, ...]
    effect: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.check}: {self.what} ({listed(self.parameters, 3)}). {self.effect} {self.remedy}"


class CannotTell(Exception):  # noqa: N818  # no error: the report names the check and this reason as not checked
    """A check cannot be made on this set-up; the message gives the reason."""


class TrainingSetup:
    """A model with its optimizer and scheduler, and answers to questions that several checks ask.

    Args:
        model: the model that is trained, with its wrappers.
        optimizer: its optimizer; Accelerate's wrapper is removed.
        scheduler: its scheduler, or None; Accelerate's wrapper is removed.
        layer_map: the model's layer map; None builds it when a check asks for it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Any = None,
        layer_map: LayerMap | None = None,
    ) -> None:
        self.model = model
        self.optimizer = unwrapped(optimizer, "optimizer")
        self.scheduler = unwrapped(scheduler, "scheduler")
        self.scheduled_optimizer = unwrapped(getattr(self.scheduler, "optimizer", None), "optimizer")
        self.groups: list[Group] = self.optimizer.param_groups
        self._layer_map = layer_map

    @cached_property
    def layer_map(self) -> LayerMap:
        """The model's layer map. Raises `LayerMapError` if the architecture cannot be mapped."""
        return self._layer_map or LayerMap.from_model(self.model)

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters of the model by name; a tied weight occurs once, under its first name."""
        return dict(self.model.named_parameters())

    @cached_property
    def all_names(self) -> dict[int, list[str]]:
        """All names of each parameter in the model, by the parameter's `id`; a tied weight has several."""
        names: dict[int, list[str]] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        return names

    @cached_property
    def groups_of(self) -> dict[int, list[Group]]:
        """The optimizer's groups that hold each parameter, by the parameter's `id`; one for each time it occurs."""
        groups_of: dict[int, list[Group]] = {}
        for group in self.groups:
            for parameter in group["params"]:
                groups_of.setdefault(id(parameter), []).append(group)
        return groups_of

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters with `requires_grad`, by first name."""
        return {name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad}

    def optimized(self) -> Iterator[tuple[str, nn.Parameter, Group]]:
        """Yield first name, parameter and first group of each of the model's parameters in the optimizer."""
        for name, parameter in self.parameters.items():
            if id(parameter) in self.groups_of:
                yield name, parameter, self.groups_of[id(parameter)][0]

    def names_in(self, group: Group) -> tuple[str, ...]:
        """Return the names of a group's parameters; those outside the model go by their label or their shape."""
        labels = group.get("param_names") or [f"a tensor of shape {tuple(p.shape)}" for p in group["params"]]
        return tuple(self.all_names.get(id(p), [label])[0] for p, label in zip(group["params"], labels))

    def rate(self, group: Group) -> float:
        """Return the base learning rate of a group, without the factor of the schedule at the current step."""
        lr = float(group["initial_lr"] if "initial_lr" in group else group["lr"])
        return lr * float(group["lr_scale"]) if self.scheduler_reads_lr_scale and "lr_scale" in group else lr

    @property
    def scheduler_reads_lr_scale(self) -> bool:
        """Whether the scheduler is one of timm's, which multiply by the label `lr_scale`; torch's do not."""
        return hasattr(self.scheduler, "update_groups") and hasattr(self.scheduler, "param_group_field")


def unwrapped(wrapper: Any, attribute: str) -> Any:
    """Remove Accelerate's wrapper from an optimizer or scheduler, which it holds in the attribute of that name."""
    while hasattr(wrapper, attribute):
        wrapper = getattr(wrapper, attribute)
    return wrapper


def about(
    parameters: Sequence[str], check: str, severity: Severity, what: str, effect: str, remedy: str
) -> Iterator[Finding]:
    """Yield one finding about these parameters, or none if there are no parameters."""
    if parameters:
        yield Finding(check, severity, what, tuple(parameters), effect, remedy)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return `1 parameter is`, `2 parameters are`, ..."""
    return f"{number} {noun} is" if number == 1 else f"{number} {plural or noun + 's'} are"
