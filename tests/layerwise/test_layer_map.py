"""Layer maps of nine families against literal tables and against the order in which the layers run."""

import ast
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch import nn

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise import LayerMap
from nlp_ft.layerwise.freezing import count_parameters
from tests.layerwise.families import FAMILIES, HEADS, build, layers_as_they_run

EMBEDDINGS, FIRST, LAST, HEAD = 0, 1, 12, 13
# Module or parameter of a sequence classifier with 12 blocks -> its layer.
MODULES: dict[str, dict[str, int]] = {
    "bert": {
        "bert.embeddings": EMBEDDINGS,
        "bert.encoder.layer.0": FIRST,
        "bert.encoder.layer.1": 2,
        "bert.encoder.layer.10": 11,
        "bert.encoder.layer.11": LAST,
        "bert.pooler.dense": HEAD,
        "classifier": HEAD,
    },
    "roberta": {
        "roberta.embeddings": EMBEDDINGS,
        "roberta.encoder.layer.1": 2,
        "roberta.encoder.layer.10": 11,
        "classifier.dense": HEAD,
        "classifier.out_proj": HEAD,
    },
    "distilbert": {
        "distilbert.embeddings": EMBEDDINGS,
        "distilbert.transformer.layer.1": 2,
        "distilbert.transformer.layer.10": 11,
        "pre_classifier": HEAD,
        "classifier": HEAD,
    },
    "electra": {
        "electra.embeddings": EMBEDDINGS,
        "electra.embeddings_project": EMBEDDINGS,
        "electra.encoder.layer.1": 2,
        "electra.encoder.layer.10": 11,
        "classifier.dense": HEAD,
        "classifier.out_proj": HEAD,
    },
    "deberta-v2": {
        "deberta.embeddings": EMBEDDINGS,
        "deberta.embeddings.embed_proj": EMBEDDINGS,
        "deberta.encoder.rel_embeddings": EMBEDDINGS,
        "deberta.encoder.LayerNorm": EMBEDDINGS,
        "deberta.encoder.conv.conv": FIRST,
        "deberta.encoder.conv.LayerNorm": FIRST,
        "deberta.encoder.layer.1": 2,
        "deberta.encoder.layer.10": 11,
        "pooler.dense": HEAD,
        "classifier": HEAD,
    },
    "albert": {
        "albert.embeddings": EMBEDDINGS,
        "albert.encoder.embedding_hidden_mapping_in": EMBEDDINGS,
        "albert.encoder.albert_layer_groups.0": FIRST,
        "albert.pooler": 2,
        "classifier": 2,
    },
    "mpnet": {
        "mpnet.embeddings": EMBEDDINGS,
        "mpnet.encoder.relative_attention_bias": EMBEDDINGS,
        "mpnet.encoder.layer.1": 2,
        "mpnet.encoder.layer.10": 11,
        "classifier.dense": HEAD,
        "classifier.out_proj": HEAD,
    },
    "xlnet": {
        "transformer.mask_emb": EMBEDDINGS,
        "transformer.word_embedding": EMBEDDINGS,
        "transformer.layer.1": 2,
        "transformer.layer.10": 11,
        "transformer.layer.10.rel_attn.seg_embed": 11,
        "transformer.layer.10.rel_attn.r_w_bias": 11,
        "sequence_summary.summary": HEAD,
        "logits_proj": HEAD,
    },
    "modernbert": {
        "model.embeddings": EMBEDDINGS,
        "model.layers.1": 2,
        "model.layers.10": 11,
        "model.final_norm": LAST,
        "head.dense": HEAD,
        "head.norm": HEAD,
        "classifier": HEAD,
    },
}


@pytest.mark.parametrize("family", MODULES)
def test_every_parameter_of_a_module_has_the_layer_of_the_table(family: str) -> None:
    model = build(family, num_layers=12)
    layer_map = LayerMap.from_model(model)
    for module, layer in MODULES[family].items():
        names = [name for name, _ in model.named_parameters() if name == module or name.startswith(f"{module}.")]
        assert names, module
        assert {name: layer_map.layer_id(name) for name in names} == dict.fromkeys(names, layer)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_parameter_lies_in_exactly_one_layer(family: str, head: str) -> None:
    model = build(family, head)
    layer_map = LayerMap.from_model(model)
    held = [name for layer_id in layer_map for name in layer_map.parameters(layer_id)]
    assert sorted(held) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_are_numbered_in_the_order_in_which_they_run(family: str, head: str) -> None:
    model = build(family, head, num_layers=3)
    layer_map = LayerMap.from_model(model)
    assert layer_map.num_layers == (1 if family == "albert" else 3)
    # A bare encoder without a pooler has no head.
    assert layers_as_they_run(model, layer_map) == [layer for layer in layer_map if layer_map.parameters(layer)]


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_short_encoder_is_mapped_in_the_order_in_which_it_runs(family: str, num_layers: int) -> None:
    if (family, num_layers) == ("modernbert", 1) and Version(transformers.__version__) < Version("5.10"):
        pytest.skip("this Transformers cannot make a ModernBERT of one block, all of whose attention is global")
    model = build(family, num_layers=num_layers)
    layer_map = LayerMap.from_model(model)
    assert layers_as_they_run(model, layer_map) == list(range(layer_map.num_layers + 2))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pieces_of_a_pooled_classifiers_head_belong_to_the_head(family: str) -> None:
    layer_map = LayerMap.from_model(build(family, "pooled"))
    pieces = {"head.bottleneck.weight", "head.bottleneck.bias", "head.out_proj.weight", "head.out_proj.bias"}
    assert set(layer_map.parameters(layer_map.head_layer)) == pieces


