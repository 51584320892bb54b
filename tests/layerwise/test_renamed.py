"""Layer maps come from structure: a model whose attribute names say nothing is mapped as before."""

from typing import Any

import pytest
import torch

from nlp_ft.layerwise import LayerMap
from tests.layerwise import text_census, vision_census
from tests.layerwise.renamed import rename

TEXT = ["albert", "bart", "bert", "deberta-v2", "t5", "xlm"]
VISION = ["convnext_tiny", "regnet_y_400mf", "resnet18", "squeezenet1_0", "vit_b_16"]


def build(name: str) -> Any:
    return (text_census if name in TEXT else vision_census).build(name).eval()


def output(name: str, model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**text_census.batch(model)).logits if name in TEXT else model(vision_census.image(name))


@pytest.mark.parametrize("name", [*TEXT, *VISION])
def test_a_model_with_random_names_is_mapped_as_before_parameter_by_parameter(name: str) -> None:
    model = build(name)
    names = [parameter for parameter, _ in model.named_parameters(remove_duplicate=False)]
    before = LayerMap.from_model(model)
    logits = output(name, model)
    rename(model)
    after = LayerMap.from_model(model)
    new_names = [parameter for parameter, _ in model.named_parameters(remove_duplicate=False)]
    assert not {part for n in names for part in n.split(".")} & {part for n in new_names for part in n.split(".")}
    assert [after.layer_id(n) for n in new_names] == [before.layer_id(n) for n in names]
    assert after.num_layers == before.num_layers
    torch.testing.assert_close(output(name, model), logits, rtol=0, atol=0)
