"""The lists of blocks that a model's module tree holds, found by form and never by name.

A block is a module with at least two weights (linear, convolution, embedding) that stands in a list: a `ModuleList`,
`Sequential`, `ModuleDict`, or a class that holds nothing but blocks of one kind. Nested lists are taken flat. A list of
stages is opened, so that its blocks are found; the experts of a mixture inside a block are not. Which lists run one
after another is for the trace to say.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import nn

LISTS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
Kinds = tuple[type[nn.Module], ...]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class BlockList:
    """Blocks that stand beside one another, in the order of their registration."""

    container: str
    """Path of the module that holds them; empty for the model itself."""
    blocks: tuple[nn.Module, ...]
    is_loose: bool = False
    """The blocks are attributes of a module, and not the items of a list."""


def find_block_lists(model: nn.Module, unused: Collection[nn.Module] = ()) -> list[BlockList]:
    """The outermost lists of blocks, in the order of registration; empty where nothing looks like one.

    Args:
        model: the model.
        unused: modules that look like blocks beside others in no list, but do not run (auxiliary heads).
    """
    kinds = (*LISTS, *_classes_like_lists(model))
    found = [
        blocks for path, module in _outermost_lists(model, "", kinds) for blocks in _lists_within(path, module, kinds)
    ]
    return found or _children_as_blocks(model, unused) or _chain_of_convolutions(model)


def num_weights(module: nn.Module) -> int:
    """Number of modules within that own a weight: a parameter of two or more dimensions, or a packed one."""
    return sum(map(_owns_weight, module.modules()))


def inside(path: str, container: str) -> bool:
    """Whether a path lies in a container, or is it."""
    return not container or path == container or path.startswith(container + ".")


def depth_of_meeting(path: str, container: str) -> int:
    """Number of leading names that two paths share: the higher, the nearer they stand."""
    shared = 0
    for ours, theirs in zip(path.split("."), container.split(".") if container else []):
        if ours != theirs:
            break
        shared += 1
    return shared


def _owns_weight(module: nn.Module) -> bool:
    if any(parameter is not None and parameter.ndim > 1 for parameter in module._parameters.values()):
        return True
    return hasattr(module, "_packed_params") or (not module._modules and callable(getattr(module, "weight", None)))


def _is_block(module: nn.Module) -> bool:
    return num_weights(module) > 1


def _children(path: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(f"{path}.{name}".lstrip("."), child) for name, child in module._modules.items() if child is not None]


def _classes_like_lists(model: nn.Module) -> list[type[nn.Module]]:
    """Classes whose every instance holds nothing but blocks of one kind, as attributes: the stages of timm's RegNet."""
    instances: dict[type[nn.Module], list[nn.Module]] = {}
    for module in model.modules():
        if module._modules and not isinstance(module, LISTS):
            instances.setdefault(type(module), []).append(module)
    return [
        kind
        for kind, modules in instances.items()
        if len({type(child) for module in modules for child in module.children()}) == 1
        and max(len(module._modules) for module in modules) > 1
        and not any(module._parameters for module in modules)
        and all(_is_block(child) and child._modules for module in modules for child in module.children())
    ]


def _outermost_lists(module: nn.Module, path: str, kinds: Kinds) -> Iterator[tuple[str, nn.Module]]:
    """The lists that hold a block, directly or in lists of their own."""
    if isinstance(module, kinds) and any(_is_block(item) for _, item in _flat(path, module, kinds)):
        yield path, module
        return
    for child_path, child in _children(path, module):
        yield from _outermost_lists(child, child_path, kinds)


def _flat(path: str, module: nn.Module, kinds: Kinds) -> list[tuple[str, nn.Module]]:
    """The items of a list; a list in it gives its own items, unless it holds no block, when it is an item itself."""
    items: list[tuple[str, nn.Module]] = []
    for child_path, child in _children(path, module):
        inner = _flat(child_path, child, kinds) if isinstance(child, kinds) else []
        if any(_is_block(item) for _, item in inner):
            items.extend(inner)
        else:
            items.append((child_path, child))
    return items


def _lists_within(path: str, module: nn.Module, kinds: Kinds) -> Iterator[BlockList]:
    """The blocks of one outermost list; stages, and a backbone in a `Sequential`, are opened."""
    blocks = [(item_path, item) for item_path, item in _flat(path, module, kinds) if _is_block(item)]
    opened = [list(_outermost_lists_below(item, item_path, kinds)) for item_path, item in blocks]
    stages = all(inner and _is_stage(item, inner, kinds) for (_, item), inner in zip(blocks, opened))
    backbone = isinstance(module, nn.Sequential) and len(blocks) == 1 and any(opened)
    if stages or backbone:
        for inner_path, inner in (pair for pairs in opened for pair in pairs):
            yield from _lists_within(inner_path, inner, kinds)
    else:
        yield BlockList(path, tuple(dict.fromkeys(item for _, item in blocks)))


def _outermost_lists_below(module: nn.Module, path: str, kinds: Kinds) -> Iterator[tuple[str, nn.Module]]:
    for child_path, child in _children(path, module):
        yield from _outermost_lists(child, child_path, kinds)


def _is_stage(module: nn.Module, lists: list[tuple[str, nn.Module]], kinds: Kinds) -> bool:
    """Whether a module holds lists of like blocks and, beside them, no more than single weights (a downsampling)."""
    holders = {id(inner) for _, inner in lists}
    if any(len({type(item) for _, item in _flat(path, inner, kinds)}) > 1 for path, inner in lists):
        return False

    def beside(module: nn.Module) -> Iterator[nn.Module]:
        for child in module.children():
            if any(id(inner) in holders for inner in child.modules()):
                if id(child) not in holders:
                    yield from beside(child)
            else:
                yield child

    return not any(map(_is_block, beside(module)))


def _children_as_blocks(model: nn.Module, unused: Collection[nn.Module]) -> list[BlockList]:
    """Where no list holds blocks: the module with most of them as attributes, as in GoogLeNet."""
    best = BlockList("", ())
    for path, module in model.named_modules():
        candidates = (child for child in module.children() if not isinstance(child, LISTS) and child not in unused)
        blocks = tuple(filter(_is_block, candidates))
        if len(blocks) > len(best.blocks):
            best = BlockList(path, blocks, is_loose=True)
    return [best] if len(best.blocks) > 2 else []


def _chain_of_convolutions(model: nn.Module) -> list[BlockList]:
    """Where nothing but convolutions follow one another, as in VGG: all but the first, which is the stem."""
    return [
        BlockList(path, convolutions[1:])
        for path, module in model.named_modules()
        if isinstance(module, nn.Sequential)
        and len(convolutions := tuple(child for child in module.children() if isinstance(child, CONVOLUTIONS))) > 2
    ]
