"""Learning rates and optimizer groups against published tables, timm and optimizers built by hand."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from nlp_ft.errors import LayerMapError, TrainingError
from nlp_ft.layerwise import (
    LayerMap,
    build_lr_schedule,
    build_optimizer,
    layerwise_param_groups,
    lr_scales,
    set_learning_rates,
)
from nlp_ft.layerwise.param_groups import Convention, check_partition, head_lr_ratio
from tests.layerwise.families import FAMILIES, batch, build

# n = 12, d = 0.9: factor of the embeddings, blocks 1, 7 and 12, and the head, as each project computes it.
GOLDEN: dict[Convention, list[float]] = {
    "top": [0.28242954, 0.31381060, 0.59049, 1.0, 1.0],
    "beit": [0.25418658, 0.28242954, 0.531441, 0.9, 1.0],
    "electra": [0.22876792, 0.25418658, 0.4782969, 0.81, 1.0],
}


@pytest.mark.parametrize("convention", GOLDEN)
def test_the_factors_of_twelve_blocks_are_those_of_the_published_table(convention: Convention) -> None:
    scales = lr_scales(12, 0.9, convention)
    assert len(scales) == 14
    assert [scales[layer] for layer in (0, 1, 7, 12, 13)] == pytest.approx(GOLDEN[convention], abs=5e-9)


def test_the_beit_factors_are_those_timm_publishes_for_three_blocks() -> None:
    assert lr_scales(3, 0.75, "beit") == [0.31640625, 0.421875, 0.5625, 0.75, 1.0]


@pytest.mark.parametrize(("depth", "decay"), [(3, 0.75), (6, 0.65), (12, 0.9)])
def test_the_beit_factors_are_those_of_timm(depth: int, decay: float) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    from timm.models import VisionTransformer
    from timm.optim import param_groups_layer_decay

    vit = VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=depth, num_heads=2, num_classes=2)
    theirs = {group["lr_scale"] for group in param_groups_layer_decay(vit, layer_decay=decay)}
    assert sorted(theirs) == lr_scales(depth, decay, "beit")


def test_four_layers_with_decay_one_tenth_go_down_by_powers_of_ten() -> None:
    rates = [group["lr"] for group in layerwise_param_groups(stack(4), stack_map(4), lr=0.001, layer_decay=0.1)]
    assert rates == pytest.approx([0.001, 0.001, 0.0001, 0.00001, 0.000001], rel=1e-12)


def stack(blocks: int) -> nn.Sequential:
    """Blocks without biases, and a head."""
    return nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(blocks + 1)))


def stack_map(blocks: int) -> LayerMap:
    return LayerMap({f"{i}.weight": i + 1 for i in range(blocks + 1)}, num_layers=blocks)


def test_the_groups_go_from_the_head_down_and_each_carries_its_labels() -> None:
    model = build("bert")
    groups = layerwise_param_groups(model, lr=0.01, layer_decay=0.5, weight_decay=0.1)
    assert [(g["name"], g["layer_id"], g["lr"], g["initial_lr"], g["lr_scale"], g["weight_decay"]) for g in groups] == [
        ("head", 3, 0.01, 0.01, 1.0, 0.1),
        ("head, no_weight_decay", 3, 0.01, 0.01, 1.0, 0.0),
        ("block 2", 2, 0.01, 0.01, 1.0, 0.1),
        ("block 2, no_weight_decay", 2, 0.01, 0.01, 1.0, 0.0),
        ("block 1", 1, 0.005, 0.005, 0.5, 0.1),
        ("block 1, no_weight_decay", 1, 0.005, 0.005, 0.5, 0.0),
        ("embeddings", 0, 0.0025, 0.0025, 0.25, 0.1),
        ("embeddings, no_weight_decay", 0, 0.0025, 0.0025, 0.25, 0.0),
    ]
    assert groups[0]["param_names"] == ["bert.pooler.dense.weight", "classifier.weight"]
    for group in groups:
        named = [model.get_parameter(name) for name in group["param_names"]]
        assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in named]


@pytest.mark.parametrize("convention", GOLDEN)
def test_the_heads_own_rate_replaces_that_of_the_head_alone(convention: Convention) -> None:
    settings: dict[str, Any] = {"lr": 2e-5, "layer_decay": 0.9, "convention": convention}
    without = {g["name"]: g["lr"] for g in layerwise_param_groups(build("bert"), **settings)}
    groups = layerwise_param_groups(build("bert"), **settings, head_lr=1e-3)
    assert {g["name"]: g["lr"] for g in groups} == {**without, "head": 1e-3, "head, no_weight_decay": 1e-3}
    assert [g["lr_scale"] for g in groups if g["layer_id"] == 3] == pytest.approx([50.0, 50.0], rel=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_and_biases_are_not_decayed_and_everything_else_is(family: str) -> None:
    model = build(family)
    groups = layerwise_param_groups(model, weight_decay=0.1)
    undecayed = {name for group in groups if group["weight_decay"] == 0.0 for name in group["param_names"]}
    # relative_attention_bias.weight (MPNet) is a table of embeddings; r_w_bias (XLNet) a bias of two dimensions.
    norm_or_bias = re.compile(r"norm\.weight$|bias$", re.IGNORECASE)
    assert undecayed == {name for name, _ in model.named_parameters() if norm_or_bias.search(name)}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}


class ScaleNorm(nn.Module):
    """A norm of another library, known by its class name; its gain has two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(2, 4))


