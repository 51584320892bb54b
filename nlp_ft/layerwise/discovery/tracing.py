"""Traces the flow of data through a model in one small forward pass, operation by operation.

The pass runs in eval mode and without gradients, on the device of the weights (on `meta` nothing is computed), and
leaves the model and the random numbers as they were. Tensors are identified by their storage, so views of a tensor and
writes in place are followed too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nlp_ft.layerwise.discovery.undisturbed import undisturbed

Shape = tuple[int, ...]


@dataclass
class Use:
    """The first use of a parameter outside the blocks, together with data.

    Args:
        time: time of that use; if a block is given the parameter itself (DeBERTa's position table), time of that block.
        blocks: bit mask of the blocks that the data has passed.
    """

    time: int
    blocks: int


@dataclass
class Trace:
    """The trace of a forward pass. Blocks and parameters are numbered in the order in which `trace` got them.

    Args:
        begun: block -> time of its first run.
        runs: block -> number of its runs.
        upstream: block -> bit mask of the blocks that its first input has passed.
        axes: block -> most axes of a tensor that its first run got.
        shapes: block -> shape of its first output.
        uses: parameter -> its first use.
        inputs: path of a module outside the blocks -> time and shape of its first input.
        blind: blocks in whose arguments no tensors were found.
        feeding: bit mask of the parameters on which the input of some block depends.
        failure: the exception that ended the pass; None if it reached its end.
    """

    begun: dict[int, int] = field(default_factory=dict)
    runs: dict[int, int] = field(default_factory=dict)
    upstream: dict[int, int] = field(default_factory=dict)
    axes: dict[int, int] = field(default_factory=dict)
    shapes: dict[int, Shape] = field(default_factory=dict)
    uses: dict[int, Use] = field(default_factory=dict)
    inputs: dict[str, tuple[int, Shape]] = field(default_factory=dict)
    blind: set[int] = field(default_factory=set)
    feeding: int = 0
    failure: Exception | None = None


def trace(model: nn.Module, inputs: Any, blocks: Sequence[nn.Module], parameters: Sequence[torch.Tensor]) -> Trace:
    """Run a model once, and record when its blocks and its parameters outside the blocks are used, and on what data.

    Args:
        model: the model; it is left as it was.
        inputs: keyword arguments of the forward pass, as a dict, or its one positional argument.
        blocks: the modules to follow.
        parameters: the parameters outside all blocks.
    """
    watcher = _Watcher(blocks, parameters)
    with undisturbed(model), watcher.watching(model):
        try:
            with torch.no_grad(), watcher:
                model.forward(**inputs) if isinstance(inputs, Mapping) else model.forward(inputs)
        except Exception as error:  # a forward pass may raise anything; what was recorded until then is used
            watcher.trace.failure = error
    return watcher.trace


@dataclass
class _Origin:
    """The origin of the content of a storage.

    Args:
        blocks: bit mask of the blocks that the data has passed.
        parameters: bit mask of the parameters that the content depends on.
        pure: whether the content is made of parameters alone, such as a weight that is transposed before use.
    """

    blocks: int = 0
    parameters: int = 0
    pure: bool = False


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class has no types
    def __init__(self, blocks: Sequence[nn.Module], parameters: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self.time = 0
        self._blocks = {id(block): index for index, block in enumerate(blocks)}
        self._origins: dict[int, _Origin] = {}
        self._handed: dict[int, int] = {}
        # Storages are kept alive: a freed storage would give its address to another.
        self._kept: list[Any] = []
        for index, parameter in enumerate(parameters):
            origin = self._origins.setdefault(self._key(parameter), _Origin(pure=True))
            origin.parameters |= 1 << index

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._follow(list(_tensors((args, kwargs))), list(_tensors(out)))
        return out

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Watch the blocks, and the modules outside them, inside the `with` block."""
        handles, wrapped = [], []
        blocks = [module for module in model.modules() if id(module) in self._blocks]
        within = {id(inner) for block in blocks for inner in block.modules()}
        for block in blocks:
            # Not a hook: SqueezeBERT calls `layer.forward(...)`, which does not run hooks.
            wrapped.append((block, block.__dict__.get("forward")))
            block.__dict__["forward"] = self._watched(block)
        for path, module in model.named_modules():
            if id(module) not in within and (module._parameters or not module._modules):
                handles.append(module.register_forward_pre_hook(self._module_begins(path), with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for block, own in wrapped:
                del block.__dict__["forward"]
                if own is not None:
                    block.__dict__["forward"] = own

    def _watched(self, block: nn.Module) -> Callable[..., Any]:
        forward = block.forward

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._block_begins(block, (args, kwargs))
            output = forward(*args, **kwargs)
            self._block_ends(block, output)
            return output

        return watched

    def _key(self, tensor: torch.Tensor) -> int:
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):  # a tensor subclass without one storage of its own
            self._kept.append(tensor)
            return id(tensor)
        self._kept.append(storage)
        return int(storage._cdata)

    def _origin(self, tensor: torch.Tensor) -> _Origin:
        # A parameter inside a block counts as pure too, because it does not show which blocks the data has passed.
        return self._origins.setdefault(self._key(tensor), _Origin(pure=isinstance(tensor, nn.Parameter)))

    def _follow(self, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
        origins = [self._origin(tensor) for tensor in inputs]
        # A constant of one element, as in `1 + weight`, does not count as data.
        data = [origin for origin, tensor in zip(origins, inputs) if not origin.pure and tensor.numel() > 1]
        blocks = parameters = met = 0
        for origin in origins:
            blocks |= origin.blocks
            parameters |= origin.parameters
            met |= origin.parameters if origin.pure else 0
        pure = not data and any(origin.pure for origin in origins)
        if met and data:
            self._meet(met, blocks)
        seen = {id(origin) for origin in origins}
        for tensor in outputs:
            origin = self._origins.setdefault(self._key(tensor), _Origin(blocks, parameters, pure))
            if id(origin) not in seen or not origin.pure:
                origin.blocks |= blocks
                origin.parameters |= parameters
                origin.pure = pure

    def _meet(self, parameters: int, blocks: int) -> None:
        self.time += 1
        for index in _bits(parameters):
            self.trace.uses.setdefault(index, Use(self._handed.get(index, self.time), blocks))

    def _block_begins(self, module: nn.Module, inputs: Any) -> None:
        index = self._blocks[id(module)]
        self.time += 1
        self.trace.begun.setdefault(index, self.time)
        self.trace.runs[index] = self.trace.runs.get(index, 0) + 1
        upstream = 0
        tensors = list(_tensors(inputs))
        if not tensors:
            self.trace.blind.add(index)
        self.trace.axes.setdefault(index, max((tensor.ndim for tensor in tensors), default=0))
        for tensor in tensors:
            origin = self._origin(tensor)
            upstream |= origin.blocks
            self.trace.feeding |= origin.parameters
            if origin.pure:
                for parameter in _bits(origin.parameters):
                    self._handed.setdefault(parameter, self.time)
        self.trace.upstream.setdefault(index, upstream)

    def _block_ends(self, module: nn.Module, output: Any) -> None:
        index = self._blocks[id(module)]
        for tensor in _tensors(output):
            self.trace.shapes.setdefault(index, tuple(tensor.shape))
            self._origin(tensor).blocks |= 1 << index

    def _module_begins(self, path: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.time += 1
            shape = next((tuple(tensor.shape) for tensor in _tensors((args, kwargs))), ())
            self.trace.inputs.setdefault(path, (self.time, shape))

        return note


def _bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def keeps_positions(one: Shape, other: Shape) -> bool:
    """Whether two shapes have the same tokens, (batch, seq_len, hidden), or the same height and width."""
    if len(one) != len(other) or len(one) < 3:
        return False
    if len(one) == 4:  # channels may come first or last
        return sum(a != b for a, b in zip(one, other)) < 2
    return one[:-1] == other[:-1]


def _tensors(values: Any, reach: int = 2) -> Iterator[torch.Tensor]:
    """Yield all tensors in arguments or results, also inside objects: some blocks take a dataclass of hidden states."""
    for leaf in tree_leaves(values):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif reach and not isinstance(leaf, (nn.Module, type)) and not callable(leaf):
            yield from _tensors(_attributes(leaf), reach - 1)


def _attributes(value: Any) -> list[Any]:
    if is_dataclass(value):
        return [getattr(value, part.name, None) for part in fields(value)]
    return list(getattr(value, "__dict__", {}).values())
