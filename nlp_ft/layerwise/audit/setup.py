"""What the audit looks at, and what it says of it: `TrainingSetup` and `Finding`."""

from collections.abc import Iterator
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
    """One thing that will go wrong.

    `error`: the training will not do what its set-up says. `warning`: it will, but hardly as it was meant.
    """

    check: str
    """Name of the check that found it."""
    severity: Severity
    what: str
    """The fact, one sentence."""
    parameters: tuple[str, ...]
    """Names of the parameters it is about, as in `model.named_parameters()`."""
    effect: str
    """What it will do to the training."""
    remedy: str
    """How to mend it."""

    def __str__(self) -> str:
        return f"{self.severity}: {self.check}: {self.what} ({listed(self.parameters, 3)}). {self.effect} {self.remedy}"


class CannotTell(Exception):  # noqa: N818  # no error: the report names the check and this reason as not checked
    """Raised by a check that cannot be made on this set-up, with the reason."""


class TrainingSetup:
    """A model, the optimizer and the scheduler without their wrappers, and questions that several checks ask.

    Args:
        model: the model that is trained, in the wrappers in which it is trained.
        optimizer: its optimizer; Accelerate's wrapper is looked through.
        scheduler: its scheduler, or None; Accelerate's wrapper is looked through.
        layer_map: its layer map; None builds it when a check asks for it.
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
        """Raises: LayerMapError: the architecture cannot be mapped."""
        return self._layer_map or LayerMap.from_model(self.model)

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """First name -> parameter of the model; a tied weight is there once."""
        return dict(self.model.named_parameters())

    @cached_property
    def all_names(self) -> dict[int, list[str]]:
        """id of a parameter -> every name it has in the model; a tied weight has several."""
        names: dict[int, list[str]] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        return names

    @cached_property
    def places(self) -> dict[int, list[Group]]:
        """id of a parameter -> the group of each time that it stands in the optimizer."""
        places: dict[int, list[Group]] = {}
        for group in self.groups:
            for parameter in group["params"]:
                places.setdefault(id(parameter), []).append(group)
        return places

    def trainable(self) -> dict[str, nn.Parameter]:
        """First name -> parameter, of those with `requires_grad`."""
        return {name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad}

    def optimized(self) -> Iterator[tuple[str, nn.Parameter, Group]]:
        """(first name, parameter, its first group) of the model's parameters that the optimizer holds."""
        for name, parameter in self.parameters.items():
            if id(parameter) in self.places:
                yield name, parameter, self.places[id(parameter)][0]

    def names_in(self, group: Group) -> tuple[str, ...]:
        """Names of a group's parameters; those that are not of the model carry the label or the shape they have."""
        labels = group.get("param_names") or [f"a tensor of shape {tuple(p.shape)}" for p in group["params"]]
        return tuple(self.all_names.get(id(p), [label])[0] for p, label in zip(group["params"], labels))

    def rate(self, group: Group) -> float:
        """Learning rate of a group over the run, without the factor that a schedule gives it just now."""
        lr = float(group["initial_lr"] if "initial_lr" in group else group["lr"])
        return lr * float(group["lr_scale"]) if self.scheduler_reads_lr_scale and "lr_scale" in group else lr

    @property
    def scheduler_reads_lr_scale(self) -> bool:
        """Whether it is one of timm's, which multiply by the label `lr_scale`; torch's do not."""
        return hasattr(self.scheduler, "update_groups") and hasattr(self.scheduler, "param_group_field")


def unwrapped(wrapper: Any, attribute: str) -> Any:
    """What Accelerate's `AcceleratedOptimizer` and `AcceleratedScheduler` hold in `optimizer` and `scheduler`."""
    while hasattr(wrapper, attribute):
        wrapper = getattr(wrapper, attribute)
    return wrapper


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 parameter is`, `2 parameters are`."""
    return f"{number} {noun} is" if number == 1 else f"{number} {plural or noun + 's'} are"
