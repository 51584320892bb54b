"""What a right layer map of a census model is, worked out without the engine that makes layer maps.

Three sources: literal tables of where each type keeps its blocks and how many there are; the order in which the modules
run; and the parameters of the bare model, which tell the encoder from the head.
"""

import re
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise import LayerMap
from tests.layerwise.execution import Execution, is_at, record
from tests.layerwise.text_census import DEPTH, batch
from tests.layerwise.text_places import BESIDE_THE_ORDER, DEPTHS, PATHS, VISION_DEPTHS, VISION_PATHS, Place


@dataclass(frozen=True)
class Stack:
    """One list of blocks: the module that holds it, and the paths that make each block."""

    tower: str
    owner: str
    first_id: int
    blocks: list[tuple[str, ...]]

    @property
    def last_id(self) -> int:
        return self.first_id + len(self.blocks) - 1


@dataclass(frozen=True)
class Oracle:
    """Depth of each tower, and the places that each parameter may have: one, but for a few that nothing decides."""

    depths: dict[str, int]
    places: dict[str, set[Place]]


def oracle(model: PreTrainedModel, model_type: str, head: str) -> Oracle:
    """The right layer of every parameter, tied ones under each of their names."""
    prefix = base_prefix(model)
    base = model.get_submodule(prefix.rstrip("."))
    execution = record(base, lambda: run(model, base, model_type))
    stacks = stacks_of(base, model_type)
    check_order(stacks, execution)
    bare = {name for name, _ in AutoModel.from_config(model.config).named_parameters(remove_duplicate=False)}
    places: dict[str, set[Place]] = {}
    for name, _ in model.named_parameters(remove_duplicate=False):
        inner = name.removeprefix(prefix)
        in_base = name.startswith(prefix) and (inner in bare or inner.startswith("input_preprocessor."))
        places[name] = place(inner, base, model_type, stacks, execution) if in_base else {("text", "head")}
    depths = {stack.tower: max(s.last_id for s in stacks if s.tower == stack.tower) for stack in stacks}
    return Oracle(depths, lowest_of_tied(model, places))


def base_prefix(model: PreTrainedModel) -> str:
    """`bert.` for a BERT with a head; empty for a bare model and for one that holds its stacks itself."""
    return f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""


def run(model: PreTrainedModel, base: nn.Module, model_type: str) -> None:
    """One forward pass over texts; a vision tower is run by itself."""
    model.eval()(**batch(model))
    if model_type in VISION_PATHS:
        tower = base.get_submodule(VISION_PATHS[model_type].removesuffix(".blocks").removesuffix(".encoder.layers"))
        if model_type == "qwen3_5":
            patch_size = tower.get_parameter("patch_embed.proj.weight")[0].numel()
            tower(torch.rand(16, patch_size), grid_thw=torch.tensor([[1, 4, 4]]))
        else:
            tower(pixel_values=torch.rand(1, 3, 16, 16))


def stacks_of(base: nn.Module, model_type: str) -> list[Stack]:
    """The stacks that this model has, such as the encoder alone of an encoder-decoder under a token head."""
    modules = dict(base.named_modules())
    depths = DEPTHS.get(model_type, [DEPTH])
    stacks: list[Stack] = []
    first_id = 1
    for path, depth in zip(PATHS[model_type], depths, strict=True):
        if path.split("+")[0].removesuffix(".*") in modules:
            stacks.append(stack(modules, "text", path, depth, first_id))
            first_id += depth
    if model_type in VISION_PATHS:
        depth = VISION_DEPTHS.get(model_type, DEPTH)
        stacks.append(stack(modules, "vision", VISION_PATHS[model_type], depth, 1))
    return stacks


def stack(modules: dict[str, nn.Module], tower: str, path: str, depth: int, first_id: int) -> Stack:
    """The blocks at a path of the tables; there must be as many as the tables say."""
    if path.endswith(".*"):
        pattern = re.escape(path.removesuffix(".*")) + r"\.\d+\.\d+"
        blocks: list[tuple[str, ...]] = [(name,) for name in modules if re.fullmatch(pattern, name)]
    else:
        parts = path.split("+")
        indices = range(sum(bool(re.fullmatch(re.escape(parts[0]) + r"\.\d+", name)) for name in modules))
        blocks = [tuple(f"{part}.{index}" for part in parts) for index in indices]
    assert len(blocks) == depth, f"{path} has {len(blocks)} blocks, not {depth}"
    return Stack(tower, path.split("+")[0].removesuffix(".*").rpartition(".")[0], first_id, blocks)


def check_order(stacks: list[Stack], execution: Execution) -> None:
    """The tables list the blocks in the order in which each first runs."""
    for tower in {stack.tower for stack in stacks}:
        blocks = [block for stack in stacks if stack.tower == tower for block in stack.blocks]
        starts = [execution.first_entered(*block) for block in blocks]
        assert starts == sorted(starts), f"blocks do not run in the order of the table: {blocks}"


