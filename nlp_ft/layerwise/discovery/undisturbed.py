"""Runs trial forward passes in eval mode, and restores the model afterwards.

Some models change for good in one pass: on a short text, BigBird replaces its sparse attention by full attention. So
everything that a pass may change is recorded before it and restored after it: modules, attributes, configurations,
buffers and random numbers. Parameters are not: a pass without an optimizer does not change them.
"""

import random
import sys
from collections import deque
from collections.abc import Iterable, Iterator, MutableMapping, MutableSequence, MutableSet
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

REACH = 4
"""Depth to which the attributes of a module are recorded: a config, its sub-config, a list in it, an item of that."""
NO_STATE = (type, FunctionType, MethodType, ModuleType, nn.Parameter, str, bytes, int, float, bool, type(None))


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode inside the `with` block, then restore it, its attributes and the random numbers."""
    memory = _Memory(model)
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)), _other_random_numbers():
        for module in list(model.modules()):
            # Not `model.eval()`: a frozen module may have a `train` method of its own.
            module.training = False
        try:
            yield
        finally:
            memory.restore()


@contextmanager
def only_trainable(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Give `requires_grad` to these parameters alone inside the `with` block, then restore the flags."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    own = {id(parameter) for parameter in parameters}
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in own)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def pre_hook(module: nn.Module, function: Any) -> Iterator[None]:
    """Register a forward pre-hook that gets keyword arguments, for the length of the `with` block."""
    handle: RemovableHandle = module.register_forward_pre_hook(function, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _other_random_numbers() -> Iterator[None]:
    """Restore the random state of Python, and of NumPy if it is in use: BigBird seeds them in each pass."""
    numpy = sys.modules.get("numpy")
    kept, kept_by_numpy = random.getstate(), numpy and numpy.random.get_state()
    try:
        yield
    finally:
        random.setstate(kept)
        if numpy:
            numpy.random.set_state(kept_by_numpy)


class _Memory:
    """A record of everything reachable from a model, object by object, to restore what has changed."""

    def __init__(self, model: nn.Module) -> None:
        self._seen: set[int] = set()
        self._attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._mappings: list[tuple[MutableMapping[Any, Any], list[tuple[Any, Any]]]] = []
        self._lists: list[tuple[MutableSequence[Any], list[Any]]] = []
        self._sets: list[tuple[MutableSet[Any], set[Any]]] = []
        self._tensors: list[tuple[torch.Tensor, torch.Tensor]] = []
        for module in model.modules():
            self._note(module, REACH)

    def _note(self, value: Any, reach: int) -> None:
        if isinstance(value, NO_STATE) or id(value) in self._seen or reach < 0:
            return
        self._seen.add(id(value))
        inner: list[Any] = []
        if isinstance(value, torch.Tensor):
            # A tensor that is expanded from one number cannot be written to.
            if not value.is_meta and 0 not in value.stride():
                self._tensors.append((value, value.detach().clone()))
            return
        if isinstance(value, (MutableMapping, MutableSequence, deque, MutableSet, tuple)):
            inner = self._note_items(value)
        if isinstance(own := getattr(value, "__dict__", None), dict):
            self._attributes.append((own, dict(own)))
            inner += own.values()
        for item in inner:
            # Modules are recorded one by one, each to the full depth.
            if not isinstance(item, nn.Module):
                self._note(item, reach - 1)

    def _note_items(self, value: Any) -> list[Any]:
        if isinstance(value, MutableMapping):
            self._mappings.append((value, list(value.items())))
            return list(value.values())
        if isinstance(value, (MutableSequence, deque)):
            self._lists.append((value, list(value)))
        elif isinstance(value, MutableSet):
            self._sets.append((value, set(value)))
        return list(value)

    def restore(self) -> None:
        """Restore everything that has changed."""
        for own, kept in self._attributes:
            if not _same(list(own.items()), list(kept.items())):
                own.clear()
                own.update(kept)
        for mapping, pairs in self._mappings:
            if not _same(list(mapping.items()), pairs):
                mapping.clear()
                mapping.update(pairs)
        for sequence, items in self._lists:
            if [id(item) for item in sequence] != [id(item) for item in items]:
                sequence.clear()
                sequence.extend(items)
        for members, before in self._sets:
            if members != before:
                members.clear()
                for member in before:
                    members.add(member)
        with torch.no_grad():
            for tensor, values in self._tensors:
                if not torch.equal(tensor, values):
                    tensor.copy_(values)


def _same(pairs: list[tuple[Any, Any]], others: list[tuple[Any, Any]]) -> bool:
    return [(key, id(value)) for key, value in pairs] == [(key, id(value)) for key, value in others]
