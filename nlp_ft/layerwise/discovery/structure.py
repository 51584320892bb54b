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
        unused: modules that look like blocks and are none: auxiliary heads, variants of which one runs.
    """
    search = _Search(model, unused)
    found = [
        blocks for path, module in search.outermost_lists(model, "") for blocks in search.lists_within(path, module)
    ]
    return found or search.children_as_blocks() or _chain_of_convolutions(model)


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


def owns_weight(module: nn.Module) -> bool:
    """Whether a module has a parameter of two or more dimensions of its own, or a packed (quantised) one."""
    if any(parameter is not None and parameter.ndim > 1 for parameter in module._parameters.values()):
        return True
    return hasattr(module, "_packed_params") or (not module._modules and callable(getattr(module, "weight", None)))


class _Search:
    """What counts as a list and as a block in one model."""

    def __init__(self, model: nn.Module, unused: Collection[nn.Module]) -> None:
        self._model = model
        self._unused = unused
        self._num_weights: dict[int, int] = {}
        # A lighter variant of a block (EfficientNetV2's, of one convolution) is a block too.
        self._block_types = {
            type(module)
            for module in model.modules()
            if not isinstance(module, LISTS) and module._modules and self._weights(module) > 1
        }
        self._lists: tuple[type[nn.Module], ...] = (*LISTS, *self._classes_like_lists())

    def outermost_lists(self, module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
        """The lists that hold a block, directly or in lists of their own."""
        if isinstance(module, self._lists) and any(self._is_block(item) for _, item in self._flat(path, module)):
            yield path, module
        else:
            yield from self._lists_below(module, path)

    def lists_within(self, path: str, module: nn.Module) -> Iterator[BlockList]:
        """The blocks of one outermost list; stages, and a backbone in a `Sequential`, are opened."""
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
        """Where no list holds blocks: the module with most of them as attributes, as in GoogLeNet."""
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
        """Classes whose instances hold nothing but blocks of one kind, as attributes: the stages of timm's RegNet."""
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
        """The items of a list; a list in it gives its own items, or if it holds no block is an item itself."""
        items: list[tuple[str, nn.Module]] = []
        for child_path, child in _children(path, module):
            inner = self._flat(child_path, child) if isinstance(child, self._lists) else []
            if any(self._is_block(item) for _, item in inner):
                items.extend(inner)
            else:
                items.append((child_path, child))
        return items

    def _is_stage(self, module: nn.Module, lists: list[tuple[str, nn.Module]]) -> bool:
        """Whether a module holds lists of like blocks and, beside them, single weights at most (a downsampling)."""
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
    """Where nothing but convolutions follow one another, as in VGG: all but the first, which is the stem."""
    return [
        BlockList(path, convolutions[1:])
        for path, module in model.named_modules()
        if isinstance(module, nn.Sequential)
        and len(convolutions := tuple(child for child in module.children() if isinstance(child, CONVOLUTIONS))) > 2
    ]
