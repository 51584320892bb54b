"""Lines and stacks: which lists of blocks run one after another, and the numbers of their blocks.

Lists that feed one another stand in one line (an encoder and its decoder, the stages of a CNN); lists that do not are
towers, each a stack with layer ids of its own.
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
    """One list of blocks, or several whose blocks take turns (the attentions and feed-forward layers of XLM)."""

    containers: list[str]
    blocks: list[tuple[int, ...]]
    """Each block as the indices of the modules that make it up."""
    types: set[type[nn.Module]]

    def begun(self, trace: Trace) -> list[int]:
        """Time at which each block first ran; those that did not come last."""
        return [min(trace.begun.get(index, NEVER) for index in block) for block in self.blocks]


@dataclass(eq=False)
class Stack:
    """Lines that feed one another, from input to output."""

    lines: list[Line]
    name: str = ""
    layer_of: dict[int, int] = field(default_factory=dict)
    """Index of a module -> layer id, 1..L."""
    above: int = 0
    """Number of blocks of another stack that stand between this one and the head: LXMERT's fusion blocks."""

    @property
    def num_layers(self) -> int:
        """L."""
        return max(self.layer_of.values(), default=0)

    def layer(self, block: Sequence[int]) -> int:
        """Layer id of a block."""
        return self.layer_of[block[0]]

    def ends_in(self, blocks: int, trace: Trace) -> bool:
        """Whether data that has passed these blocks (a bit mask) has passed the stack's last one."""
        last = self._last(trace)
        return last is not None and blocks >> last & 1 == 1

    def last_shape(self, trace: Trace) -> Shape:
        """Shape of the last block's output."""
        last = self._last(trace)
        return trace.shapes.get(last, ()) if last is not None else ()

    def _last(self, trace: Trace) -> int | None:
        ran = [index for index in self.layer_of if index in trace.begun]
        return max(ran, key=lambda index: trace.begun[index], default=None)


def make_stacks(lists: Sequence[BlockList], blocks: Sequence[nn.Module], seen: Trace, grain: Grain) -> list[Stack]:
    """The numbered stacks, that of the model's output first.

    Args:
        lists: the lists of blocks, in the order of registration.
        blocks: all their blocks, as the trace counts them.
        seen: the trace of a forward pass.
        grain: number each block, or each stage: a run of blocks that work at one resolution.
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
        _stand_below_fusion(stacks, seen)
    return stacks


def _in_running_order(line: Line, seen: Trace) -> None:
    """By first run; a block that did not run stays behind the one registered before it."""
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
    """Put each line behind the stack that feeds it; one that did not run, behind a line of its own kind."""
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
        # At one resolution throughout, as in a ViT or BERT, there are no stages to tell apart.
        numbers = stages if stages[-1] > 1 else numbers
    stack.layer_of = {index: number for block, number in zip(blocks, numbers) for index in block}


def _stages(shapes: Sequence[Shape]) -> list[int]:
    if () in shapes:
        raise LayerMapError('grain="stage" needs a forward pass that reaches every block; pass its input as example=')
    numbers = [1]
    for before, after in pairwise(shapes):
        numbers.append(numbers[-1] + (not keeps_positions(before, after)))
    return numbers


def _stand_below_fusion(stacks: Sequence[Stack], seen: Trace) -> None:
    """A tower whose output another stack takes in at some block stands below that block, and not below the head."""
    for number, tower in enumerate(stacks):
        own = sum(1 << index for index in tower.layer_of)
        for other in stacks[:number]:
            fed = [layer for index, layer in other.layer_of.items() if seen.upstream.get(index, 0) & own]
            if fed:
                tower.above = other.above + other.num_layers - min(fed) + 1
                break


def _name(stacks: Sequence[Stack]) -> None:
    """Name each tower by the first module in which its path parts from the others'."""
    paths = [stack.lines[0].containers[0].split(".") for stack in stacks]
    shared = 0
    while all(len(path) > shared + 1 for path in paths) and len({path[shared] for path in paths}) == 1:
        shared += 1
    for stack, path in zip(stacks, paths):
        stack.name = path[shared]
