"""Finds the lists of blocks in a model's module tree by their form, never by their names.

A block is a module with at least two weights (linear, convolution, embedding) in a list: a `ModuleList`, `Sequential`,
`ModuleDict`, or a class that holds only blocks of one kind. Nested lists are flattened. Stages are opened to find the
blocks in them; a block is not opened, so the experts of a mixture are not blocks. The trace of a forward pass tells
later which lists run one after another.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import nn

LISTS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class BlockList:
    """The blocks of one list, in the order of their registration.

    Args:
        container: path of the module that holds the blocks; empty for the model itself.
        blocks: the blocks.
        is_loose: whether the blocks are attributes of a module instead of items of a list.
    """

    container: str
    blocks: tuple[nn.Module, ...]
    is_loose: bool = False


def find_block_lists(model: nn.Module, unused: Collection[nn.Module] = ()) -> list[BlockList]:
    """Find the outermost lists of blocks.

    Args:
        model: the model.
        unused: modules that look like blocks but are not: heads, auxiliary heads, and variants of which one runs.

    Returns:
        The lists in the order of registration; an empty list if nothing looks like blocks.
    """
    search = _Search(model, unused)
    found = [
        blocks for path, module in search.outermost_lists(model, "") for blocks in search.lists_within(path, module)
    ]
    return found or search.children_as_blocks() or _chain_of_convolutions(model)


def inside(path: str, container: str) -> bool:
    """Whether a path is a container, or a module inside it."""
    return not container or path == container or path.startswith(container + ".")


def depth_of_meeting(path: str, container: str) -> int:
    """Count the leading names that two paths share; the higher the count, the nearer they are in the module tree."""
    shared = 0
    for ours, theirs in zip(path.split("."), container.split(".") if container else []):
        if ours != theirs:
            break
        shared += 1
    return shared


def owns_weight(module: nn.Module) -> bool:
    """Whether a module itself has a parameter of two or more dimensions, or a packed (quantised) weight."""
    if any(parameter is not None and parameter.ndim > 1 for parameter in module._parameters.values()):
        return True
    return hasattr(module, "_packed_params") or (not module._modules and callable(getattr(module, "weight", None)))


class _Search:
    """Finds lists and blocks in one model."""

    def __init__(self, model: nn.Module, unused: Collection[nn.Module]) -> None:
        self._model = model
        self._unused = unused
        self._num_weights: dict[int, int] = {}
        # A variant of a block with one weight (in EfficientNetV2, one convolution) is a block too.
        self._block_types = {
            type(module)
            for module in model.modules()
            if not isinstance(module, LISTS) and module._modules and self._weights(module) > 1
        }
        self._lists: tuple[type[nn.Module], ...] = (*LISTS, *self._classes_like_lists())

    def outermost_lists(self, module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
        """Yield path and module of the outermost lists that hold a block, directly or in inner lists."""
        if isinstance(module, self._lists) and any(self._is_block(item) for _, item in self._flat(path, module)):
            yield path, module
        else:
            yield from self._lists_below(module, path)

    def lists_within(self, path: str, module: nn.Module) -> Iterator[BlockList]:
        """Yield the blocks of one outermost list; stages, and a backbone inside a `Sequential`, are opened."""
        blocks = [(item_path, item) for item_path, item in self._flat(path, module) if self._is_block(item)]
        opened = [list(self._lists_below(item, item_path)) for item_path, item in blocks]
        stages = all(inner and self._is_stage(item, inner) for (_, item), inner in zip(blocks, opened))
        backbone = isinstance(module, nn.Sequential) and len(blocks) == 1 and any(opened)
        if stages or backbone:
            for inner_path, inner in (pair for pairs in opened for pair in pairs):
                yield from self.lists_within(inner_path, inner)
        else:
            yield BlockList(path, tuple(dict.fromkeys(item for _, item in blocks)))

    def children_as_blocks(self) -> list[BlockList]:
        """Find the module with the most blocks as attributes, for models without lists of blocks such as GoogLeNet."""
        best = BlockList("", ())
        for path, module in self._model.named_modules():
            children = (child for child in module.children() if not isinstance(child, LISTS))
            blocks = tuple(child for child in children if child not in self._unused and self._weights(child) > 1)
            if len(blocks) > len(best.blocks):
                best = BlockList(path, blocks, is_loose=True)
        return [best] if len(best.blocks) > 2 else []

    def _is_block(self, module: nn.Module) -> bool:
        return module not in self._unused and (self._weights(module) > 1 or type(module) in self._block_types)

    def _weights(self, module: nn.Module) -> int:
        if id(module) not in self._num_weights:
            inner = sum(self._weights(child) for child in module.children())
            self._num_weights[id(module)] = inner + owns_weight(module)
        return self._num_weights[id(module)]

    def _classes_like_lists(self) -> list[type[nn.Module]]:
        """Find classes whose instances hold only blocks of one kind, as attributes, such as stages of timm's RegNet."""
        instances: dict[type[nn.Module], list[nn.Module]] = {}
        for module in self._model.modules():
            if module._modules and not isinstance(module, LISTS):
                instances.setdefault(type(module), []).append(module)
        return [
            kind
            for kind, modules in instances.items()
            if len({type(child) for module in modules for child in module.children()}) == 1
            and max(len(module._modules) for module in modules) > 1
            and not any(module._parameters for module in modules)
            and all(self._is_block(child) and child._modules for module in modules for child in module.children())
        ]

    def _lists_below(self, module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
        for child_path, child in _children(path, module):
            yield from self.outermost_lists(child, child_path)

    def _flat(self, path: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
        """List the items of a list; an inner list is replaced by its items if one of them is a block."""
        items: list[tuple[str, nn.Module]] = []
        for child_path, child in _children(path, module):
            inner = self._flat(child_path, child) if isinstance(child, self._lists) else []
            if any(self._is_block(item) for _, item in inner):
                items.extend(inner)
            else:
                items.append((child_path, child))
        return items

    def _is_stage(self, module: nn.Module, lists: list[tuple[str, nn.Module]]) -> bool:
        """Whether a module is a stage: it holds lists of blocks of one class, and beside them no other block."""
        holders = {id(inner) for _, inner in lists}
        if any(len({type(item) for _, item in self._flat(path, inner)}) > 1 for path, inner in lists):
            return False

        def beside(module: nn.Module) -> Iterator[nn.Module]:
            for child in module.children():
                if any(id(inner) in holders for inner in child.modules()):
                    if id(child) not in holders:
                        yield from beside(child)
                else:
                    yield child

        return not any(map(self._is_block, beside(module)))


def _children(path: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(f"{path}.{name}".lstrip("."), child) for name, child in module._modules.items() if child is not None]


def _chain_of_convolutions(model: nn.Module) -> list[BlockList]:
    """Find blocks in a plain chain of convolutions such as VGG: all but the first one, which is the stem."""
    return [
        BlockList(path, convolutions[1:])
        for path, module in model.named_modules()
        if isinstance(module, nn.Sequential)
        and len(convolutions := tuple(child for child in module.children() if isinstance(child, CONVOLUTIONS))) > 2
    ]