def test_alberts_shared_block_is_one_layer_and_the_map_says_so() -> None:
    layer_map = LayerMap.from_model(build("albert", num_layers=12))
    assert layer_map.num_layers == 1
    assert layer_map.shared_layers == {1}
    assert str(layer_map).splitlines()[-1] == (
        "1 block(s) run 12 times in one pass: a shared block is one layer, whose runs cannot have different rates."
    )


def test_each_group_of_an_albert_with_groups_is_a_layer() -> None:
    model = build("albert", num_layers=12, num_hidden_groups=3)
    layer_map = LayerMap.from_model(model)
    assert layer_map.layer_id("albert.encoder.albert_layer_groups.2.albert_layers.0.ffn.weight") == 3
    assert layers_as_they_run(model, layer_map) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("family", "embeddings", "decoder"),
    [
        ("bert", "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        ("distilbert", "distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight"),
        ("modernbert", "model.embeddings.tok_embeddings.weight", "decoder.weight"),
    ],
)
def test_a_tied_weight_is_counted_once_at_its_lowest_place(family: str, embeddings: str, decoder: str) -> None:
    model = build(family, "masked")
    assert model.get_parameter(embeddings) is model.get_parameter(decoder)
    layer_map = LayerMap.from_model(model)
    assert (layer_map.layer_id(embeddings), layer_map.layer_id(decoder)) == (0, 0)
    held = [id(parameter) for layer_id in layer_map for parameter in layer_map.parameters(layer_id).values()]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


def test_the_printed_map_shows_every_layer_with_its_number_of_parameters() -> None:
    rows = [line.split() for line in str(LayerMap.from_model(build("bert"))).splitlines()]
    assert rows[0] == ["layer", "name", "modules", "parameters"]
    embeddings = 50 * 16 + 40 * 16 + 2 * 16 + 2 * 16
    block = 4 * (16 * 16 + 16) + (16 * 32 + 32) + (32 * 16 + 16) + 2 * (2 * 16)
    pooler_and_classifier = 16 * 16 + 16 + 2 * 16 + 2
    assert [(row[0], row[1], row[-1]) for row in rows[2:]] == [
        ("0", "embeddings", f"{embeddings:,}"),
        ("1", "block", f"{block:,}"),
        ("2", "block", f"{block:,}"),
        ("3", "head", f"{pooler_and_classifier:,}"),
    ]


def test_the_printed_numbers_of_a_model_with_tied_weights_add_up_to_its_size() -> None:
    model = build("bert", "masked")
    lines = str(LayerMap.from_model(model)).splitlines()[2:]
    assert sum(int(line.split()[-1].replace(",", "")) for line in lines) == count_parameters(model)[0]


def test_a_rule_goes_before_the_familys_own_policy_and_the_first_rule_wins() -> None:
    rules = [(r"pooler\.dense\.weight", 2), ("pooler", 1)]
    layer_map = LayerMap.from_model(build("bert"), rules)
    assert layer_map.layer_id("bert.pooler.dense.weight") == 2
    assert layer_map.layer_id("bert.pooler.dense.bias") == 1
    assert layer_map.layer_id("classifier.weight") == 3


def test_a_rule_that_matches_nothing_is_an_error_with_its_pattern() -> None:
    with pytest.raises(LayerMapError, match=re.escape("rule ('poolr', 3) matches no parameter")):
        LayerMap.from_model(build("bert"), [("poolr", 3)])


@pytest.mark.parametrize("layer", [4, -1])
def test_a_rule_with_a_layer_that_does_not_exist_is_an_error(layer: int) -> None:
    with pytest.raises(LayerMapError, match=rf"bert.pooler.dense.weight: layer {layer} does not exist.*3 \(head\)"):
        LayerMap.from_model(build("bert"), [("pooler", layer)])