class LayerNormFp32(nn.LayerNorm):
    """Known by what it inherits from, not by its name."""


class RmsWithFloats(nn.RMSNorm):
    """Known by what it inherits from, not by its name."""


@pytest.mark.parametrize(
    "module",
    [LayerNormFp32((2, 4)), RmsWithFloats((2, 4)), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), ScaleNorm()],
    ids=lambda module: type(module).__name__,
)
def test_no_parameter_of_a_norm_is_decayed(module: nn.Module) -> None:
    model = nn.ModuleDict({"inner": module})
    groups = layerwise_param_groups(model, LayerMap({n: 0 for n, _ in model.named_parameters()}, 1), weight_decay=0.1)
    assert [group["weight_decay"] for group in groups] == [0.0]


def test_a_vector_that_is_neither_norm_nor_bias_is_not_decayed() -> None:
    model = nn.ParameterDict({"gamma": nn.Parameter(torch.ones(4)), "table": nn.Parameter(torch.ones(2, 4))})
    groups = layerwise_param_groups(model, LayerMap({"gamma": 0, "table": 0}, 1), weight_decay=0.1)
    assert [(g["param_names"], g["weight_decay"]) for g in groups] == [(["table"], 0.1), (["gamma"], 0.0)]


@pytest.mark.parametrize("head", ["sequence", "masked"])
def test_frozen_parameters_stay_in_the_groups_and_nothing_is_changed(head: str) -> None:
    model = build("bert", head)
    model.bert.embeddings.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    groups = layerwise_param_groups(model)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(module.training for module in model.modules())


def drop(groups: list[dict[str, Any]], other: nn.Module) -> None:
    groups[0]["params"].pop(0)


def double(groups: list[dict[str, Any]], other: nn.Module) -> None:
    groups[-1]["params"].append(groups[0]["params"][0])


def add_foreign(groups: list[dict[str, Any]], other: nn.Module) -> None:
    groups[0]["params"].append(other.get_parameter("weight"))
    groups[0]["param_names"].append("teacher.weight")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop, r"in no group: \['bert.pooler.dense.weight'\]; in several: none;"),
        (double, r"in no group: none; in several: \['bert.pooler.dense.weight'\];"),
        (add_foreign, r"in no group: none; in several: none; not of this model: .*teacher\.weight"),
    ],
)
def test_groups_that_are_no_partition_are_refused_with_the_names(
    change: Callable[[list[dict[str, Any]], nn.Module], None], told: str
) -> None:
    model = build("bert")
    groups = layerwise_param_groups(model)
    check_partition(model, groups)
    change(groups, nn.Linear(2, 2))
    with pytest.raises(LayerMapError, match=told):
        check_partition(model, groups)


def test_a_map_that_lacks_a_parameter_is_refused_with_its_name() -> None:
    with pytest.raises(LayerMapError, match=r"^1\.weight is not a parameter of this layer map"):
        layerwise_param_groups(stack(1), LayerMap({"0.weight": 1}, 1))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        *[({"lr": lr}, "lr must be ") for lr in (0.0, -1e-3, float("nan"), float("inf"))],
        *[({"head_lr": lr}, "head_lr must be ") for lr in (0.0, -1e-3, float("nan"), float("inf"))],
        *[({"weight_decay": decay}, "weight_decay must be ") for decay in (-0.1, float("nan"), float("inf"))],
        *[({"layer_decay": decay}, "layer_decay must be in ") for decay in (0.0, -0.5, 1.5, float("nan"))],
        *[({name: "1e-3"}, f"{name} must be a number, got '1e-3'$") for name in ("lr", "head_lr", "weight_decay")],
        ({"convention": "bert"}, "convention must be one of top, beit, electra, ulmfit, got 'bert'$"),
    ],
)
def test_a_bad_value_is_refused_with_its_name(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(TrainingError, match=f"^{told}") as error:
        layerwise_param_groups(build("bert"), **settings)
    assert str(next(iter(settings.values()))) in str(error.value)


OPTIMIZERS: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.AdamW, {"fused": True}),
    (torch.optim.SGD, {"fused": True, "momentum": 0.9}),
    (torch.optim.Adafactor, {}),
]


