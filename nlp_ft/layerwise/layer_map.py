"""`LayerMap`: which layer each parameter of a model belongs to, total or an error.

Layer 0 holds the embeddings, layers 1..L the encoder's blocks from input to output, layer L+1 the head.
A parameter that no policy below covers raises `LayerMapError`: it never falls into a layer in silence.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from torch import nn

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise.tables import text_table


@dataclass(frozen=True)
class Family:
    """Where an architecture keeps its layers; names are relative to the encoder, patterns match their beginning.

    Every parameter outside the encoder belongs to the head.
    """

    blocks: str
    """Path of the list of blocks, in the order in which they run."""
    embeddings: tuple[str, ...] = ("embeddings.",)
    """Embeddings, their projections, and relative-position tables that all blocks share: layer 0."""
    last_block: tuple[str, ...] = ()
    """What runs after the last block and before pooling, such as a final norm: layer L."""
    head: tuple[str, ...] = ("pooler.",)
    """What turns the last hidden states into one vector: layer L+1."""
    first_block: tuple[str, ...] = ()
    """What runs together with the first block: layer 1."""
    embedding_dropout: tuple[str, ...] = ()
    """Modules without parameters, outside those above, that the embeddings pass through."""


FAMILIES: dict[str, Family] = {
    "bert": Family("encoder.layer"),
    "roberta": Family("encoder.layer"),
    "distilbert": Family("transformer.layer"),
    "electra": Family("encoder.layer", embeddings=("embeddings.", "embeddings_project.")),
    # The convolution of the large v2 checkpoints reads the embeddings and is added to the output of the first block.
    "deberta-v2": Family(
        "encoder.layer",
        embeddings=("embeddings.", "encoder.rel_embeddings.", "encoder.LayerNorm."),
        first_block=("encoder.conv.",),
    ),
    "albert": Family("encoder.albert_layer_groups", embeddings=("embeddings.", "encoder.embedding_hidden_mapping_in.")),
    "mpnet": Family("encoder.layer", embeddings=("embeddings.", "encoder.relative_attention_bias.")),
    # XLNet's one dropout serves the embeddings and the last hidden states alike.
    "xlnet": Family("layer", embeddings=("word_embedding.", "mask_emb"), embedding_dropout=("dropout",)),
    "modernbert": Family("layers", last_block=("final_norm.",)),
}
"""Keyed on `config.model_type` of the encoder."""


class LayerMap:
    """Parameter name -> layer id, for every parameter of a model.

    Args:
        layer_ids: name -> layer id, 0 (embeddings) to `num_layers + 1` (head).
        num_layers: L, the number of blocks.
        parameters: name -> parameter; where given, `parameters()` and the table can tell sizes.
        notes: what a reader of the map should know, one sentence each.
        embedding_modules: names of modules without parameters that are frozen together with layer 0.

    Raises:
        LayerMapError: an id lies outside 0..L+1.
    """

    def __init__(
        self,
        layer_ids: Mapping[str, int],
        num_layers: int,
        parameters: Mapping[str, nn.Parameter] | None = None,
        notes: Sequence[str] = (),
        embedding_modules: Sequence[str] = (),
    ) -> None:
        for name, layer_id in layer_ids.items():
            if not 0 <= layer_id <= num_layers + 1:
                raise LayerMapError(
                    f"{name}: layer {layer_id} does not exist; with {num_layers} blocks a layer id lies between "
                    f"0 (embeddings) and {num_layers + 1} (head)"
                )
        self.num_layers = num_layers
        self.notes = tuple(notes)
        self.embedding_modules = frozenset(embedding_modules)
        self._layer_ids = dict(layer_ids)
        self._parameters = dict(parameters or {})

    @classmethod
    def from_model(cls, model: nn.Module, rules: Sequence[tuple[str, int]] = ()) -> "LayerMap":
        """Map every parameter of a Transformers encoder, with or without a head on it.

        Args:
            model: a model of one of the mapped families, bare or with a task head.
            rules: (regular expression, layer id) pairs, searched in the parameter's full name; the first match wins
                and goes before the family's own policy.

        Raises:
            LayerMapError: the architecture is not mapped, a parameter has no layer, or a rule matches nothing.
        """
        prefix, encoder = _find_encoder(model)
        family = _family_of(encoder)
        num_layers = len(_blocks_of(encoder, family))
        ruled = _apply_rules(model, rules)
        parameters: dict[str, nn.Parameter] = {}
        layer_ids: dict[str, int] = {}
        lowest: dict[int, int] = {}
        # A tied weight has several names: all of them get its lowest place, and it is counted under its first one.
        for name, parameter in model.named_parameters(remove_duplicate=False):
            layer_id = ruled.get(name)
            if layer_id is None:
                layer_id = _layer_id(name, prefix, family, num_layers)
            if layer_id is None:
                raise LayerMapError(_no_layer_message(model, name, num_layers))
            layer_ids[name] = layer_id
            lowest[id(parameter)] = min(layer_id, lowest.get(id(parameter), layer_id))
            parameters[name] = parameter
        layer_ids = {name: lowest[id(parameters[name])] for name in layer_ids}
        dropout = [prefix + name for name in family.embedding_dropout]
        return cls(layer_ids, num_layers, dict(model.named_parameters()), _notes(encoder), dropout)

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
            near = get_close_matches(parameter_name, self._layer_ids, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise LayerMapError(f"{parameter_name} is not a parameter of this layer map{hint}") from None

    def parameters(self, layer_id: int) -> dict[str, nn.Parameter]:
        """Name -> parameter of one layer; a tied weight is there once, at its lowest layer."""
        return {name: parameter for name, parameter in self._parameters.items() if self._layer_ids[name] == layer_id}

    def layer_name(self, layer_id: int) -> str:
        """`embeddings`, `block 1` to `block L`, `head`."""
        if layer_id == 0:
            return "embeddings"
        return "head" if layer_id == self.head_layer else f"block {layer_id}"

    def __iter__(self) -> Iterator[int]:
        """The layer ids, 0 to L+1."""
        return iter(range(self.num_layers + 2))

    def __len__(self) -> int:
        return len(self._layer_ids)

    def __str__(self) -> str:
        rows = []
        for layer_id in self:
            parameters = self.parameters(layer_id)
            size = sum(parameter.numel() for parameter in parameters.values())
            rows.append([str(layer_id), self.layer_name(layer_id), common_modules(parameters), f"{size:,}"])
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


def _find_encoder(model: nn.Module) -> tuple[str, nn.Module]:
    """Prefix of the encoder's parameter names, and the encoder: the model itself when it has no head."""
    attribute = getattr(model, "base_model_prefix", "")
    encoder = getattr(model, attribute, None) if attribute else None
    if not isinstance(encoder, nn.Module):
        return "", model
    # By identity: a wrapper (torch.compile, DistributedDataParallel) puts its own prefix before the names.
    name = next(name for name, module in model.named_modules() if module is encoder)
    return f"{name}." if name else "", encoder


