"""`LayerMap`: the layer of every parameter of a model.

Layer 0 holds the embeddings, layers 1..L the encoder's blocks from input to output, layer L+1 the head. If the layer of
a parameter cannot be found, `LayerMapError` is raised: no parameter is put into a layer by default.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from numbers import Integral
from typing import Any, Literal

from torch import nn
from torch.nn.parameter import is_lazy

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise.discovery.locate import Locations, locate
from nlp_ft.layerwise.discovery.stacks import Grain
from nlp_ft.suggest import did_you_mean
from nlp_ft.tables import text_table

Rule = tuple[str, int | Literal["head"]]


class LayerMap:
    """The layer id of every parameter of a model.

    A model of several encoders, such as one for text and one for images, has several stacks of blocks. Each stack
    counts its layers from 0, and all share the head. Stacks are aligned at the top: the last block of each comes right
    below the head, or below the block of another stack that it feeds.

    Args:
        layer_ids: parameter name -> layer id, 0 (embeddings) to `num_layers + 1` (head).
        num_layers: L, the number of blocks; with several stacks, the most blocks between an input and the head.
        parameters: parameter name -> parameter, which `parameters()` and the printed table need.
        notes: what a reader of the map should know, one sentence each.
        embedding_modules: names of modules without parameters that are frozen together with layer 0.
        stacks: stack name -> number of its blocks; None for one stack, whose name is "".
        stack_of: parameter name -> stack name, where there are several stacks.
        shared_layers: layers whose block runs several times in one forward pass (ALBERT).
        input_name: name of layer 0 for people to read.
        block_name: name of the layers 1..L for people to read.
        blocks_above: stack name -> number of blocks of another stack between this stack and the head, such as the
            blocks that fuse text with images.

    Raises:
        LayerMapError: a layer id is neither that of the head nor one of the parameter's stack.
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
        for name, layer_id in self._layer_ids.items():
            depth = self.stacks[self.stack(name)]
            if not 0 <= layer_id <= depth and layer_id != self.head_layer:
                of_stack = f" of stack {self.stack(name)}" if len(self.stacks) > 1 else ""
                raise LayerMapError(
                    f"{name}: layer {layer_id} does not exist; with the {depth} blocks{of_stack}, a layer id lies "
                    f"between 0 (embeddings) and {depth}, or is {self.head_layer} (head)"
                )

    @classmethod
    def from_model(
        cls, model: nn.Module, rules: Sequence[Rule] = (), grain: Grain = "block", example: Any = None
    ) -> "LayerMap":
        """Find the layer of every parameter of an encoder or decoder from Transformers, torchvision, timm or elsewhere.

        The blocks are found in the module tree and numbered in the order in which one small forward pass runs them (in
        eval mode, without gradients; weights on the meta device stay there). Parameters outside the blocks follow these
        rules: what runs before the first block is layer 0, and so are position tables that all blocks share; a
        downsampling belongs to the block that it leads into; a final norm belongs to the last block; poolers and
        everything after them belong to the head. An encoder and its decoder are one stack; encoders that do not feed
        one another are separate stacks. A tied weight belongs to the lowest layer that uses it.

        Args:
            model: the model; it may be wrapped in DistributedDataParallel or torch.compile, have adapters, or be
                quantised.
            rules: pairs of a regular expression and a layer id or "head". The expression is searched in the parameter's
                full name; the first match decides, whatever the structure says.
            grain: "block", or "stage" to make one layer of all blocks that work at one resolution (a CNN's stage).
            example: an input of the model, as a dict of keyword arguments or one tensor; None makes one up.

        Raises:
            LayerMapError: neither structure nor rules give a parameter's layer, or a rule matches no parameter.
        """
        if not isinstance(model, nn.Module):
            raise LayerMapError(f"a layer map is made of a torch.nn.Module, got {type(model).__name__}")
        if grain not in ("block", "stage"):
            raise LayerMapError(f'grain must be "block" or "stage", got {grain!r}')
        named = dict(model.named_parameters(remove_duplicate=False))
        if lazy := [name for name, parameter in named.items() if is_lazy(parameter)]:
            raise LayerMapError(f"{lazy[0]} has no shape yet; run one batch through the model first")
        ruled = _apply_rules(named, rules)
        if named and ruled.keys() == named.keys():
            return cls._from_rules(model, ruled)
        return cls._from_structure(model, ruled, locate(model, grain, example), grain)

    @classmethod
    def _from_structure(
        cls, model: nn.Module, ruled: dict[str, int | Literal["head"]], found: Locations, block_name: str
    ) -> "LayerMap":
        """Make a map from what `locate` found, and from rules, which go first."""
        num_layers = max(depth + found.blocks_above[stack] for stack, depth in found.stacks.items())
        main = next(iter(found.stacks))
        layer_ids, stack_of = {}, {}
        for name, place in found.places.items():
            # The number of a rule counts in the stack of the model's output.
            place = (main, ruled[name]) if name in ruled else place
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
            block_name,
            found.blocks_above,
        )

    @classmethod
    def _from_rules(cls, model: nn.Module, ruled: Mapping[str, int | Literal["head"]]) -> "LayerMap":
        """Make a map from rules alone: the highest number is the last block, or the head if no rule names "head"."""
        numbers = [layer_id for layer_id in ruled.values() if layer_id != "head"]
        num_layers = max(numbers, default=0) - ("head" not in ruled.values())
        if num_layers < 0:
            raise LayerMapError('the rules put every parameter into layer 0; name those of the head: ["fc", "head"]')
        layer_ids = {name: num_layers + 1 if layer_id == "head" else layer_id for name, layer_id in ruled.items()}
        return cls(layer_ids, num_layers, dict(model.named_parameters()))

    @property
    def head_layer(self) -> int:
        """Layer id of the head, L+1."""
        return self.num_layers + 1

    def layer_id(self, parameter_name: str) -> int:
        """Look up the layer id of one parameter, named as in `model.named_parameters()`.

        Raises:
            LayerMapError: the map has no such parameter.
        """
        try:
            return self._layer_ids[parameter_name]
        except KeyError:
            hint = did_you_mean(parameter_name, self._layer_ids)
            raise LayerMapError(f"{parameter_name} is not a parameter of this layer map{hint}") from None

    @property
    def names(self) -> Set[str]:
        """Names of all parameters, with every name of a tied weight."""
        return self._layer_ids.keys()

    def check_layers(self, layers: Iterable[int]) -> None:
        """Check that layers exist. Raises `LayerMapError`."""
        for layer in layers:
            if isinstance(layer, bool) or not isinstance(layer, Integral) or not 0 <= layer <= self.head_layer:
                raise LayerMapError(
                    f"layer {layer!r} does not exist; layers go from 0 (embeddings) to {self.head_layer} (head)"
                )

    def parameters(self, layer_id: int) -> dict[str, nn.Parameter]:
        """Return the parameters of one layer by name; a tied weight occurs once, in its lowest layer.

        Raises:
            LayerMapError: there is no such layer.
        """
        self.check_layers([layer_id])
        return {name: parameter for name, parameter in self._parameters.items() if self._layer_ids[name] == layer_id}

    def rebind(self, model: nn.Module) -> None:
        """Refer to the parameters that the model has now; FSDP2, for one, puts others under the same names."""
        self._parameters = dict(model.named_parameters())

    def stack(self, parameter_name: str) -> str:
        """Look up the name of the stack of one parameter; "" if there is only one stack.

        Raises:
            LayerMapError: the map has no such parameter.
        """
        self.layer_id(parameter_name)
        return self._stack_of.get(parameter_name, next(iter(self.stacks)))

    def below_head(self, parameter_name: str) -> int:
        """Count how many layers below the head a parameter is: 0 in the head, 1 in the last block of a stack.

        The last block of a stack that feeds another stack comes right below the block that it feeds.
        """
        layer_id = self.layer_id(parameter_name)
        if layer_id == self.head_layer:
            return 0
        return self.blocks_to_head(self.stack(parameter_name)) + 1 - layer_id

    def blocks_to_head(self, stack: str) -> int:
        """Count the blocks between the input of a stack and the head, with those of another stack that it feeds."""
        return self.stacks[stack] + self._blocks_above.get(stack, 0)

    def aligned_layer(self, parameter_name: str) -> int:
        """Return the layer id of a parameter as counted in the highest stack, by the number of blocks above it.

        With one stack this is the layer id. Layer 0 of every stack is 0.
        """
        layer_id = self.layer_id(parameter_name)
        return 0 if layer_id == 0 else self.head_layer - self.below_head(parameter_name)

    def layer_name(self, layer_id: int, stack: str = "") -> str:
        """Name a layer for people: `embeddings` (`stem` for images), `block 1` to `block L` (or `stage`), `head`."""
        if layer_id == self.head_layer:
            return "head"
        name = self._names[0] if layer_id == 0 else f"{self._names[1]} {layer_id}"
        return f"{stack} {name}" if stack and len(self.stacks) > 1 else name

    def __iter__(self) -> Iterator[int]:
        """Iterate over the layer ids, 0 to L+1."""
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
    """Name in few words the modules that hold the named parameters, such as `bert.encoder.layer.0`."""
    modules = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    if not modules:
        return "-"
    parts = [module.split(".") for module in modules]
    shared = [column[0] for column in zip(*parts) if len(set(column)) == 1]
    if any(part.isdigit() for part in shared) or len(modules) == 1:
        return ".".join(shared)
    return f"{modules[0]} and {len(modules) - 1} more"


