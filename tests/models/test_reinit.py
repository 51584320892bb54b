"""Top blocks that begin anew: those and all above them, and nothing below."""

import copy

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from nlp_ft.layerwise import LayerMap
from nlp_ft.models.reinit import reinit_top
from tests.tiny import tiny_config


def test_the_top_block_the_pooler_and_the_head_become_those_of_the_fresh_model() -> None:
    model, fresh = (AutoModelForSequenceClassification.from_config(tiny_config()) for _ in range(2))
    before = copy.deepcopy(model)
    reinit_top(model, fresh, LayerMap.from_model(model), 1)
    is_new = {
        name: torch.equal(parameter, fresh.get_parameter(name))
        and not torch.equal(parameter, before.get_parameter(name))
        for name, parameter in model.named_parameters()
        if name.endswith("weight") and "LayerNorm" not in name
    }
    is_old = {name for name in is_new if torch.equal(model.get_parameter(name), before.get_parameter(name))}
    top = {name for name in is_new if ".layer.1." in name or "pooler" in name or name.startswith("classifier")}
    assert {name for name, new in is_new.items() if new} == top
    assert is_old == is_new.keys() - top


def test_batch_norm_statistics_of_the_top_stage_begin_anew_and_those_below_stay() -> None:
    torchvision = pytest.importorskip("torchvision")
    model, fresh = (torchvision.models.resnet18(weights=None) for _ in range(2))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.get_buffer("running_mean").fill_(7.0)
            module.get_buffer("num_batches_tracked").fill_(9)
    reinit_top(model, fresh, LayerMap.from_model(model, grain="stage"), 1)
    kept = {name.split(".")[0] for name, buffer in model.named_buffers() if "mean" in name and buffer[0] == 7}
    assert kept == {"bn1", "layer1", "layer2", "layer3"}
    assert model.layer4[0].bn1.num_batches_tracked == 0
