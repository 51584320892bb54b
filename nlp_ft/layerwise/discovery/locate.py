"""Where every parameter of a model is, found from its structure and one small forward pass."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nlp_ft.errors import LayerMapError, listed
from nlp_ft.layerwise.discovery.meta_weights import stand_ins
from nlp_ft.layerwise.discovery.placement import LayerId, Place, Placer
from nlp_ft.layerwise.discovery.stacks import Grain, Stack, make_stacks
from nlp_ft.layerwise.discovery.structure import BlockList, find_block_lists
from nlp_ft.layerwise.discovery.tracing import Trace, example_inputs, trace


@dataclass(frozen=True)
class Locations:
    """What `locate` finds."""

    places: dict[str, tuple[str, LayerId] | None]
    """Every name of every parameter -> its stack and layer id; None where structure cannot decide."""
    stacks: dict[str, int]
    """Stack -> number of its blocks; the one of the model's output first."""
    blocks_above: dict[str, int]
    """Stack -> number of blocks of another stack between it and the head."""
    notes: tuple[str, ...]
    embedding_modules: tuple[str, ...]
    """Modules without parameters that run before all blocks, such as a dropout."""
    input_name: str
    """What layer 0 is called: `embeddings`, or `stem` in a network that reads images."""
    shared_layers: frozenset[int]
    """Layers that run several times in one forward pass."""
    failure: str
    """Why the forward pass did not reach its end; empty when it did."""


@dataclass(frozen=True)
class _Scene:
    """A model's blocks, the parameters outside them, and what a forward pass showed of both."""

    lists: list[BlockList]
    blocks: list[nn.Module]
    block_of: dict[str, int]
    """Path of every module within a block -> index of the block."""
    outer: dict[str, int]
    """Name of every parameter outside the blocks -> its index in the trace."""
    seen: Trace


def locate(model: nn.Module, grain: Grain, example: Any) -> Locations:
    """Find the place of every parameter. Raises: LayerMapError: the structure cannot decide."""
    scene = _look(model, example)
    if unused := _not_in_line(model, scene):
        scene = _look(model, example, unused)
    stacks = make_stacks(scene.lists, scene.blocks, scene.seen, grain)
    placer = Placer(model, scene.blocks, stacks, scene.seen, scene.outer)
    places = placer.place_all()
    named = dict(model.named_parameters(remove_duplicate=False))
    stack_of = {index: stack for stack in stacks for index in stack.layer_of}
    for name in named.keys() - places.keys():
        index = scene.block_of[name.rpartition(".")[0]]
        places[name] = (stack_of[index], stack_of[index].layer_of[index])
    places.update(_tables_in_first_blocks(model, stacks, scene.blocks))
    tied = _lowest_of_tied(places, named)
    shared = {index for index, runs in scene.seen.runs.items() if runs > 1}
    return Locations(
        {name: (place[0].name, place[1]) if place else None for name, place in tied.items()},
        {stack.name: stack.num_layers for stack in stacks},
        {stack.name: stack.above for stack in stacks},
        tuple(_notes(stacks, scene.seen, placer.unreached)),
        tuple(_before_all_blocks(model, scene.seen)),
        "stem" if len(stacks) == 1 and _reads_images(scene.seen) else "embeddings",
        frozenset(stacks[0].layer_of[index] for index in shared & stacks[0].layer_of.keys()),
        _reason(scene.seen),
    )


def _look(model: nn.Module, example: Any, unused: Sequence[nn.Module] = ()) -> _Scene:
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
    return _Scene(lists, blocks, block_of, {name: order[id(p)] for name, p in outside.items()}, seen)


def _not_in_line(model: nn.Module, scene: _Scene) -> list[nn.Module]:
    """What looks like blocks and is none: attributes that do not run, and a `ModuleDict` of which one entry runs.

    The first are auxiliary heads, the second variants of one module, such as the copies of a head that PEFT trains.
    """
    if scene.seen.failure is not None:
        return []
    ran = {id(scene.blocks[index]) for index in scene.seen.begun}
    unused: list[nn.Module] = []
    for found in scene.lists:
        idle = [block for block in found.blocks if id(block) not in ran]
        if found.is_loose:
            unused += idle
        elif _holds_variants(model.get_submodule(found.container), found, idle, scene.lists):
            unused += found.blocks
    return unused


def _holds_variants(
    container: nn.Module, found: BlockList, idle: Sequence[nn.Module], lists: Sequence[BlockList]
) -> bool:
    elsewhere = {type(block) for other in lists if other is not found for block in other.blocks}
    one_runs = isinstance(container, nn.ModuleDict) and len(container) == len(found.blocks) == len(idle) + 1
    return one_runs and len(lists) > 1 and elsewhere.isdisjoint(map(type, found.blocks))


def _unwrap(model: nn.Module) -> nn.Module:
    """The model inside torch.compile's and DistributedDataParallel's wrappers, which cannot run by themselves here."""
    for attribute in ("_orig_mod", "module"):
        inner = getattr(model, attribute, None)
        if isinstance(inner, nn.Module) and len(model._modules) == 1:
            return _unwrap(inner)
    return model


def _blocks_of_paths(model: nn.Module, blocks: Sequence[nn.Module]) -> dict[str, int]:
    """Path of every module within a block -> index of the block."""
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
    """On the device of the weights; where a pass on meta breaks off, as at a value that is read, again with numbers."""
    seen = _best_trace(model, example, blocks, outside)
    if seen.failure is None or example is not None or not any(parameter.is_meta for parameter in model.parameters()):
        return seen
    with stand_ins(model) as made:
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


def _tables_in_first_blocks(model: nn.Module, stacks: Sequence[Stack], blocks: Sequence[nn.Module]) -> dict[str, Place]:
    """Relative-position tables that the first block of a line holds for all of it (T5): with the embeddings."""

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


def _lowest_of_tied(places: Mapping[str, Place | None], named: Mapping[str, nn.Parameter]) -> dict[str, Place | None]:
    """A tied weight has several names: all get its lowest place."""
    lowest: dict[int, Place | None] = {}
    for name, parameter in named.items():
        place, other = places[name], lowest.get(id(parameter))
        if other is None or (place is not None and _height(place) < _height(other)):
            lowest[id(parameter)] = place
    return {name: lowest[id(parameter)] for name, parameter in named.items()}


def _height(place: Place) -> float:
    return math.inf if place[1] == "head" else place[1]


def _before_all_blocks(model: nn.Module, seen: Trace) -> list[str]:
    """Names, as in the whole model, of the modules without parameters that run before the first block."""
    # The trace names modules as the model inside the wrappers does.
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
            f"{len(shared)} block(s) run {max(shared.values())} times in one pass: a block that is shared is one "
            "layer, whose runs cannot have rates of their own."
        )
    for stack in stacks:
        if not any(index in seen.begun for index in stack.layer_of):
            notes.append(f"{stack.name or 'the blocks'}: took no part in the forward pass; numbered as registered.")
    blind = [index for index in seen.blind if any(index in stack.layer_of for stack in stacks)]
    if blind:
        notes.append(
            f"{len(blind)} block(s) were handed nothing in which tensors can be found: look whether what leads into "
            "them stands in the right layer, and say it with rules where not."
        )
    if unreached:
        notes.append(f"not used in the forward pass, so placed by where they stand: {listed(unreached, 3)}")
    if seen.failure is not None:
        notes.append(f"the forward pass failed ({_reason(seen)}), so what it did not reach is placed as registered.")
    return notes