def groups_by_hand(model: nn.Module) -> list[dict[str, Any]]:
    """Two blocks at lr 0.01 with decay 0.5: one group a parameter."""
    rates = {"bert.embeddings": 0.0025, "bert.encoder.layer.0": 0.005}
    return [
        {
            "params": [parameter],
            "lr": next((lr for start, lr in rates.items() if name.startswith(start)), 0.01),
            "weight_decay": 0.0 if name.endswith(("bias", "LayerNorm.weight")) else 0.1,
        }
        for name, parameter in model.named_parameters()
    ]


@pytest.mark.parametrize(("optimizer_class", "kwargs"), OPTIMIZERS)
def test_steps_of_a_built_optimizer_equal_those_of_one_written_by_hand(
    optimizer_class: type[torch.optim.Optimizer], kwargs: dict[str, Any]
) -> None:
    ours, theirs = build("bert").eval(), build("bert").eval()
    given = {key: value for key, value in kwargs.items() if key != "fused"}
    built = build_optimizer(ours, lr=0.01, layer_decay=0.5, weight_decay=0.1, optimizer_class=optimizer_class, **given)
    written = optimizer_class(groups_by_hand(theirs), **kwargs)
    assert type(built) is optimizer_class
    assert built.defaults.get("fused") is kwargs.get("fused")
    for _ in range(2):
        for model, optimizer in ((ours, built), (theirs, written)):
            optimizer.zero_grad()
            model(**batch(), labels=torch.tensor([0, 1, 0])).loss.backward()
            optimizer.step()
    start = build("bert").state_dict()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name
        assert not torch.equal(value, start[name]), name


def test_a_model_with_a_parameter_that_is_no_float_is_not_fused() -> None:
    model = nn.ParameterDict(
        {"scale": nn.Parameter(torch.ones(2, 2)), "code": nn.Parameter(torch.ones(2, 2, dtype=torch.int8), False)}
    )
    optimizer = build_optimizer(model, layer_map=LayerMap({"scale": 0, "code": 0}, 1))
    assert optimizer.defaults["fused"] is False


def test_the_ratios_between_the_layers_are_kept_at_every_step() -> None:
    ours, theirs = (build_optimizer(build("bert"), lr=0.01, layer_decay=0.5, head_lr=0.08) for _ in range(2))
    factor = build_lr_schedule("linear", total_steps=20, warmup_steps=5)
    lambda_lr = torch.optim.lr_scheduler.LambdaLR(theirs, factor)
    for step in range(20):
        set_learning_rates(ours, factor(step))
        rates = [group["lr"] for group in ours.param_groups]
        base = 0.01 * factor(step)
        assert rates == pytest.approx([8 * base, 8 * base, base, base, base / 2, base / 2, base / 4, base / 4])
        assert rates == lambda_lr.get_last_lr() == [group["lr"] for group in theirs.param_groups]
        theirs.step()
        lambda_lr.step()


@pytest.mark.parametrize(
    ("num_layers", "groups_below_the_top"),
    [(12, [3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0]), (6, [3, 2, 2, 1, 1, 0, 0]), (4, [3, 2, 1, 0, 0]), (2, [2, 1, 0])],
)
def test_ulmfit_decays_from_a_third_of_the_blocks_to_the_next(num_layers: int, groups_below_the_top: list[int]) -> None:
    expected = [(1 / 2.6) ** groups for groups in groups_below_the_top] + [1.0]
    assert lr_scales(num_layers, 1 / 2.6, "ulmfit") == expected


def test_a_new_head_has_100_times_the_base_rate_and_10_times_if_it_is_deep_or_for_tags_and_not_alone() -> None:
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=50)
    tags = BertForTokenClassification(config)
    with_pooler = BertForSequenceClassification(config)
    spans = BertForQuestionAnswering(config)
    ratios = [head_lr_ratio(model, LayerMap.from_model(model)) for model in (spans, with_pooler, tags)]
    assert ratios == [100, 10, 10]
    assert head_lr_ratio(tags, LayerMap.from_model(tags), trains_alone=True) == 100
