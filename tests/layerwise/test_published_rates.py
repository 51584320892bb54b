"""Learning rates of whole models against timm, run on the same model, and against the published numbers."""

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from nlp_ft.layerwise import LayerMap, layerwise_param_groups, lr_scales
from nlp_ft.layerwise.param_groups import Convention
from tests.layerwise import text_census

LR, DECAY, WEIGHT_DECAY = 1e-3, 0.75, 0.05
TIMM = ["vit_tiny_patch16_224", "convnext_atto", "resnet50"]
MORE_TIMM = [
    "beit_base_patch16_224",
    "convnext_tiny",
    "deit_tiny_distilled_patch16_224",
    "efficientnet_b0",
    "eva02_tiny_patch14_224",
    "mixer_s32_224",
    "regnety_004",
    "resnet18",
    "resnet26d",
    "swin_tiny_patch4_window7_224",
    "vgg16",
    "vit_base_patch16_clip_224",
]

Rates = dict[str, tuple[float, float]]
"""Name of a parameter -> (learning rate, weight decay)."""


def timm_rates(model: nn.Module, no_weight_decay: frozenset[str] = frozenset()) -> Rates:
    from timm.optim import param_groups_layer_decay

    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = param_groups_layer_decay(
        model, weight_decay=WEIGHT_DECAY, layer_decay=DECAY, no_weight_decay_list=no_weight_decay
    )
    return {names[id(p)]: (LR * group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}


def our_rates(
    model: nn.Module,
    convention: Convention = "beit",
    layer_decay: float = DECAY,
    lr: float = LR,
    layer_map: LayerMap | None = None,
) -> Rates:
    groups = layerwise_param_groups(
        model, layer_map, lr=lr, layer_decay=layer_decay, weight_decay=WEIGHT_DECAY, convention=convention
    )
    return {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["param_names"]}


def timm_model(name: str) -> Any:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    return timm.create_model(name, pretrained=False)


@pytest.mark.parametrize("name", [*TIMM, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_TIMM)])
def test_every_rate_and_weight_decay_equals_timms_to_the_last_bit(name: str) -> None:
    model = timm_model(name)
    assert our_rates(model) == timm_rates(model)


def test_timms_own_list_for_vit_spares_the_class_token_and_the_positions_which_we_decay() -> None:
    model = timm_model("vit_tiny_patch16_224")
    theirs = timm_rates(model, frozenset(model.no_weight_decay()))
    ours = our_rates(model)
    assert {name for name in ours if ours[name] != theirs[name]} == {"cls_token", "pos_embed"}
    assert ours["pos_embed"] == (theirs["pos_embed"][0], WEIGHT_DECAY)


def rates_at(rates: Rates, places: list[str]) -> list[float]:
    """The one rate of all parameters whose names begin with each place."""
    found = [{rate for name, (rate, _) in rates.items() if name.startswith(place)} for place in places]
    assert [len(each) for each in found] == [1] * len(places)
    return [each.pop() for each in found]


def test_a_vit_of_three_blocks_has_the_rates_that_timm_publishes_and_its_norm_those_of_the_last_block() -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    vit = timm.models.VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=3, num_heads=2, num_classes=2)
    places = ["patch_embed", "pos_embed", "blocks.0.", "blocks.1.", "blocks.2.", "norm.", "head."]
    published = [0.31640625, 0.31640625, 0.421875, 0.5625, 0.75, 0.75, 1.0]
    layer_map = LayerMap.from_model(vit, example=torch.zeros(1, 3, 16, 16))
    assert rates_at(our_rates(vit, lr=1.0, layer_map=layer_map), places) == published


def test_a_resnet_50_has_the_stem_seventeen_steps_below_the_head_and_its_last_block_one() -> None:
    with torch.device("meta"):
        model = torchvision.models.resnet50()
    rates = our_rates(model, lr=1.0)
    places = ["conv1.", "bn1.", "layer1.0.", "layer2.0.downsample", "layer4.1.", "layer4.2.", "fc."]
    assert rates_at(rates, places) == [DECAY**17, DECAY**17, DECAY**16, DECAY**13, DECAY**2, DECAY, 1.0]
    assert LayerMap.from_model(model).num_layers == 16


# Twelve blocks, decay 0.9: embeddings, blocks 0, 6 and 11, head.
GOLDEN: dict[Convention, list[float]] = {
    "top": [0.28242954, 0.31381060, 0.59049, 1.0, 1.0],
    "beit": [0.25418658, 0.28242954, 0.531441, 0.9, 1.0],
    "electra": [0.22876792, 0.25418658, 0.4782969, 0.81, 1.0],
}


@pytest.mark.parametrize("convention", GOLDEN)
def test_an_electra_of_twelve_blocks_has_the_published_rates_of_each_convention(convention: Convention) -> None:
    model = text_census.build("electra", num_hidden_layers=12)
    rates = our_rates(model, convention, layer_decay=0.9, lr=1.0)
    blocks = [f"electra.encoder.layer.{block}." for block in (0, 6, 11)]
    assert rates_at(rates, ["electra.embeddings", *blocks, "classifier."]) == pytest.approx(
        GOLDEN[convention], abs=5e-9
    )


def test_ulmfits_groups_differ_by_a_factor_of_two_point_six() -> None:
    # Howard and Ruder 2018, https://arxiv.org/abs/1801.06146: 0.01 for the last of four groups.
    rates = [0.01 * scale for scale in lr_scales(3, 1 / 2.6, "top")[:4]]
    assert rates == pytest.approx([0.000568957, 0.00147929, 0.00384615, 0.01], rel=1e-5)
