"""Layer maps of torchvision's classifiers at both grains, held against published block counts and execution order.

Of timm, one model of each of its modules, held against what timm itself calls the classifier.
"""

import pytest
import torch

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


@pytest.mark.slow
def test_a_model_of_every_module_of_timm_has_its_classifier_in_the_head() -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    wrong = []
    for module in timm.list_modules():
        name = min(timm.list_models(module=module), key=lambda name: (len(name), name))
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False)
        layer_map, classifiers = LayerMap.from_model(model), model.get_classifier()
        last = {
            id(list(classifier.parameters())[-1])
            for classifier in (classifiers if isinstance(classifiers, tuple) else (classifiers,))
            if next(classifier.parameters(), None) is not None  # an encoder has none
        }
        in_head = {id(parameter) for parameter in layer_map.parameters(layer_map.head_layer).values()}
        wrong += [name] if last - in_head or layer_map.num_layers < 2 else []
    assert wrong == []


def test_the_tables_cover_every_classification_model() -> None:
    assert sorted(STAGES) == sorted(MODELS)
