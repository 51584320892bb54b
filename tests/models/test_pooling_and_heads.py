"""Pooling and heads against values computed by hand."""

import math

import pytest
import torch

from nlp_ft.models.heads import ClassificationHead
from nlp_ft.models.pooling import pool

HIDDEN = torch.tensor([[[1.0, -1.0], [3.0, -5.0], [9.0, 9.0]], [[2.0, 4.0], [6.0, 0.0], [1.0, 2.0]]])
RIGHT_PADDED = torch.tensor([[1, 1, 0], [1, 1, 1]])
LEFT_PADDED = torch.tensor([[0, 1, 1], [1, 1, 1]])


@pytest.mark.parametrize(
    ("pooling", "mask", "position", "expected"),
    [
        ("mean", RIGHT_PADDED, "first", [[2.0, -3.0], [3.0, 2.0]]),
        ("max", RIGHT_PADDED, "first", [[3.0, -1.0], [6.0, 4.0]]),
        ("cls", RIGHT_PADDED, "first", [[1.0, -1.0], [2.0, 4.0]]),
        ("cls", RIGHT_PADDED, "last", [[3.0, -5.0], [1.0, 2.0]]),
        ("mean", LEFT_PADDED, "first", [[6.0, 2.0], [3.0, 2.0]]),
        ("cls", LEFT_PADDED, "first", [[3.0, -5.0], [2.0, 4.0]]),
        ("cls", LEFT_PADDED, "last", [[9.0, 9.0], [1.0, 2.0]]),
    ],
)
def test_pooling_reads_the_tokens_and_never_the_padding(
    pooling: str, mask: torch.Tensor, position: str, expected: list[list[float]]
) -> None:
    pooled = pool(HIDDEN, mask, pooling, position)  # type: ignore[arg-type]
    assert pooled.tolist() == expected


def test_a_linear_head_gives_the_textbook_softmax_and_cross_entropy() -> None:
    head = ClassificationHead(4, 2, dropout=0.0).double()
    with torch.no_grad():
        head.out_proj.weight.copy_(torch.tensor([[0.4, 0.1, -0.3, 0.2], [-0.2, 0.3, 0.5, -0.1]]))
        head.out_proj.bias.copy_(torch.tensor([0.1, -0.1]))
    logits = head(torch.tensor([[0.3, -0.1, 0.5, 0.2]], dtype=torch.float64))
    # 0.12 - 0.01 - 0.15 + 0.04 + 0.1 and -0.06 - 0.03 + 0.25 - 0.02 - 0.1
    assert logits[0].tolist() == pytest.approx([0.1, 0.04], abs=1e-8)
    probability = 1 / (1 + math.exp(-0.06))
    assert logits.softmax(-1)[0, 0].item() == pytest.approx(probability, abs=1e-8)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0]))
    assert loss.item() == pytest.approx(-math.log(probability), abs=1e-8)


def test_a_bottleneck_of_512_128_2_has_65922_parameters() -> None:
    head = ClassificationHead(512, 2, "bottleneck", bottleneck_size=128)
    assert sum(parameter.numel() for parameter in head.parameters()) == 65_922


def test_a_bottleneck_is_layer_activation_dropout_layer() -> None:
    torch.manual_seed(0)
    head = ClassificationHead(4, 2, "bottleneck", bottleneck_size=3, activation="relu", dropout=0.5)
    pooled = torch.randn(5, 4)
    assert head.bottleneck is not None
    torch.manual_seed(7)
    expected = head.out_proj(torch.dropout(torch.relu(head.bottleneck(pooled)), 0.5, True))
    torch.manual_seed(7)
    assert torch.equal(head(pooled), expected)
