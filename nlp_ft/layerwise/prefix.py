"""Runs a model from a boundary between two layers on, with the output of the layers below handed in.

While the layers up to k are frozen, their output for a row never changes, so it can be computed once and cached. Where
a model can be entered is found from its layer map and proved by trial passes, without knowledge of any architecture.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from nlp_ft.layerwise.blocks import block_modules, first_of_head, hidden_of, output_forms, skipped, with_hidden
from nlp_ft.layerwise.discovery.undisturbed import only_trainable, pre_hook, undisturbed
from nlp_ft.layerwise.eval_mode import evaluating
from nlp_ft.layerwise.layer_map import LayerMap
from nlp_ft.layerwise.model_outputs import output_logits

TOLERANCE = 1e-5
SAME_ROW = 1e-4
"""Relative difference above what rounding causes in batches of another shape, which is 1e-6."""
ENTRY_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
)
"""Errors by which a forward pass may show that it cannot be entered at a boundary."""


@dataclass(frozen=True)
class _Entry:
    """How a model is entered at a boundary.

    Args:
        module: the module that gets the hidden states: block k+1, or the first module of the head.
        below: the blocks that need not run; each passes the hidden states on as they are.
    """

    module: nn.Module
    below: tuple[nn.Module, ...]


class FrozenPrefix:
    """Finds the boundaries at which a model can be entered, records hidden states there, and enters the model.

    Boundary k lies after block k. Boundary L, after the last block, holds the input of the head: hidden states, or one
    pooled vector for each row.

    Args:
        model: the bare model, without wrappers; it is left as it is.
        layer_map: the model's layer map; a model of several stacks cannot be entered.
        example: keyword arguments of a forward pass over a few padded rows, each (batch, seq_len), with
            `attention_mask` among them.
    """

    def __init__(self, model: nn.Module, layer_map: LayerMap, example: Mapping[str, torch.Tensor]) -> None:
        self._model, self._example = model, example
        self._above = {
            boundary: [
                p
                for layer in range(boundary + 1, layer_map.num_layers + 2)
                for p in layer_map.parameters(layer).values()
            ]
            for boundary in range(1, layer_map.num_layers + 1)
        }
        self._entries: dict[int, _Entry] = {}
        self._proved: dict[int, bool] = {}
        self._widths: dict[int, int] = {}
        self._pooled: set[int] = set()
        self._of_first_token: set[int] = set()
        if list(layer_map.stacks.values()) != [layer_map.num_layers]:
            return
        blocks = block_modules(model, layer_map)
        with undisturbed(model):
            self._forms = output_forms(model, blocks.values(), example)
            head = first_of_head(model, layer_map, example)
        for boundary in range(1, layer_map.num_layers + 1):
            entry = head if boundary == layer_map.num_layers else blocks.get(boundary + 1)
            below = tuple(blocks[layer] for layer in range(1, boundary + 1) if layer in blocks)
            if entry is not None and len(below) == boundary:
                self._entries[boundary] = _Entry(entry, below)

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Boundaries at which the model can be entered, in order."""
        return tuple(boundary for boundary in self._entries if self.can_enter(boundary))

    def can_enter(self, boundary: int) -> bool:
        """Whether the model can be entered at a boundary; the first call tries it with a few forward passes."""
        if boundary in self._entries and boundary not in self._proved:
            with undisturbed(self._model):
                self._proved[boundary] = self._is_proved(boundary, self._example)
        return self._proved.get(boundary, False)

    def hidden_size(self, boundary: int) -> int:
        """Return the size of the vectors at a boundary; call `can_enter` first, which must return True."""
        return self._widths[boundary]

    def is_pooled(self, boundary: int) -> bool:
        """Whether a boundary holds one pooled vector for each row, (batch, hidden), instead of hidden states."""
        return self.can_enter(boundary) and boundary in self._pooled

    def takes_one_vector(self, boundary: int) -> bool:
        """Whether the model reads only the first vector of a row at a boundary.

        If so, it can be entered with inputs of one token and hidden states of shape (batch, 1, hidden).
        """
        return self.can_enter(boundary) and boundary in self._pooled | self._of_first_token

    def capture(self, inputs: Mapping[str, torch.Tensor], boundaries: Collection[int]) -> dict[int, torch.Tensor]:
        """Record the hidden states at some boundaries in one forward pass, in eval mode and without gradients.

        Args:
            inputs: keyword arguments of the forward pass.
            boundaries: the boundaries to record, out of the property `boundaries`.

        Returns:
            Boundary -> hidden states, (batch, seq_len, hidden), or pooled vectors, (batch, hidden).
        """
        found: dict[int, torch.Tensor] = {}

        def note(boundary: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found[boundary] = hidden_of(args, kwargs).detach()

        with ExitStack() as stack:
            for boundary in boundaries:
                entry = self._entries[boundary].module
                stack.enter_context(pre_hook(entry, partial(note, boundary)))
            stack.enter_context(evaluating(self._model))
            self._model(**inputs)
        return found

    @contextmanager
    def entered(self, boundary: int, hidden: torch.Tensor) -> Iterator[None]:
        """Make forward passes inside the `with` block start at a boundary, with hidden states from `capture`."""
        entry = self._entries[boundary]

        def hand_in(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return with_hidden(args, kwargs, hidden)

        with ExitStack() as stack:
            stack.enter_context(pre_hook(entry.module, hand_in))
            for block in entry.below:
                stack.enter_context(skipped(block, self._forms.get(block, 0)))
            yield

    def _is_proved(self, boundary: int, example: Mapping[str, torch.Tensor]) -> bool:
        """Whether entering at a boundary gives the logits of the whole pass, whatever the hidden states at padding."""
        try:
            if self._depends_on_what_is_above(boundary, example):
                return False
            hidden = self.capture(example, [boundary])[boundary]
            mask = example["attention_mask"]
            if hidden.ndim == 2:
                self._pooled.add(boundary)
            elif hidden.shape[:2] == mask.shape:
                hidden = hidden * mask[..., None]
            elif hidden.shape[1] != 1:  # a model that computes only the first token has one hidden state a row
                return False
            if not self._is_of_row_alone(boundary, hidden, example):
                return False
            self._widths[boundary] = hidden.shape[-1]
            whole = self._logits(example)
            # Zeros must change the logits, or the model does not read the hidden states that are handed in.
            if not self._gives(whole, boundary, hidden, example) or self._gives(
                whole, boundary, torch.zeros_like(hidden), example
            ):
                return False
            first = {key: value[:, :1] for key, value in example.items()}
            if hidden.ndim == 2:
                return self._gives(whole, boundary, hidden, first)
            if self._gives(whole, boundary, hidden[:, :1], first):
                self._of_first_token.add(boundary)
            return True
        except ENTRY_ERRORS:
            return False

    def _is_of_row_alone(self, boundary: int, hidden: torch.Tensor, example: Mapping[str, torch.Tensor]) -> bool:
        """Whether a row has the same hidden states without padding.

        Positions may count it (texts padded on the left), and ConvBERT's convolutions read it.
        """
        mask = example["attention_mask"].bool()
        row = int(mask.sum(1).argmin())
        alone = self.capture({key: value[row : row + 1, mask[row]] for key, value in example.items()}, [boundary])
        has_tokens = hidden.ndim == 3 and hidden.shape[1] == mask.shape[1]
        beside = hidden[row, mask[row]] if has_tokens else hidden[row]
        return bool((alone[boundary][0] - beside).norm() <= SAME_ROW * beside.norm())

    def _depends_on_what_is_above(self, boundary: int, example: Mapping[str, torch.Tensor]) -> bool:
        """Whether the hidden states at a boundary depend on a parameter of a higher layer, as rules can arrange.

        That parameter trains while the hidden states are cached, which would make them wrong.
        """
        found: list[torch.Tensor] = []

        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append(hidden_of(args, kwargs))

        above = [parameter for parameter in self._above[boundary] if parameter.is_floating_point()]
        with ExitStack() as stack:
            stack.enter_context(evaluating(self._model))
            stack.enter_context(only_trainable(self._model, above))
            stack.enter_context(pre_hook(self._entries[boundary].module, note))
            stack.enter_context(torch.enable_grad())
            self._model(**example)
        return found[0].requires_grad

    def _gives(
        self, whole: torch.Tensor, boundary: int, hidden: torch.Tensor, inputs: Mapping[str, torch.Tensor]
    ) -> bool:
        try:
            with self.entered(boundary, hidden):
                logits = self._logits(inputs)
        except ENTRY_ERRORS:
            return False
        if logits.shape != whole.shape:
            return False
        mask = inputs["attention_mask"].bool()
        if logits.ndim == 3 and logits.shape[:2] == mask.shape:
            # Logits of tokens: those of padding mean nothing.
            whole, logits = whole[mask], logits[mask]
        return torch.allclose(whole, logits, rtol=TOLERANCE, atol=TOLERANCE)

    def _logits(self, example: Mapping[str, torch.Tensor]) -> torch.Tensor:
        with evaluating(self._model):
            logits = output_logits(self._model(**example))
        # The logits of padding tokens mean nothing.
        is_of_tokens = logits.ndim == 3 and logits.shape[:2] == example["attention_mask"].shape
        return logits * example["attention_mask"][..., None] if is_of_tokens else logits
