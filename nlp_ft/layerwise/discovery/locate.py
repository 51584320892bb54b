"""Finds the stack and the layer of every parameter of a model, from its structure and one small forward pass."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nlp_ft.errors import LayerMapError, listed
from nlp_ft.layerwise.discovery.example_inputs import example_inputs
from nlp_ft.layerwise.discovery.meta_weights import zeros_for_meta_tensors
from nlp_ft.layerwise.discovery.placement import LayerId, Placer, StackLayer
from nlp_ft.layerwise.discovery.stacks import Grain, Stack, make_stacks
from nlp_ft.layerwise.discovery.structure import BlockList, find_block_lists
from nlp_ft.layerwise.discovery.tracing import Trace, trace


@dataclass(frozen=True)
class Locations:
    """The result of `locate`.

    Args:
        places: every name of every parameter -> its stack and layer id; None if the structure cannot decide.
        stacks: stack name -> number of its blocks; the stack of the model's output comes first.
        blocks_above: stack name -> number of blocks of another stack between it and the head.
        notes: what a reader of the layer map should know, one sentence each.
        embedding_modules: names of modules without parameters that run before all blocks, such as a dropout.
        input_name: name of layer 0: `embeddings`, or `stem` in a network that reads images.
        shared_layers: layers that run several times in one forward pass.
        failure: why the forward pass failed; empty if it reached its end.
    """

    places: dict[str, tuple[str, LayerId] | None]
    stacks: dict[str, int]
    blocks_above: dict[str, int]
    notes: tuple[str, ...]
    embedding_modules: tuple[str, ...]
    input_name: str
    shared_layers: frozenset[int]
    failure: str


@dataclass(frozen=True)
class _TracedModel:
    """The blocks of a model, the parameters outside them, and the trace of a forward pass.

    Args:
        lists: the lists of blocks.
        blocks: the blocks of all lists, as the trace counts them.
        block_of: path of every module within a block -> index of the block.
        outer: name of every parameter outside the blocks -> its index in the trace.
        seen: the trace.
    """

    lists: list[BlockList]
    blocks: list[nn.Module]
    block_of: dict[str, int]
    outer: dict[str, int]
    seen: Trace


def locate(model: nn.Module, grain: Grain, example: Any) -> Locations:
    """Find the stack and the layer of every parameter.

    Args:
        model: the model; it is left as it was.
        grain: "block" to number each block, or "stage" to number each run of blocks of one resolution.
        example: an input of the model; None makes one up.

    Raises:
        LayerMapError: there are no blocks, or the forward pass that would tell their order failed.
    """
    traced = _find_and_trace(model, example)
    if unused := _not_in_line(model, traced):
        traced = _find_and_trace(model, example, unused)
    stacks = make_stacks(traced.lists, traced.blocks, traced.seen, grain)
    placer = Placer(model, traced.blocks, stacks, traced.seen, traced.outer)
    places = placer.place_all()
    named = dict(model.named_parameters(remove_duplicate=False))
    stack_of = {index: stack for stack in stacks for index in stack.layer_of}
    for name in named.keys() - places.keys():
        index = traced.block_of[name.rpartition(".")[0]]
        places[name] = (stack_of[index], stack_of[index].layer_of[index])
    places.update(_tables_in_first_blocks(model, stacks, traced.blocks))
    tied = _lowest_of_tied(places, named)
    shared = {index for index, runs in traced.seen.runs.items() if runs > 1}
    return Locations(
        {name: (place[0].name, place[1]) if place else None for name, place in tied.items()},
        {stack.name: stack.num_layers for stack in stacks},
        {stack.name: stack.above for stack in stacks},
        tuple(_notes(stacks, traced.seen, placer.unreached)),
        tuple(_before_all_blocks(model, traced.seen)),
        "stem" if len(stacks) == 1 and _reads_images(traced.seen) else "embeddings",
        frozenset(stacks[0].layer_of[index] for index in shared & stacks[0].layer_of.keys()),
        _reason(traced.seen),
    )


def _find_and_trace(model: nn.Module, example: Any, unused: Sequence[nn.Module] = ()) -> _TracedModel:
    runnable = _unwrap(model)
    lists = find_block_lists(model, unused)
    if not lists:
        raise LayerMapError(
            f"{type(runnable).__name__} has no list of blocks (two or more weights each) and no chain of convolutions; "
            "say with rules where each parameter is, as in LayerMap.from_model(model, rules=[('^first', 0), "
            "('^second', 1), ('^last', 'head')])"
        )
    blocks = list(dict.fromkeys(block for found in lists for block in found.blocks))
    block_of = _blocks_of_paths(model, blocks)
    named = model.named_parameters(remove_duplicate=False)
    outside = {name: parameter for name, parameter in named if name.rpartition(".")[0] not in block_of}
    parameters = list(dict.fromkeys(outside.values()))
    order = {id(parameter): index for index, parameter in enumerate(parameters)}
    seen = _trace_somehow(runnable, example, blocks, parameters)
    _check_reached(runnable, lists, seen, example)
    return _TracedModel(lists, blocks, block_of, {name: order[id(p)] for name, p in outside.items()}, seen)


def _not_in_line(model: nn.Module, traced: _TracedModel) -> list[nn.Module]:
    """Find modules that look like blocks but are not: heads, auxiliary heads, and variants of which one runs.

    A head of several layers gets one vector a row, (batch, hidden), where blocks get tokens or pixels. Auxiliary heads
    are attributes that do not run. Variants are the entries of a `ModuleDict` of which one entry runs, such as the
    copies of a head that PEFT trains.
    """
    if traced.seen.failure is not None:
        return []
    ran = {id(traced.blocks[index]) for index in traced.seen.begun}
    axes = traced.seen.axes
    has_positions = max(axes.values(), default=0) > 2
    unused = [traced.blocks[index] for index, most in axes.items() if has_positions and most == 2]
    for found in traced.lists:
        idle = [block for block in found.blocks if id(block) not in ran]
        if found.is_loose:
            unused += idle
        elif _holds_variants(model.get_submodule(found.container), found, idle, traced.lists):
            unused += found.blocks
    return unused


def _holds_variants(
    container: nn.Module, found: BlockList, idle: Sequence[nn.Module], lists: Sequence[BlockList]
) -> bool:
    elsewhere = {type(block) for other in lists if other is not found for block in other.blocks}
    one_runs = isinstance(container, nn.ModuleDict) and len(container) == len(found.blocks) == len(idle) + 1
    return one_runs and len(lists) > 1 and elsewhere.isdisjoint(map(type, found.blocks))


def _unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside the wrappers of torch.compile and DistributedDataParallel, which cannot run here."""
    for attribute in ("_orig_mod", "module"):
        inner = getattr(model, attribute, None)
        if isinstance(inner, nn.Module) and len(model._modules) == 1:
            return _unwrap(inner)
    return model


