"""What flows into what: one small forward pass, watched operation by operation.

The pass runs in eval mode without gradients, on the device of the weights (on `meta` nothing is computed), and leaves
the model and the random numbers as they were. Tensors are told apart by their storage, so that views and writes in
place count too.
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
    """The first time that a parameter outside the blocks meets data."""

    time: int
    """Of that meeting, or earlier, of the first block that is handed the parameter itself (DeBERTa's table)."""
    blocks: int
    """Bit mask of the blocks that the data has passed."""


@dataclass
class Trace:
    """What a forward pass shows. Blocks and parameters are counted as they were given to `trace`."""

    begun: dict[int, int] = field(default_factory=dict)
    """Block -> time of its first run."""
    runs: dict[int, int] = field(default_factory=dict)
    """Block -> number of runs."""
    upstream: dict[int, int] = field(default_factory=dict)
    """Block -> bit mask of the blocks that its first input has passed."""
    shapes: dict[int, Shape] = field(default_factory=dict)
    """Block -> shape of its first output."""
    uses: dict[int, Use] = field(default_factory=dict)
    """Parameter -> its first use."""
    inputs: dict[str, tuple[int, Shape]] = field(default_factory=dict)
    """Module outside the blocks, by path -> time and shape of its first input."""
    blind: set[int] = field(default_factory=set)
    """Blocks that were handed nothing in which tensors can be found."""
    feeding: int = 0
    """Bit mask of the parameters that some block's input depends on."""
    failure: Exception | None = None
    """Why the pass did not reach its end."""


def trace(model: nn.Module, inputs: Any, blocks: Sequence[nn.Module], parameters: Sequence[torch.Tensor]) -> Trace:
    """Run the model once and say in which order, and from what, blocks and outer parameters are computed.

    Args:
        model: the model.
        inputs: keywords of its forward pass, as a dict, or the one positional argument.
        blocks: the modules to follow.
        parameters: the parameters outside all blocks.
    """
    watcher = _Watcher(blocks, parameters)
    with undisturbed(model), watcher.watching(model):
        try:
            with torch.no_grad(), watcher:
                model.forward(**inputs) if isinstance(inputs, Mapping) else model.forward(inputs)
        except Exception as error:  # a model of any make may fail in any way, and what was seen till then counts
            watcher.trace.failure = error
    return watcher.trace


@dataclass
class _Origin:
    """Where a storage's content comes from."""

    blocks: int = 0
    parameters: int = 0
    pure: bool = False
    """Made of parameters alone, as a weight that is transposed before use."""


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class has no types
    def __init__(self, blocks: Sequence[nn.Module], parameters: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self.time = 0
        self._blocks = {id(block): index for index, block in enumerate(blocks)}
        self._origins: dict[int, _Origin] = {}
        self._handed: dict[int, int] = {}
        # A storage that is freed gives its address to another.
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
        """Watch the blocks, and the modules outside them, while the context is open."""
        handles, wrapped = [], []
        blocks = [module for module in model.modules() if id(module) in self._blocks]
        within = {id(inner) for block in blocks for inner in block.modules()}
        for block in blocks:
            # Not a hook: SqueezeBERT calls `layer.forward(...)`, which passes hooks by.
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
        # A parameter of a block counts as pure too: it tells nothing of where the data was.
        return self._origins.setdefault(self._key(tensor), _Origin(pure=isinstance(tensor, nn.Parameter)))

    def _follow(self, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
        origins = [self._origin(tensor) for tensor in inputs]
        # A constant of one element is no data: `1 + weight`.
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
    """Whether two tensors have the same tokens, (batch, seq_len, hidden), or the same height and width."""
    if len(one) != len(other) or len(one) < 3:
        return False
    if len(one) == 4:  # channels may stand first or last
        return sum(a != b for a, b in zip(one, other)) < 2
    return one[:-1] == other[:-1]


def _tensors(values: Any, reach: int = 2) -> Iterator[torch.Tensor]:
    """All tensors in arguments or results, in objects too: blocks may take a dataclass that holds the hidden states."""
    for leaf in tree_leaves(values):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif reach and not isinstance(leaf, (nn.Module, type)) and not callable(leaf):
            yield from _tensors(_attributes(leaf), reach - 1)


def _attributes(value: Any) -> list[Any]:
    if is_dataclass(value):
        return [getattr(value, part.name, None) for part in fields(value)]
    return list(getattr(value, "__dict__", {}).values())


def example_inputs(model: nn.Module) -> Iterator[Any]:
    """Inputs of the smallest size that such a model may take, the likeliest first: token ids, images, or both."""
    config = getattr(model, "config", None)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    main = getattr(model, "main_input_name", None)
    if main is None:
        yield from _images(model, device)
    elif main == "pixel_values":
        for images in _images(model, device):
            yield {"pixel_values": images}
    else:
        ids = _token_ids(config, device)
        yield {main: ids}
        if main == "input_ids":
            yield {"input_ids": ids, "decoder_input_ids": ids}
            for images in _images(model, device):
                yield {"input_ids": ids, "pixel_values": images}


def _token_ids(config: Any, device: torch.device, seq_len: int = 16) -> torch.Tensor:
    """Ids of shape (1, seq_len), distinct where the vocabulary allows, with the end mark last (BART looks for it)."""
    text = _text_config(config)
    size = text.vocab_size if text is not None else 64
    ids = [4 + position % (size - 4) if size > 8 else 1 for position in range(seq_len)]
    end = getattr(text, "eos_token_id", None)
    if isinstance(end, int) and 0 <= end < size:
        ids = [token if token != end else max(token - 1, 0) for token in ids[:-1]] + [end]
    return torch.tensor([ids], device=device)


def _text_config(config: Any) -> Any:
    """The part of a config that has a vocabulary: that of the text's tower, or of an encoder in a larger model."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    parts = [text, *vars(text).values()] if text is not None else []
    return next((part for part in parts if getattr(part, "vocab_size", None)), None)


def _images(model: nn.Module, device: torch.device) -> Iterator[torch.Tensor]:
    """Images of shape (2, channels, height, width); sides differ so that height and width can be told apart."""
    convolution = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if convolution is None:
        return
    config = getattr(model, "config", None)
    vision = [getattr(config, "vision_config", config), *model.modules()]
    own = next((size for part in vision for size in [_image_size(part)] if size), None)
    sizes = [own] if own else [(64, 96), (224, 224), (299, 299)]
    for height, width in sizes:
        yield torch.zeros(2, convolution.in_channels, height, width, device=device, dtype=convolution.weight.dtype)


def _image_size(part: Any) -> tuple[int, int] | None:
    """Height and width that a config, or timm's patch embedding, says it takes."""
    size = getattr(part, "image_size", None) or getattr(part, "img_size", None)
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, (tuple, list)) and len(size) == 2 else None