def _apply_rules(named: Mapping[str, nn.Parameter], rules: Sequence[Rule]) -> dict[str, int | Literal["head"]]:
    """Map the names that rules match to layers; what is said of one name of a tied weight holds for all its names."""
    ruled: dict[str, int | Literal["head"]] = {}
    for given in rules:
        if not isinstance(given, list | tuple) or len(given) != 2 or not isinstance(given[0], str):
            raise LayerMapError(f"rules are pairs of a regular expression and a layer, got {given!r}")
        pattern, layer_id = given
        rule = f"rule ({pattern!r}, {layer_id!r})"
        if layer_id != "head" and (isinstance(layer_id, bool) or not isinstance(layer_id, int)):
            raise LayerMapError(f'{rule} must end in a layer id, a whole number, or "head"')
        try:
            matched = [name for name in named if re.search(pattern, name)]
        except re.error as error:
            raise LayerMapError(f"{rule} is not a regular expression: {error}") from None
        if not matched:
            raise LayerMapError(f"{rule} matches no parameter, such as {next(iter(named), 'none')}")
        for name in matched:
            ruled.setdefault(name, layer_id)
    by_weight = {id(named[name]): layer_id for name, layer_id in reversed(ruled.items())}
    return {name: by_weight[id(weight)] for name, weight in named.items() if id(weight) in by_weight}


def _no_layer_message(model: nn.Module, name: str, num_layers: int, failure: str) -> str:
    module = model.get_submodule(name.rpartition(".")[0])
    why = f"the forward pass failed ({failure}; pass an input as example=)" if failure else "the forward pass skips it"
    return (
        f"{name} (in a {type(module).__name__}) has no layer: {why}, and its position in the model does not tell; give "
        f"it one with a rule, as in LayerMap.from_model(model, rules=[({f'^{re.escape(name)}$'!r}, layer)]), layer 0 "
        f"(embeddings) to {num_layers + 1} (head)"
    )