def _blocks_of_paths(model: nn.Module, blocks: Sequence[nn.Module]) -> dict[str, int]:
    """Map the path of every module within a block to the index of the block."""
    index = {id(block): i for i, block in enumerate(blocks)}
    found: dict[str, int] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        above = found.get(path.rpartition(".")[0])
        if above is not None:
            found[path] = above
        elif id(module) in index:
            found[path] = index[id(module)]
    return found


def _trace_somehow(
    model: nn.Module, example: Any, blocks: Sequence[nn.Module], outside: Sequence[nn.Parameter]
) -> Trace:
    """Trace a forward pass on the device of the weights.

    A pass on the meta device fails if it reads a value; then it is made again with zeros on the CPU.
    """
    seen = _best_trace(model, example, blocks, outside)
    if seen.failure is None or example is not None or not any(parameter.is_meta for parameter in model.parameters()):
        return seen
    # What a model makes on the way, such as positions, is on the CPU, too, even if it was built under another device.
    with torch.device("cpu"), zeros_for_meta_tensors(model) as made:
        again = _best_trace(model, None, blocks, [made.get(id(parameter), parameter) for parameter in outside])
    return again if again.failure is None else seen


def _best_trace(model: nn.Module, example: Any, blocks: Sequence[nn.Module], outside: Sequence[torch.Tensor]) -> Trace:
    best: Trace | None = None
    for inputs in [example] if example is not None else example_inputs(model):
        seen = trace(model, inputs, blocks, outside)
        if seen.failure is None:
            return seen
        if best is None or len(seen.begun) > len(best.begun):
            best = seen
    return best or Trace(failure=LayerMapError("its input cannot be guessed"))