@pytest.mark.parametrize("model", [nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 2))])
def test_a_model_without_blocks_is_refused_until_rules_place_every_parameter(model: nn.Module) -> None:
    with pytest.raises(LayerMapError, match=r"^Sequential has no list of blocks .* rules=\["):
        LayerMap.from_model(model)
    with pytest.raises(LayerMapError, match="no list of blocks"):
        LayerMap.from_model(model, rules=[("weight", 1)])
    layer_map = LayerMap.from_model(model, rules=[(r"0\.weight", 0), ("bias|weight", "head")])
    assert layer_map.num_layers == 0
    assert [layer_map.layer_id("0.weight"), layer_map.layer_id("0.bias")] == [0, 1]


@pytest.mark.parametrize("layer", [1.0, True, "2", None])
def test_a_rule_that_ends_in_no_layer_is_refused(layer: object) -> None:
    with pytest.raises(LayerMapError, match='must end in a layer id, a whole number, or "head"'):
        LayerMap.from_model(build("bert"), rules=[("classifier", layer)])  # type: ignore[list-item]


def test_rules_that_leave_no_head_are_refused() -> None:
    with pytest.raises(LayerMapError, match=r"^the rules put every parameter into layer 0; name those of the head"):
        LayerMap.from_model(build("bert"), rules=[(".", 0)])


def advised_rules(model: nn.Module, rules: list[tuple[str, int]], layer: int) -> list[tuple[str, int]]:
    """What the error for a parameter without a layer says to write."""
    with pytest.raises(LayerMapError) as error:
        LayerMap.from_model(model, rules)
    advice = re.search(r"LayerMap.from_model\(model, rules=(\[.*\])\)", str(error.value))
    assert advice
    return ast.literal_eval(advice[1].replace(", layer)", f", {layer})"))


def test_a_parameter_that_is_not_used_and_stands_beside_the_blocks_is_named_and_the_advised_rules_place_it() -> None:
    model = build("bert")
    model.bert.encoder.gate, model.bert.encoder.gate_2 = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    rules: list[tuple[str, int]] = []
    for name in ("bert.encoder.gate", "bert.encoder.gate_2"):
        with pytest.raises(LayerMapError, match=rf"^{name} \(in a BertEncoder\) has no layer"):
            LayerMap.from_model(model, rules)
        rules += advised_rules(model, rules, layer=2)
    layer_map = LayerMap.from_model(model, rules)
    assert layer_map.layer_id("bert.encoder.gate") == layer_map.layer_id("bert.encoder.gate_2") == 2


def test_the_advised_rule_places_the_named_parameter_alone() -> None:
    model = build("bert")
    model.bert.gate, model.bert.gate_2 = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    rules = advised_rules(model, [], layer=2)
    with pytest.raises(LayerMapError, match=r"^bert\.gate_2 \(in a BertModel\) has no layer"):
        LayerMap.from_model(model, rules)


def test_a_pass_that_breaks_off_before_the_first_block_leaves_the_embeddings_below_it_and_is_told() -> None:
    model = build("bert")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no first block today")

    before = LayerMap.from_model(model)
    model.bert.encoder.forward = broken
    layer_map = LayerMap.from_model(model)
    names = [name for name, _ in model.named_parameters()]
    assert [layer_map.layer_id(name) for name in names] == [before.layer_id(name) for name in names]
    assert layer_map.notes[-1].startswith("the forward pass failed (RuntimeError: no first block today)")


def test_an_unknown_name_is_answered_with_the_nearest_known_one() -> None:
    layer_map = LayerMap.from_model(build("bert"))
    with pytest.raises(LayerMapError, match=r"did you mean bert\.pooler\.dense\.weight\?"):
        layer_map.layer_id("bert.pooler.dens.weight")


def test_a_compiled_model_has_the_same_layers_as_the_model_in_it() -> None:
    model = build("bert")
    plain = LayerMap.from_model(model)
    compiled: Any = torch.compile(model)
    layer_map = LayerMap.from_model(compiled)
    names = [name for name, _ in compiled.named_parameters()]
    assert [layer_map.layer_id(name) for name in names] == [
        plain.layer_id(name.removeprefix("_orig_mod.")) for name in names
    ]
    assert layer_map.embedding_modules == {f"_orig_mod.{name}" for name in plain.embedding_modules} != set()


def test_the_core_imports_no_other_framework() -> None:
    listing = "import sys, nlp_ft.layerwise; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded
    assert not {"transformers", "accelerate", "datasets", "evaluate", "sklearn", "yaml", "pydantic"} & set(loaded)
