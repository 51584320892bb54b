"""Joins lists of blocks to stacks, and numbers the blocks.

Lists that feed one another form one stack (an encoder and its decoder, the stages of a CNN). Lists that do not feed one
another (encoders of text and of images) are stacks of their own, each with its own layer ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import nn

from nlp_ft.defaults import Grain as Grain
from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise.discovery.structure import BlockList
from nlp_ft.layerwise.discovery.tracing import Shape, Trace, keeps_positions

NEVER = 1 << 62


@dataclass(eq=False)
class Line:
    """One list of blocks, or several whose blocks take turns (the attention and feed-forward layers of XLM).

    Args:
        containers: paths of the modules that hold the blocks.
        blocks: each block as the indices of its modules in the trace.
        types: classes of the blocks.
    """

    containers: list[str]
    blocks: list[tuple[int, ...]]
    types: set[type[nn.Module]]

    def begun(self, trace: Trace) -> list[int]:
        """Return the time at which each block first ran, or `NEVER`."""
        return [min(trace.begun.get(index, NEVER) for index in block) for block in self.blocks]


@dataclass(eq=False)
class Stack:
    """Lines that feed one another, from input to output.

    Args:
        lines: the lines, in the order in which they run.
        name: name of the stack; "" if it is the only one.
        layer_of: index of a module in the trace -> layer id, 1..L.
        above: number of blocks of another stack between this stack and the head, such as LXMERT's fusion blocks.
    """

    lines: list[Line]
    name: str = ""
    layer_of: dict[int, int] = field(default_factory=dict)
    above: int = 0

    @property
    def num_layers(self) -> int:
        """L, the number of layers of the stack."""
        return max(self.layer_of.values(), default=0)

    def layer(self, block: Sequence[int]) -> int:
        """Return the layer id of a block."""
        return self.layer_of[block[0]]

    def ends_in(self, blocks: int, trace: Trace) -> bool:
        """Whether the last block of the stack is among the blocks (a bit mask) that some data has passed."""
        last = self._last(trace)
        return last is not None and blocks >> last & 1 == 1

    def last_shape(self, trace: Trace) -> Shape:
        """Return the shape of the last block's output."""
        last = self._last(trace)
        return trace.shapes.get(last, ()) if last is not None else ()

    def _last(self, trace: Trace) -> int | None:
        ran = [index for index in self.layer_of if index in trace.begun]
        return max(ran, key=lambda index: trace.begun[index], default=None)


def make_stacks(lists: Sequence[BlockList], blocks: Sequence[nn.Module], seen: Trace, grain: Grain) -> list[Stack]:
    """Join lists of blocks to stacks, and number their layers.

    Args:
        lists: the lists of blocks, in the order of registration.
        blocks: the blocks of all lists, as the trace counts them.
        seen: the trace of a forward pass.
        grain: "block" to number each block, or "stage" to number each run of blocks that work at one resolution.

    Returns:
        The stacks; the stack of the model's output comes first.
    """
    index = {id(block): i for i, block in enumerate(blocks)}
    lines = [
        Line([found.container], [(index[id(block)],) for block in found.blocks], {type(b) for b in found.blocks})
        for found in lists
    ]
    for line in lines:
        _in_running_order(line, seen)
    stacks = _join(_merge_turns(lines, seen), seen)
    for stack in stacks:
        _number(stack, seen, grain)
    if len(stacks) > 1:
        _name(stacks)
        _count_blocks_above(stacks, seen)
    return stacks


def _in_running_order(line: Line, seen: Trace) -> None:
    """Sort the blocks of a line by their first run; a block that did not run stays behind the one registered before."""
    times, latest = [], -1
    for time in line.begun(seen):
        latest = latest if time == NEVER else time
        times.append(latest)
    line.blocks = [block for _, block in sorted(zip(times, line.blocks), key=lambda pair: pair[0])]


def _merge_turns(lines: Sequence[Line], seen: Trace) -> list[Line]:
    merged: list[Line] = []
    for line in lines:
        partner = next((other for other in merged if _take_turns(other, line, seen)), None)
        if partner is None:
            merged.append(line)
        else:
            partner.containers += line.containers
            partner.blocks = [ours + theirs for ours, theirs in zip(partner.blocks, line.blocks)]
    return merged


def _take_turns(one: Line, other: Line, seen: Trace) -> bool:
    if len(one.blocks) != len(other.blocks) or len(one.blocks) < 2:
        return False
    pairs = list(zip(one.begun(seen), other.begun(seen)))
    return all(max(pair) < min(following) for pair, following in pairwise(pairs))


def _join(lines: Sequence[Line], seen: Trace) -> list[Stack]:
    """Append each line to the stack that feeds it; a line that did not run, to a stack of the same class of blocks."""
    stacks: list[Stack] = []
    for line in sorted(lines, key=lambda line: line.begun(seen)[0]):
        ran = line.begun(seen)[0] != NEVER
        upstream = seen.upstream.get(line.blocks[0][0], 0)
        feeding = [
            stack
            for stack in stacks
            if any(
                upstream >> index & 1 if ran else line.types & other.types
                for other in stack.lines
                for block in other.blocks
                for index in block
            )
        ]
        if feeding:
            feeding[0].lines.append(line)
        else:
            stacks.append(Stack([line]))
    return sorted(stacks, key=lambda stack: -_last_time(stack, seen))


def _last_time(stack: Stack, seen: Trace) -> int:
    return max((time for line in stack.lines for time in line.begun(seen) if time != NEVER), default=-1)


def _number(stack: Stack, seen: Trace, grain: Grain) -> None:
    blocks = [block for line in stack.lines for block in line.blocks]
    numbers = list(range(1, len(blocks) + 1))
    if grain == "stage":
        stages = _stages([seen.shapes.get(block[-1], ()) for block in blocks])
        # A network of one resolution, such as a ViT or BERT, has no stages.
        numbers = stages if stages[-1] > 1 else numbers
    stack.layer_of = {index: number for block, number in zip(blocks, numbers) for index in block}


def _stages(shapes: Sequence[Shape]) -> list[int]:
    if () in shapes:
        raise LayerMapError('grain="stage" needs a forward pass that reaches every block; pass its input as example=')
    numbers = [1]
    for before, after in pairwise(shapes):
        numbers.append(numbers[-1] + (not keeps_positions(before, after)))
    return numbers


def _count_blocks_above(stacks: Sequence[Stack], seen: Trace) -> None:
    """Set `above` of each stack that feeds a block of another stack: it lies below that block, not below the head."""
    for number, stack in enumerate(stacks):
        own = sum(1 << index for index in stack.layer_of)
        for other in stacks[:number]:
            fed = [layer for index, layer in other.layer_of.items() if seen.upstream.get(index, 0) & own]
            if fed:
                stack.above = other.above + other.num_layers - min(fed) + 1
                break


def _name(stacks: Sequence[Stack]) -> None:
    """Name each stack by the first part of its path that differs from the paths of the others."""
    paths = [stack.lines[0].containers[0].split(".") for stack in stacks]
    shared = 0
    while all(len(path) > shared + 1 for path in paths) and len({path[shared] for path in paths}) == 1:
        shared += 1
    for stack, path in zip(stacks, paths):
        stack.name = path[shared]
