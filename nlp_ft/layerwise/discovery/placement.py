"""Places the parameters outside the blocks: the policies of the layer map.

A parameter is placed by the data that flows into it and out of it, and by the order of execution. A parameter that the
forward pass never reaches is placed by its position in the module tree.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from torch import nn

from nlp_ft.layerwise.discovery.stacks import Line, Stack
from nlp_ft.layerwise.discovery.structure import CONVOLUTIONS, depth_of_meeting, inside, owns_weight
from nlp_ft.layerwise.discovery.tracing import Trace, Use, keeps_positions

HEAD: Literal["head"] = "head"
LayerId = int | Literal["head"]
StackLayer = tuple[Stack, LayerId]
"""A stack, and the id of a layer in it."""
StackLayers = Mapping[str, StackLayer | None]
Uses = Mapping[str, Use]


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm, by its class or by the name of its class (`MistralRMSNorm`, `LayerNorm2d`)."""
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)):
        return True
    return "norm" in type(module).__name__.lower() and all(p.ndim < 2 for p in module.parameters())


class Placer:
    """Finds the layer of each parameter outside the blocks.

    Args:
        model: the model.
        blocks: the model's blocks, as the trace counts them.
        stacks: the numbered stacks of these blocks; the stack of the model's output comes first.
        trace: the trace of a forward pass.
        outer: name of each parameter outside the blocks -> its index in the trace.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[nn.Module],
        stacks: Sequence[Stack],
        trace: Trace,
        outer: Mapping[str, int],
    ) -> None:
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self._positions = {path: position for position, path in enumerate(self._modules)}
        first: dict[int, int] = {
            id(module): position for position, module in reversed(list(enumerate(self._modules.values())))
        }
        self._positions_of_blocks: list[int] = [first[id(block)] for block in blocks]
        self._stacks = stacks
        self._lines = [(stack, line) for stack in stacks for line in stack.lines]
        self._trace = trace
        self._outer = outer
        self.unreached: list[str] = []

    def place_all(self) -> dict[str, StackLayer | None]:
        """Find the stack and the layer of each parameter, by name; None if the structure cannot decide."""
        places: dict[str, StackLayer | None] = {}
        reached = {
            name: use
            for name, index in self._outer.items()
            if (use := self._trace.uses.get(index)) and self._tells(index)
        }
        after = []
        for name, use in sorted(reached.items(), key=lambda item: item[1].time):
            if self._feeds(self._outer[name]):
                places[name] = self._before_or_between(_owner(name), use)
            elif stack := self._stack_of_row(name):
                places[name] = stack, stack.num_layers
            else:
                after.append((name, use))
        places.update(self._after(after))
        self.unreached = [name for name in self._outer if name not in places]
        for name in self.unreached:
            places[name] = self._unreached(name, places, reached)
        return places

    def _feeds(self, index: int) -> bool:
        """Whether a parameter flows into a block."""
        return bool(self._trace.feeding >> index & 1)

    def _tells(self, index: int) -> bool:
        """Whether the use of a parameter shows its layer.

        If the pass failed, a parameter used before all blocks may still have been on its way to one.
        """
        return self._trace.failure is None or self._feeds(index) or self._trace.uses[index].blocks > 0

    def _nearest(self, path: str) -> list[tuple[Stack, Line]]:
        """Find the lines nearest to a path in the module tree, in the order in which they run."""
        depths = [max(depth_of_meeting(path, place) for place in line.containers) for _, line in self._lines]
        near = [pair for pair, depth in zip(self._lines, depths) if depth == max(depths)]
        return sorted(near, key=lambda pair: pair[1].begun(self._trace)[0])

    def _before_or_between(self, path: str, use: Use) -> StackLayer:
        """Place a parameter that flows into a block: before the first block, or between two."""
        near = self._nearest(path)
        counts = [sum(time < use.time for time in line.begun(self._trace)) for _, line in near]
        upcoming = next((pair for pair, count in zip(near, counts) if count == 0), None)
        begun = [(pair, count) for pair, count in zip(near, counts) if count]
        if begun and begun[-1][1] < len(begun[-1][0][1].blocks):
            (stack, line), count = begun[-1]
            own_item = is_norm(self._modules[path]) and path.rpartition(".")[0] in line.containers
            leads_on = any(inside(path, container) for container in line.containers) and not own_item
            return stack, stack.layer(line.blocks[count if leads_on else count - 1])
        if upcoming is None:
            (stack, line), _ = begun[-1]
            return stack, stack.layer(line.blocks[-1])
        stack, line = upcoming
        return stack, stack.layer(line.blocks[0]) if use.blocks else 0

    def _stack_of_row(self, name: str) -> Stack | None:
        """Find the stack of a list that holds one item for each block, of which `name` is the last.

        All other items of such a list feed a block; the scales of residual connections are an example.
        """
        for container, module in self._lists_around(name):
            _, line = near = self._nearest(container)[-1]
            others = [
                other for other in self._outer if inside(other, container) and not _same_item(other, name, container)
            ]
            if len(module) == len(line.blocks) > 1 and others and all(self._feeds(self._outer[o]) for o in others):
                return near[0]
        return None

    def _lists_around(self, name: str) -> Iterator[tuple[str, nn.ParameterList | nn.ModuleList]]:
        path = _owner(name)
        while path:
            module = self._modules[path]
            if isinstance(module, (nn.ParameterList, nn.ModuleList)):
                yield path, module
            path = path.rpartition(".")[0]

    def _after(self, uses: Sequence[tuple[str, Use]]) -> dict[str, StackLayer]:
        """Place parameters after all blocks: final norms and convolutions in the last block, all others in the head."""
        weights = [name for name, _ in uses if not is_norm(self._modules[_owner(name)]) and self._has_weight(name)]
        last_weight = _owner(weights[-1]) if weights else None
        places: dict[str, StackLayer] = {}
        heads: dict[str, Stack] = {}
        for name, use in uses:
            path = _owner(name)
            stack = next((stack for stack in self._stacks if stack.ends_in(use.blocks, self._trace)), None)
            if stack is None or path == last_weight or stack in heads.values() or not self._continues(path, stack):
                stack = stack or self._stacks[0]
                heads.setdefault(self._unit(path), stack)
                places[name] = stack, HEAD
            else:
                places[name] = stack, stack.num_layers
        # A head is not split: the norm of a classifier belongs to it, and so do the keys of a pooling by attention.
        return {
            name: (heads[unit], HEAD) if (unit := self._unit(_owner(name))) in heads else place
            for name, place in places.items()
        }

    def _has_weight(self, name: str) -> bool:
        return any(map(owns_weight, self._modules[_owner(name)].modules()))

    def _continues(self, path: str, stack: Stack) -> bool:
        """Whether a module works on all positions of the last block's output, as the block's own layers do."""
        module = self._modules[path]
        shape = self._trace.inputs.get(path, (0, ()))[1]
        if not keeps_positions(shape, stack.last_shape(self._trace)):
            return False
        in_encoder = max(depth_of_meeting(path, place) for line in stack.lines for place in line.containers) > 0
        return is_norm(module) or isinstance(module, CONVOLUTIONS) or (in_encoder and isinstance(module, nn.Linear))

    def _unreached(self, name: str, places: StackLayers, reached: Uses) -> StackLayer | None:
        """Place a parameter that the forward pass did not use; None if its position does not tell."""
        path = _owner(name)
        neighbours = self._neighbours(path, places, reached)
        if len(neighbours) == 1:
            return neighbours.pop()
        near = self._nearest(path)
        here = self._positions[path]
        counts = [sum(self._position(block) < here for block in line.blocks) for _, line in near]
        before = [pair for pair, count in zip(near, counts) if count]
        if before and self._is_auxiliary_head(path):
            return near[0][0], HEAD
        upcoming = next((pair for pair, count in zip(near, counts) if count == 0), None)
        beside_blocks = self._holds_blocks(path)
        if beside_blocks and not self._is_embedding(name):
            return None
        if not before or isinstance(self._modules[path], nn.Embedding) or beside_blocks:
            return near[0][0], 0
        stack, line = before[-1]
        if upcoming and upcoming[0] is stack:
            return stack, stack.layer(upcoming[1].blocks[0])
        # Only the stack of the output has a head. The end of another stack, a projection of images say, leads to it.
        if is_norm(self._modules[self._unit(path)]) or stack is not self._stacks[0]:
            return stack, stack.layer(line.blocks[-1])
        return stack, HEAD

    def _is_embedding(self, name: str) -> bool:
        """Whether a parameter outside all layers is one or more vectors of the hidden size (XLNet's `mask_emb`)."""
        parameter = dict(self._modules[_owner(name)].named_parameters(recurse=False))[name.rpartition(".")[2]]
        sizes = {shape[-1] for shape in self._trace.shapes.values() if shape}
        return parameter.ndim > 0 and parameter.shape[-1] in sizes

    def _neighbours(self, path: str, places: StackLayers, reached: Uses) -> set[StackLayer | None]:
        """Find the layers of the used parameters in the smallest module around a path that has some, but no blocks."""
        around = path
        while around and not any(inside(place, around) for _, line in self._lines for place in line.containers):
            found = {places[name] for name in reached if inside(_owner(name), around)}
            if found:
                return found
            around = around.rpartition(".")[0]
        return set()

    def _position(self, block: Sequence[int]) -> int:
        """Return the position of a block in the order of registration."""
        return min(self._positions_of_blocks[index] for index in block)

    def _is_auxiliary_head(self, path: str) -> bool:
        """Whether the unit around a path has as many outputs as the model itself (Inception's `AuxLogits`)."""
        if self._holds_blocks(path):
            return False
        used = {_owner(name): self._trace.uses[i].time for name, i in self._outer.items() if i in self._trace.uses}
        by_time = [self._modules[owner] for owner in sorted(used, key=lambda owner: used[owner])]
        width = _num_outputs(by_time)
        return width is not None and width == _num_outputs(self._modules[self._unit(path)].modules())

    def _unit(self, path: str) -> str:
        """Find the largest module around a path that holds no blocks."""
        while (up := path.rpartition(".")[0]) and not self._holds_blocks(up):
            path = up
        return path

    def _holds_blocks(self, path: str) -> bool:
        return any(inside(place, path) for _, line in self._lines for place in line.containers)


def _num_outputs(modules: Iterable[nn.Module]) -> int | None:
    """Count the outputs of the last linear layer or convolution."""
    last = None
    for module in modules:
        if isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            last = module
    return len(last.weight) if last is not None else None


def _same_item(one: str, other: str, container: str) -> bool:
    index = container.count(".") + 1
    return one.split(".")[index] == other.split(".")[index]


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
