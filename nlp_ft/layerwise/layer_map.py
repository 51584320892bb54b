"""`LayerMap`: which layer each parameter of a model belongs to, total or an error.

Layer 0 holds the embeddings, layers 1..L the encoder's blocks from input to output, layer L+1 the head.
A parameter that no policy below covers raises `LayerMapError`: it never falls into a layer in silence.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import nn
from torch.nn.parameter import is_lazy

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise.discovery.locate import locate
from nlp_ft.layerwise.discovery.stacks import Grain
from nlp_ft.suggest import did_you_mean
from nlp_ft.tables import text_table

Rule = tuple[str, int | Literal["head"]]


class LayerMap:
    """Parameter name -> layer id, for every parameter of a model.

    A model of several towers (text and vision) has several stacks: each counts its own layers from 0, and all share the
    head. Towers are aligned at the top: the last block of each stands right below the head, or below the block of
    another tower that it feeds.

    Args:
        layer_ids: name -> layer id, 0 (embeddings) to `num_layers + 1` (head).
        num_layers: L, the number of blocks; where there are several towers, of the longest way to the head.
        parameters: name -> parameter; where given, `parameters()` and the table can tell sizes.
        notes: what a reader of the map should know, one sentence each.
        embedding_modules: names of modules without parameters that are frozen together with layer 0.
        stacks: name -> number of blocks of each tower; None for one stack, named "".
        stack_of: name of a parameter -> its stack, where there are several.
        shared_layers: layers whose block runs several times in one forward pass (ALBERT).
        input_name: what layer 0 is called.
        block_name: what layers 1..L are called.
        blocks_above: stack -> number of blocks of another stack that stand between it and the head, such as those that
            fuse text with images.

    Raises:
        LayerMapError: an id lies outside 0..L+1.
    """

    def __init__(
        self,
        layer_ids: Mapping[str, int],
        num_layers: int,
        parameters: Mapping[str, nn.Parameter] | None = None,
        notes: Sequence[str] = (),
        embedding_modules: Collection[str] = (),
        stacks: Mapping[str, int] | None = None,
        stack_of: Mapping[str, str] | None = None,
        shared_layers: Collection[int] = (),
        input_name: str = "embeddings",
        block_name: str = "block",
        blocks_above: Mapping[str, int] | None = None,
    ) -> None:
        for name, layer_id in layer_ids.items():
            if not 0 <= layer_id <= num_layers + 1:
                raise LayerMapError(
                    f"{name}: layer {layer_id} does not exist; with {num_layers} blocks a layer id lies between "
                    f"0 (embeddings) and {num_layers + 1} (head)"
                )
        self.num_layers = num_layers
        self.stacks = dict(stacks or {"": num_layers})
        self.notes = tuple(notes)
        self.embedding_modules = frozenset(embedding_modules)
        self.shared_layers = frozenset(shared_layers)
        self._layer_ids = dict(layer_ids)
        self._stack_of = dict(stack_of or {})
        self._parameters = dict(parameters or {})
        self._names = (input_name, block_name)
        self._blocks_above = dict(blocks_above or {})

    @classmethod
    def from_model(
        cls, model: nn.Module, rules: Sequence[Rule] = (), grain: Grain = "block", example: Any = None
    ) -> "LayerMap":
        """Map every parameter of a model: any encoder or decoder of Transformers, torchvision or timm, or one's own.

        The blocks are found from the module tree and numbered in the order in which they run in one small forward pass
        (in eval mode, without gradients; weights on the meta device stay there). Around them: what runs before the
        first block is layer 0, and so are position tables that all blocks share; a downsampling belongs to the block
        that it leads into; a final norm to the last block; poolers and what follows to the head. An encoder and its
        decoder are one line of blocks, towers that do not feed one another are stacks of their own. A tied weight has
        the lowest of its places.

        Args:
            model: the model, also inside DistributedDataParallel or torch.compile, with adapters or quantised.
            rules: (regular expression, layer id or "head") pairs, searched in the parameter's full name; the first
                match wins and goes before what the structure says.
            grain: "block", or "stage" to give all blocks that work at one resolution (a CNN's stage) one layer.
            example: an input of the model, where none can be guessed: a dict of keywords or one tensor.

        Raises:
            LayerMapError: the structure cannot decide and the rules do not, or a rule matches nothing.
        """
        if grain not in ("block", "stage"):
            raise LayerMapError(f'grain must be "block" or "stage", got {grain!r}')
        named = dict(model.named_parameters(remove_duplicate=False))
        if lazy := [name for name, parameter in named.items() if is_lazy(parameter)]:
            raise LayerMapError(f"{lazy[0]} has no shape yet; run one batch through the model first")
        ruled = _apply_rules(named, rules)
        if named and ruled.keys() == named.keys():
            return cls._from_rules(model, ruled)
        found = locate(model, grain, example)
        num_layers = max(depth + found.blocks_above[stack] for stack, depth in found.stacks.items())
        main = next(iter(found.stacks))
        # A rule goes for all names of a tied weight, and counts in the stack of the model's output.
        by_weight = {id(named[name]): layer_id for name, layer_id in reversed(ruled.items())}
        layer_ids, stack_of = {}, {}
        for name, parameter in named.items():
            rule = by_weight.get(id(parameter))
            place = found.places[name] if rule is None else (main, rule)
            if place is None:
                raise LayerMapError(_no_layer_message(model, name, num_layers, found.failure))
            stack_of[name], layer_ids[name] = place[0], num_layers + 1 if place[1] == "head" else place[1]
        return cls(
            layer_ids,
            num_layers,
            dict(model.named_parameters()),
            found.notes,
            found.embedding_modules,
            found.stacks,
            stack_of,
            found.shared_layers,
            found.input_name,
            grain,
            found.blocks_above,
        )

    @classmethod
    def _from_rules(cls, model: nn.Module, ruled: Mapping[str, int | Literal["head"]]) -> "LayerMap":
        """A map that the rules alone decide: the highest number is the last block, unless "head" is never named."""
        numbers = [layer_id for layer_id in ruled.values() if layer_id != "head"]
        num_layers = max(numbers, default=0) - ("head" not in ruled.values())
        layer_ids = {name: num_layers + 1 if layer_id == "head" else layer_id for name, layer_id in ruled.items()}
        return cls(layer_ids, num_layers, dict(model.named_parameters()))

    @property
    def head_layer(self) -> int:
        """Layer id of the head, L+1."""
        return self.num_layers + 1

    def layer_id(self, parameter_name: str) -> int:
        """Layer of one parameter, named as in `model.named_parameters()`.

        Raises:
            LayerMapError: the map has no such parameter.
        """
        try:
            return self._layer_ids[parameter_name]
        except KeyError:
            hint = did_you_mean(parameter_name, self._layer_ids)
            raise LayerMapError(f"{parameter_name} is not a parameter of this layer map{hint}") from None

    def parameters(self, layer_id: int) -> dict[str, nn.Parameter]:
        """Name -> parameter of one layer; a tied weight is there once, at its lowest layer."""
        return {name: parameter for name, parameter in self._parameters.items() if self._layer_ids[name] == layer_id}

    def stack(self, parameter_name: str) -> str:
        """The stack of one parameter: the tower it belongs to, "" where there is one stack.

        Raises:
            LayerMapError: the map has no such parameter.
        """
        self.layer_id(parameter_name)
        return self._stack_of.get(parameter_name, next(iter(self.stacks)))

    def below_head(self, parameter_name: str) -> int:
        """How many layers below the head a parameter stands: 0 in the head, 1 in the last block of any tower.

        The last block of a tower that feeds the blocks of another stands below the first of those.
        """
        layer_id = self.layer_id(parameter_name)
        if layer_id == self.head_layer:
            return 0
        return self.blocks_to_head(self.stack(parameter_name)) + 1 - layer_id

    def blocks_to_head(self, stack: str) -> int:
        """Number of blocks between a tower's input and the head: its own, and those of another tower that it feeds."""
        return self.stacks[stack] + self._blocks_above.get(stack, 0)

    def aligned_layer(self, parameter_name: str) -> int:
        """Layer id as counted in the highest tower: the same number of blocks stands above it, down to 0.

        With one stack it is the layer id. Layer 0 of every tower is 0.
        """
        layer_id = self.layer_id(parameter_name)
        return 0 if layer_id == 0 else self.head_layer - self.below_head(parameter_name)

    def layer_name(self, layer_id: int, stack: str = "") -> str:
        """`embeddings` (`stem` of a network that reads images), `block 1` to `block L` (or `stage`), `head`."""
        if layer_id == self.head_layer:
            return "head"
        name = self._names[0] if layer_id == 0 else f"{self._names[1]} {layer_id}"
        return f"{stack} {name}" if stack and len(self.stacks) > 1 else name

    def __iter__(self) -> Iterator[int]:
        """The layer ids, 0 to L+1."""
        return iter(range(self.num_layers + 2))

    def __len__(self) -> int:
        return len(self._layer_ids)

    def __str__(self) -> str:
        rows = []
        for layer_id in self:
            everything = self.parameters(layer_id)
            for stack, depth in self.stacks.items():
                if layer_id > depth and (layer_id <= self.num_layers or stack != next(iter(self.stacks))):
                    continue
                shared = layer_id == self.head_layer
                parameters = {name: p for name, p in everything.items() if shared or self.stack(name) == stack}
                size = sum(parameter.numel() for parameter in parameters.values())
                name = self.layer_name(layer_id, stack)
                rows.append([str(layer_id), name, common_modules(parameters), f"{size:,}"])
        return "\n".join([text_table(["layer", "name", "modules", "parameters"], rows, right={0, 3}), *self.notes])


def common_modules(names: Iterable[str]) -> str:
    """The modules that hold the named parameters, told shortly: `bert.encoder.layer.0`."""
    modules = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    if not modules:
        return "-"
    parts = [module.split(".") for module in modules]
    shared = [column[0] for column in zip(*parts) if len(set(column)) == 1]
    if any(part.isdigit() for part in shared) or len(modules) == 1:
        return ".".join(shared)
    return f"{modules[0]} and {len(modules) - 1} more"


def _apply_rules(names: Collection[str], rules: Sequence[Rule]) -> dict[str, int | Literal["head"]]:
    ruled: dict[str, int | Literal["head"]] = {}
    for pattern, layer_id in rules:
        rule = f"rule ({pattern!r}, {layer_id!r})"
        if layer_id != "head" and (isinstance(layer_id, bool) or not isinstance(layer_id, int)):
            raise LayerMapError(f'{rule} must end in a layer id, a whole number, or "head"')
        try:
            matched = [name for name in names if re.search(pattern, name)]
        except re.error as error:
            raise LayerMapError(f"{rule} is no regular expression: {error}") from None
        if not matched:
            raise LayerMapError(f"{rule} matches no parameter, such as {next(iter(names), 'none')}")
        for name in matched:
            ruled.setdefault(name, layer_id)
    return ruled


def _no_layer_message(model: nn.Module, name: str, num_layers: int, failure: str) -> str:
    module = model.get_submodule(name.rpartition(".")[0])
    why = f"the forward pass failed ({failure}; pass an input as example=)" if failure else "the forward pass skips it"
    return (
        f"{name} (in a {type(module).__name__}) has no layer: {why}, and where it stands tells nothing; say which with "
        f"a rule, as in LayerMap.from_model(model, rules=[({f'^{re.escape(name)}$'!r}, layer)]), layer 0 (embeddings) "
        f"to {num_layers + 1} (head)"
    )