def place(inner: str, base: nn.Module, model_type: str, stacks: list[Stack], execution: Execution) -> set[Place]:
    """Layer of a parameter of the base model, named as in the base model."""
    for types, pattern, places in BESIDE_THE_ORDER:
        if model_type in types.split("|") and re.search(pattern, inner):
            return places
    for stack in stacks:
        for layer_id, block in enumerate(stack.blocks, stack.first_id):
            if is_at(inner, block):
                return {(stack.tower, layer_id)}
    module = called_module(inner, stacks, execution)
    return place_by_time(module, type(base.get_submodule(module)).__name__, stacks, execution)


def called_module(inner: str, stacks: list[Stack], execution: Execution) -> str:
    """The innermost module around the parameter that was called, if it holds no blocks itself."""
    name = inner
    while name:
        name = name.rpartition(".")[0]
        if name in execution.entered:
            break
    holds_blocks = any(block[0].startswith(f"{name}.") or not name for stack in stacks for block in stack.blocks)
    assert not holds_blocks, f"{inner} is in no block, no module around it was called, and no table names it"
    return name


def place_by_time(module: str, class_name: str, stacks: list[Stack], execution: Execution) -> set[Place]:
    """Layer of a module outside the blocks: by when it first ran, among the blocks of the stack that it stands in."""
    start = execution.entered[module]
    around = [stack for stack in stacks if stack.owner and module.startswith(f"{stack.owner}.")]
    if not around:
        tower = next((s.tower for s in stacks if tower_path(s) and module.startswith(tower_path(s))), "text")
        around = [stack for stack in stacks if stack.tower == tower]
    tower = around[0].tower
    before = [layer_id for s in around for layer_id, began in begun(s, execution) if began < start]
    if not before:
        return {(tower, 0)}
    last = max(s.last_id for s in around)
    if max(before) < last:
        # Between two stacks (CANINE's strided convolution) either neighbour keeps the order.
        ends_a_stack = max(before) in {s.last_id for s in around}
        return {(tower, max(before)), (tower, max(before) + 1)} if ends_a_stack else {(tower, max(before))}
    return {(tower, last)} if "Norm" in class_name else {(tower, "head")}


def tower_path(stack: Stack) -> str:
    """Where a vision tower's modules are, its embeddings and norms included."""
    return stack.owner.removesuffix(".encoder") + "." if stack.tower == "vision" else ""


def begun(stack: Stack, execution: Execution) -> list[tuple[int, int]]:
    """(layer, when it was first entered) of the stack's blocks."""
    return [(layer_id, execution.first_entered(*b)) for layer_id, b in enumerate(stack.blocks, stack.first_id)]


def lowest_of_tied(model: nn.Module, places: dict[str, set[Place]]) -> dict[str, set[Place]]:
    """All names of a tied weight get its lowest place."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    lowest = dict(places)
    for group in names.values():
        numbers = [min(layer_rank(place) for place in places[name]) for name in group]
        for name in group:
            lowest[name] = places[group[numbers.index(min(numbers))]]
    return lowest


def layer_rank(place: Place) -> float:
    """The head comes after every number."""
    return float("inf") if place[1] == "head" else float(place[1])


def differences(model: PreTrainedModel, layer_map: LayerMap, model_type: str, head: str) -> list[str]:
    """Where a layer map departs from the oracle, one line each; empty when it is right."""
    right = oracle(model, model_type, head)
    found = []
    if sorted(layer_map.stacks.values()) != sorted(right.depths.values()):
        found.append(f"depths: expected {right.depths}, got {layer_map.stacks}")
    towers: dict[str, set[str]] = {}
    for name, expected in right.places.items():
        try:
            layer_id: int | str = layer_map.layer_id(name)
        except LayerMapError as error:
            found.append(f"{name}: expected {told(expected)}, got {error}")
            continue
        layer_id = "head" if layer_id == layer_map.head_layer else layer_id
        fitting = {tower for tower, layer in expected if layer == layer_id}
        if not fitting:
            found.append(f"{name}: expected {told(expected)}, got {layer_id}")
        elif layer_id != "head" and len(fitting) == 1:
            towers.setdefault(fitting.pop(), set()).add(layer_map.stack(name))
    names = [name for tower in towers.values() for name in tower]
    if any(len(tower) != 1 for tower in towers.values()) or len(set(names)) != len(names):
        found.append(f"stacks: each tower of {sorted(right.depths)} must be one stack, got {towers}")
    return found


def told(expected: set[Place]) -> str:
    return " or ".join(f"{tower} {layer}" for tower, layer in sorted(expected, key=layer_rank))
