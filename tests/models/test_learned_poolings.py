"""Poolings with weights of their own or over several layers: their values, families, layers, and saved folders."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from nlp_ft.errors import ModelError
from nlp_ft.layerwise import LayerMap, build_optimizer
from nlp_ft.layerwise.audit.report import audit
from nlp_ft.layerwise.freezing import set_trainable_layers
from nlp_ft.layerwise.prefix import FrozenPrefix
from nlp_ft.models.configs import PooledClassifierConfig
from nlp_ft.models.pooled_classifier import PooledClassifier
from nlp_ft.models.pooling import AttentionPooling, LayerMix, pool_layers
from tests.layerwise.families import FAMILIES, VOCAB_SIZE, build
from tests.rounding import assert_equal_but_for_rounding

POOLINGS = ["attention", "layer_mix", "last_4"]
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_head": 2, "n_positions": 40},
    "llama": {"num_key_value_heads": 2, "max_position_embeddings": 40},
}
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


def pooled(family: str, pooling: str, num_layers: int = 4) -> PooledClassifier:
    """A classifier in eval mode, whose pooling has random weights as after training."""
    if family in DECODERS:
        sizes = {"vocab_size": VOCAB_SIZE, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
        config = AutoConfig.for_model(family, **{**sizes, "num_hidden_layers": num_layers, **DECODERS[family]})
    else:
        config = build(family, "bare", num_layers).config
    torch.manual_seed(1)
    # A new encoder: the attention of the outer model would be written into the config of one that is built already.
    model = PooledClassifier(PooledClassifierConfig(config.to_dict(), pooling=pooling, num_labels=3))  # type: ignore[arg-type]
    for parameter in [] if model.pooling is None else model.pooling.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


def padded(side: str) -> dict[str, torch.Tensor]:
    """Texts of 9, 7 and 4 tokens, padded to 9 on one side."""
    rows = torch.randint(3, VOCAB_SIZE, (3, 9), generator=torch.Generator().manual_seed(0))
    ids, mask = torch.zeros_like(rows), torch.zeros_like(rows)
    for row, length in enumerate((9, 7, 4)):
        place = slice(0, length) if side == "right" else slice(9 - length, 9)
        ids[row, place], mask[row, place] = rows[row, :length], 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def test_attention_begins_as_the_mean_and_weighs_tokens_by_the_softmax_of_their_scores() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]], [[2.0, 4.0], [6.0, 0.0], [1.0, 2.0]]])
    pooling = AttentionPooling(2)
    assert_equal_but_for_rounding(pooling(hidden, MASK), [[2.0, 4.0], [3.0, 2.0]])
    with torch.no_grad():
        pooling.project.weight.copy_(torch.eye(2))
        pooling.project.bias.zero_()
        pooling.context.copy_(torch.tensor([1.0, -1.0]))
    scores = torch.tanh(hidden[0, :2, 0]) - torch.tanh(hidden[0, :2, 1])
    share = 1 / (1 + torch.exp(scores[1] - scores[0]))
    assert_equal_but_for_rounding(pooling(hidden, MASK)[0], share * hidden[0, 0] + (1 - share) * hidden[0, 1])


def test_layer_mix_is_gamma_times_the_softmax_weighted_sum_of_the_layers() -> None:
    layers = [
        torch.tensor([[[2.0, 0.0], [4.0, 8.0], [7.0, 7.0]]]),
        torch.tensor([[[1.0, 1.0], [0.0, 3.0], [7.0, 7.0]]]),
    ]
    means = pool_layers(layers, MASK[:1])
    assert means.tolist() == [[3.0, 4.0, 0.5, 2.0]]
    mix = LayerMix(2)
    assert mix(means).tolist() == [[1.75, 3.0]]
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([3.0, 1.0]).log())
        mix.gamma.fill_(2.0)
    assert_equal_but_for_rounding(mix(means), [[2 * (0.75 * 3.0 + 0.25 * 0.5), 2 * (0.75 * 4.0 + 0.25 * 2.0)]])


def test_last_4_puts_the_means_of_the_last_four_blocks_side_by_side() -> None:
    model, batch = pooled("bert", "last_4", 5), padded("right")
    assert model.head.out_proj.in_features == 4 * 16
    with torch.no_grad():
        layers = model.encoder(**batch, output_hidden_states=True).hidden_states
        lengths = batch["attention_mask"].sum(-1, keepdim=True)
        means = [(layer * batch["attention_mask"][..., None]).sum(1) / lengths for layer in layers[2:]]
        assert_equal_but_for_rounding(model(**batch).logits, model.head(torch.cat(means, -1)))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_in_every_family_the_weights_of_a_pooling_belong_to_the_head_and_are_saved(
    tmp_path: Path, family: str, pooling: str
) -> None:
    model, batch = pooled(family, pooling), padded("right")
    layer_map = LayerMap.from_model(model)
    names = [name for name, _ in model.named_parameters() if not name.startswith("encoder.")]
    assert [layer_map.layer_id(name) for name in names] == [layer_map.head_layer] * len(names)
    with torch.no_grad():
        expected = model(**batch).logits
        model.save_pretrained(tmp_path)
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
        assert_equal_but_for_rounding(loaded(**batch).logits, expected)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", [*FAMILIES, *DECODERS])
def test_padding_on_either_side_and_none_at_all_give_the_same_logits(family: str, pooling: str) -> None:
    model = pooled(family, pooling)
    right, left = padded("right"), padded("left")
    with torch.no_grad():
        expected = model(**right).logits
        assert_equal_but_for_rounding(model(**left).logits, expected)
        for row, length in enumerate((9, 7, 4)):
            alone = {key: value[row : row + 1, :length] for key, value in right.items()}
            assert_equal_but_for_rounding(model(**alone).logits[0], expected[row])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_frozen_layers_stay_as_they_are_and_the_weights_of_the_pooling_move(pooling: str) -> None:
    model, batch = pooled("bert", pooling).train(), padded("right")
    layer_map = LayerMap.from_model(model)
    set_trainable_layers(model, layer_map, [4, 5])
    optimizer = build_optimizer(model, lr=0.1, layer_map=layer_map)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    model(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
    optimizer.step()
    moved = {
        layer_map.layer_id(name) for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])
    }
    assert moved == {4, 5}
    own = [name for name, _ in model.named_parameters() if name.startswith("pooling.")]
    assert all(not torch.equal(model.get_parameter(name), before[name]) for name in own)
    assert len(own) == {"attention": 3, "layer_mix": 2, "last_4": 0}[pooling]


@pytest.mark.parametrize(
    ("pooling", "boundaries", "is_pooled"),
    [("attention", (1, 2, 3, 4, 5, 6), False), ("layer_mix", (6,), True), ("last_4", (1, 2, 6), True)],
)
def test_a_model_is_entered_only_where_the_pooling_reads_no_layer_below(
    pooling: str, boundaries: tuple[int, ...], is_pooled: bool
) -> None:
    model, batch = pooled("bert", pooling, 6), padded("right")
    del batch["position_ids"]
    prefix = FrozenPrefix(model, LayerMap.from_model(model), batch)
    assert prefix.boundaries == boundaries
    assert prefix.is_pooled(6) is is_pooled
    hidden = prefix.capture(batch, boundaries)
    with torch.no_grad():
        whole = model(**batch).logits
        for boundary in boundaries:
            with prefix.entered(boundary, hidden[boundary]):
                assert torch.equal(model(**batch).logits, whole)


def test_last_4_of_fewer_blocks_is_refused_with_what_to_use() -> None:
    message = "last_4 reads the last 4 blocks, but this bert encoder has 3; use mean or layer_mix"
    with pytest.raises(ModelError, match=message):
        pooled("bert", "last_4", 3)


def test_hidden_states_are_returned_only_when_they_are_asked_for() -> None:
    model, batch = pooled("bert", "layer_mix"), padded("right")
    assert model(**batch).hidden_states is None
    assert len(model(**batch, output_hidden_states=True).hidden_states) == 5


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_audit_of_a_pooling_finds_nothing_wrong(pooling: str) -> None:
    model = pooled("bert", pooling).train()
    layer_map = LayerMap.from_model(model)
    report = audit(model, build_optimizer(model, layer_map=layer_map))
    assert list(report) == []
