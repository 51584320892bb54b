"""Layer maps of torchvision's classifiers at both grains, held against published block counts and execution order."""

import pytest

from nlp_ft.layerwise import LayerMap
from tests.layerwise.vision_census import MODELS, STAGES, build, differences

FAST = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "regnet_y_400mf",
    "resnet50",
    "squeezenet1_0",
    "swin_t",
    "vgg11_bn",
    "vit_b_16",
]


@pytest.mark.parametrize("name", FAST)
def test_blocks_and_stages_are_those_of_the_paper_in_the_order_in_which_they_run(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_blocks_and_stages_of_every_network_are_those_of_its_paper(name: str) -> None:
    check(name)


def check(name: str) -> None:
    model = build(name)
    maps = {"block": LayerMap.from_model(model), "stage": LayerMap.from_model(model, grain="stage")}
    assert differences(model, maps, name) == []


def test_the_tables_cover_every_classification_model() -> None:
    assert sorted(STAGES) == sorted(MODELS)