def _check_reached(model: nn.Module, lists: Sequence[BlockList], seen: Trace, example: Any) -> None:
    if seen.failure is not None and (example is not None or (len(lists) > 1 and not seen.begun)):
        raise LayerMapError(
            f"{type(model).__name__} has {len(lists)} list(s) of blocks, and its forward pass, which would tell their "
            f"order, failed: {_reason(seen)}; pass an input that it takes: "
            "LayerMap.from_model(model, example={...}), a dict of keywords or one tensor"
        )


def _reason(seen: Trace) -> str:
    if seen.failure is None:
        return ""
    return f"{type(seen.failure).__name__}: {str(seen.failure).strip().partition(chr(10))[0][:200]}"


def _tables_in_first_blocks(
    model: nn.Module, stacks: Sequence[Stack], blocks: Sequence[nn.Module]
) -> dict[str, StackLayer]:
    """Put relative-position tables that the first block holds for all blocks (T5) into the layer of the embeddings."""

    def tables(block: Sequence[int]) -> list[nn.Module]:
        return [module for i in block for module in blocks[i].modules() if isinstance(module, nn.Embedding)]

    first: dict[int, Stack] = {}
    for stack in stacks:
        for line in stack.lines:
            lower, *upper = map(tables, line.blocks)
            if len(line.types) == 1 and upper and not any(upper):
                first.update({id(table): stack for table in lower})
    return {
        f"{path}.{name}": (first[id(module)], 0)
        for path, module in model.named_modules(remove_duplicate=False)
        if id(module) in first
        for name in module._parameters
    }


def _lowest_of_tied(
    places: Mapping[str, StackLayer | None], named: Mapping[str, nn.Parameter]
) -> dict[str, StackLayer | None]:
    """Give all names of a tied weight the lowest of their layers."""
    lowest: dict[int, StackLayer | None] = {}
    for name, parameter in named.items():
        place, other = places[name], lowest.get(id(parameter))
        if other is None or (place is not None and _height(place) < _height(other)):
            lowest[id(parameter)] = place
    return {name: lowest[id(parameter)] for name, parameter in named.items()}


def _height(place: StackLayer) -> float:
    return math.inf if place[1] == "head" else place[1]


def _before_all_blocks(model: nn.Module, seen: Trace) -> list[str]:
    """List the modules without parameters that run before the first block, named as in the whole model."""
    # The trace uses the names inside the wrappers.
    runnable, names = _unwrap(model), {id(module): name for name, module in model.named_modules()}
    start = min(seen.begun.values(), default=0)
    early = [runnable.get_submodule(path) for path, (time, _) in seen.inputs.items() if time < start]
    return [names[id(module)] for module in early if next(module.parameters(), None) is None]


def _reads_images(seen: Trace) -> bool:
    first = min(seen.inputs, key=lambda path: seen.inputs[path][0], default=None)
    return first is not None and len(seen.inputs[first][1]) == 4


def _notes(stacks: Sequence[Stack], seen: Trace, unreached: Sequence[str]) -> list[str]:
    notes = []
    shared = {index: runs for index, runs in seen.runs.items() if runs > 1}
    if shared:
        notes.append(
            f"{len(shared)} block(s) run {max(shared.values())} times in one pass: a shared block is one "
            "layer, whose runs cannot have different rates."
        )
    for stack in stacks:
        if not any(index in seen.begun for index in stack.layer_of):
            notes.append(f"{stack.name or 'the blocks'}: not used in the forward pass; numbered as registered.")
    blind = [index for index in seen.blind if any(index in stack.layer_of for stack in stacks)]
    if blind:
        notes.append(
            f"{len(blind)} block(s) got arguments in which no tensors were found: check the layers of the parameters "
            "that lead into them, and correct them with rules if need be."
        )
    if unreached:
        notes.append(f"not used in the forward pass, so placed by their position in the model: {listed(unreached, 3)}")
    if seen.failure is not None:
        notes.append(
            f"the forward pass failed ({_reason(seen)}), so parameters that it did not reach are placed as registered."
        )
    return notes