def _family_of(encoder: nn.Module) -> Family:
    model_type = getattr(getattr(encoder, "config", None), "model_type", None)
    if model_type not in FAMILIES:
        what = f"model type {model_type!r}" if model_type else type(encoder).__name__
        raise LayerMapError(
            f"{what} has no layer map; mapped are: {', '.join(sorted(FAMILIES))}. For another model build the map "
            "yourself: LayerMap({parameter name: layer id, ...}, num_layers=L)"
        )
    return FAMILIES[model_type]


def _blocks_of(encoder: nn.Module, family: Family) -> nn.ModuleList:
    blocks = encoder.get_submodule(family.blocks)
    if not isinstance(blocks, nn.ModuleList):
        raise LayerMapError(f"{type(encoder).__name__}.{family.blocks} is not a list of blocks")
    return blocks


def _layer_id(name: str, prefix: str, family: Family, num_layers: int) -> int | None:
    if not name.startswith(prefix):
        return num_layers + 1
    inner = name.removeprefix(prefix)
    block = re.match(re.escape(family.blocks) + r"\.(\d+)\.", inner)
    if block:
        return int(block[1]) + 1
    places = (
        (0, family.embeddings),
        (1, family.first_block),
        (num_layers, family.last_block),
        (num_layers + 1, family.head),
    )
    return next((layer_id for layer_id, starts in places if inner.startswith(starts)), None)


def _apply_rules(model: nn.Module, rules: Sequence[tuple[str, int]]) -> dict[str, int]:
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    ruled: dict[str, int] = {}
    for pattern, layer_id in rules:
        try:
            matched = [name for name in names if re.search(pattern, name)]
        except re.error as error:
            raise LayerMapError(f"rule ({pattern!r}, {layer_id}) is no regular expression: {error}") from None
        if not matched:
            raise LayerMapError(f"rule ({pattern!r}, {layer_id}) matches no parameter, such as {names[0]}")
        for name in matched:
            ruled.setdefault(name, layer_id)
    return ruled


def _no_layer_message(model: nn.Module, name: str, num_layers: int) -> str:
    module = model.get_submodule(name.rpartition(".")[0])
    return (
        f"{name} (in a {type(module).__name__}) has no layer; say which with a rule, as in "
        f"LayerMap.from_model(model, rules=[({f'^{re.escape(name)}$'!r}, layer)]), layer 0 (embeddings) to "
        f"{num_layers + 1} (head)"
    )


def _notes(encoder: nn.Module) -> list[str]:
    config = getattr(encoder, "config", None)
    if getattr(config, "model_type", None) != "albert":
        return []
    runs, blocks = getattr(config, "num_hidden_layers", 0), getattr(config, "num_hidden_groups", 1)
    return [f"ALBERT runs {blocks} shared block(s) {runs} times: the map has {blocks} block(s), not {runs}."]
