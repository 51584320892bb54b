"""The end of the last block for the first token alone, where the head reads no other.

After the attention of the last block no token reads another one any more. In BERT's that leaves out the output of the
attention and the feed-forward part, three quarters of the block's matrix products, for every token but the one that is
read. From where on one token is enough is found from the layer map and proved by trial; nothing is known of any
architecture.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nlp_ft.layerwise.discovery.undisturbed import evaluating, only_trainable, pre_hook, undisturbed
from nlp_ft.layerwise.layer_map import LayerMap
from nlp_ft.layerwise.prefix import ENTRY_ERRORS, TOLERANCE, block_modules

GRADIENT_TOLERANCE = 1e-4
ZERO = 1e-6
"""Of a gradient, as a share of the largest one."""
TRIAL_TOKENS = 16
PROOF_TOKENS = 64
"""Of a text: in the trials, and in the one pass that must prove what they found."""


@dataclass(frozen=True)
class Place:
    """A module that is enough to be given the first token."""

    module: nn.Module
    arguments: tuple[int | str, ...]
    """Those that hold hidden states, (batch, seq_len, hidden): by position or by name."""


def first_token_places(model: nn.Module, layer_map: LayerMap, example: Mapping[str, torch.Tensor]) -> tuple[Place, ...]:
    """Where hidden states can be cut down to the first token without a change of the logits; none: nowhere.

    Args:
        model: the bare model, without wrappers, on the CPU: elsewhere a trial that reads past an end would take the
            device with it. Left as it is.
        layer_map: of the model.
        example: keyword arguments of a forward pass over a few rows, padded, each (batch, seq_len).
    """
    last = _last_block(model, layer_map)
    if last is None:
        return ()
    try:
        with undisturbed(model):
            kept = _accepted(model, last, {key: value[:, :TRIAL_TOKENS] for key, value in example.items()})
            proof = {key: value[:, :PROOF_TOKENS] for key, value in example.items()}
            whole, cut = _pass(model, last, proof, ()), _pass(model, last, proof, kept)
            other = _pass(model, last, proof, kept, token=1)
    except ENTRY_ERRORS:
        return ()
    # Another token must make a difference, or the logits say nothing about what is read.
    is_proved = whole.equals(cut) and not whole.equals(other)
    return kept if is_proved and any(place.module in set(last.modules()) for place in kept) else ()


@contextmanager
def first_token_only(places: Sequence[Place], token: int = 0) -> Iterator[None]:
    """Inside, a forward pass and its backward pass go on with the first token from these places on.

    Args:
        places: of `first_token_places`.
        token: the one that is kept; another one than the first is for trials.
    """
    with ExitStack() as stack:
        for place in places:
            stack.enter_context(pre_hook(place.module, partial(_cut, place, token)))
        yield


def _last_block(model: nn.Module, layer_map: LayerMap) -> nn.Module | None:
    if list(layer_map.stacks.values()) != [layer_map.num_layers]:
        return None
    block = block_modules(model, layer_map).get(layer_map.num_layers)
    if block is None:
        return None
    # What a module notes of a batch, as BatchNorm does, would be of the first tokens.
    saved = block.state_dict()
    has_statistics = any(name in saved and tensor.is_floating_point() for name, tensor in block.named_buffers())
    return None if has_statistics else block


def _accepted(model: nn.Module, last: nn.Module, example: Mapping[str, torch.Tensor]) -> tuple[Place, ...]:
    """Try the modules in the order in which they run; once one gets the first token alone, so do those that follow."""
    whole = _pass(model, last, example, ())

    def tried(*places: Place) -> _Pass | None:
        """The pass cut there, if that changes nothing."""
        try:
            cut = _pass(model, last, example, places)
        except ENTRY_ERRORS:
            return None
        return cut if whole.equals(cut) else None

    candidates, kept = whole.calls, tuple[Place, ...]()
    # Where a head reads other tokens too, not even the last module before it can go without them.
    if not candidates or not tried(candidates[-1]):
        return ()
    seen: set[nn.Module] = set()
    while place := next((place for place in candidates if place.module not in seen), None):
        seen.add(place.module)
        if cut := tried(*kept, place):
            kept, candidates = (*kept, place), cut.calls
    return kept


@dataclass(frozen=True)
class _Pass:
    """What one pass gave.

    The gradients, of the last block's parameters, tell what logits do not: where all tokens are given like attention,
    as by weights that are random, it hardly shows in the logits whether one reads another.
    """

    logits: torch.Tensor
    gradients: tuple[torch.Tensor, ...]
    calls: list[Place]
    """The modules that get hidden states of all tokens from the last block on, in order."""

    def equals(self, other: "_Pass") -> bool:
        if self.logits.shape != other.logits.shape:
            return False
        # A gradient that is zero but for rounding is measured by the largest one.
        largest = max((float(gradient.norm()) for gradient in self.gradients), default=0.0)
        return torch.allclose(self.logits, other.logits, rtol=TOLERANCE, atol=TOLERANCE) and all(
            float((a - b).norm()) <= GRADIENT_TOLERANCE * float(a.norm()) + ZERO * largest
            for a, b in zip(self.gradients, other.gradients, strict=True)
        )


def _pass(
    model: nn.Module, last: nn.Module, example: Mapping[str, torch.Tensor], places: Sequence[Place], token: int = 0
) -> _Pass:
    shape = next(iter(example.values())).shape
    calls: list[Place] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if calls or module is last:
            given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
            calls.append(Place(module, tuple(key for key, value in given if _is_hidden(value, shape))))

    with (
        ExitStack() as stack,
        evaluating(model),
        only_trainable(model, last.parameters()),
        torch.enable_grad(),
        _SafeAttention(),
    ):
        stack.enter_context(first_token_only(places, token))
        for module in model.modules():
            stack.enter_context(pre_hook(module, note))
        logits: torch.Tensor = model(**example).logits
        weights = torch.linspace(-1, 1, logits.numel(), device=logits.device).view(logits.shape)
        gradients = torch.autograd.grad(logits, list(last.parameters()), weights, materialize_grads=True)
    return _Pass(logits.detach(), gradients, [call for call in calls if call.arguments])


class _SafeAttention(TorchFunctionMode):
    """On CPU torch's attention reads and writes past the end of keys that are fewer than the values (2.15)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            given = {**dict(zip(("query", "key", "value"), args)), **(kwargs or {})}
            if given["key"].shape[-2] != given["value"].shape[-2]:
                raise ValueError(f"keys {tuple(given['key'].shape)} for values {tuple(given['value'].shape)}")
        return func(*args, **(kwargs or {}))


def _is_hidden(value: Any, shape: torch.Size) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.ndim == len(shape) + 1
        and value.shape[: len(shape)] == shape
    )


def _cut(
    place: Place, token: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def cut(key: int | str, value: Any) -> Any:
        return value[:, token : token + 1] if key in place.arguments else value

    return (
        tuple(cut(position, value) for position, value in enumerate(args)),
        {name: cut(name, value) for name, value in kwargs.items()},
    )
