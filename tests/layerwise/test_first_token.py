"""The end of the last block for the first token alone: the same logits and gradients, where no other is read."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from nlp_ft.layerwise import LayerMap
from nlp_ft.layerwise.first_token import Place, first_token_only, first_token_places
from nlp_ft.models.configs import PooledClassifierConfig
from nlp_ft.models.pooled_classifier import PooledClassifier
from tests.layerwise import text_census
from tests.layerwise.test_prefix import build, padded_batch
from tests.tiny import tiny_config

OUTPUT = ["attention.output"]
PLACES = {
    "bert": OUTPUT,
    "roberta": OUTPUT,
    "electra": OUTPUT,
    "deberta-v2": OUTPUT,
    "distilbert": ["attention.out_lin", "sa_layer_norm"],
    "mpnet": ["attention.attn.o", "attention.LayerNorm"],
    "modernbert": ["attn.Wo", "mlp_norm", "final_norm"],
}
"""Family -> the modules of its last block, and behind it, that get the first token alone."""
READ_THE_FIRST_TOKEN = [
    *["bert", "big_bird", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra"],
    *[
        "ernie",
        "esm",
        "esmc",
        "flaubert",
        "fnet",
        "gte",
        "jina_embeddings_v3",
        "layoutlm",
        "layoutlmv3",
        "lilt",
        "luke",
    ],
    *["markuplm", "megatron-bert", "mobilebert", "modernbert", "mpnet", "mra", "nomic_bert", "nystromformer"],
    *["rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "tapas", "ultrabert", "xlm", "xlm-roberta"],
    *["xlm-roberta-xl", "xmod", "yoso"],
]


def places_of(model: PreTrainedModel, example: dict[str, torch.Tensor] | None = None) -> tuple[Place, ...]:
    return first_token_places(model, LayerMap.from_model(model), example or padded_batch())


def names_of(model: nn.Module, places: tuple[Place, ...]) -> list[str]:
    """Without what comes before the block's own part of the name."""
    names = {module: name for name, module in model.named_modules()}
    return [names[place.module].rpartition(".1.")[2].removeprefix("model.") for place in places]


def results(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Logits, and the gradient of each parameter."""
    model.zero_grad()
    logits = model(**batch).logits
    (logits * torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **gradients}


def assert_same_results(model: nn.Module, places: tuple[Place, ...], batch: dict[str, torch.Tensor]) -> None:
    """In double precision, with weights that make attention differ from token to token."""
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    whole = results(model, batch)
    with first_token_only(places):
        cut = results(model, batch)
    assert whole.keys() == cut.keys()
    for name, expected in whole.items():
        torch.testing.assert_close(cut[name], expected, rtol=1e-9, atol=1e-12, msg=name)


def other_batch() -> dict[str, torch.Tensor]:
    batch = {key: torch.cat([value, value], dim=1) for key, value in padded_batch(5).items()}
    order = batch["attention_mask"].argsort(dim=1, descending=True, stable=True)
    return {key: value.gather(1, order) for key, value in batch.items()}


@pytest.mark.parametrize("model_type", PLACES)
def test_the_place_behind_the_attention_is_found_and_gives_the_same_logits_and_gradients(model_type: str) -> None:
    model = build(model_type)
    places = places_of(model)
    assert names_of(model, places) == PLACES[model_type]
    assert_same_results(model, places, other_batch())


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [name for name in text_census.MODEL_TYPES if name != "layoutlmv2"])
def test_of_all_types_those_that_read_the_first_token_compute_it_alone_with_the_same_results(model_type: str) -> None:
    model = text_census.build(model_type).eval()
    example = text_census.batch(model)
    places = places_of(model, {key: value for key, value in example.items() if value.ndim == 2})
    assert bool(places) == (model_type in READ_THE_FIRST_TOKEN)
    if places and model_type != "mra":  # it makes float32 in between
        ids = torch.randint(5, 90, example["input_ids"].shape, generator=torch.Generator().manual_seed(1))
        example["attention_mask"][0, 7:] = 0
        assert_same_results(model, places, {**example, "input_ids": ids})


def test_the_feed_forward_part_of_the_last_block_sees_one_token_and_that_of_the_others_all() -> None:
    model, batch = build("bert"), padded_batch()
    seen: list[tuple[int, ...]] = []
    for layer in model.bert.encoder.layer:  # type: ignore[union-attr]
        layer.intermediate.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    places = places_of(model)
    seen.clear()
    with first_token_only(places):
        model(**batch)
    model(**batch)
    assert seen == [(3, 9, 16), (3, 1, 16), (3, 9, 16), (3, 9, 16)]


@pytest.mark.parametrize(
    ("pooling", "cls_position", "found"),
    [("cls", "first", True), ("cls", "last", False), ("mean", "first", False), ("max", "first", False)],
)
def test_only_pooling_of_the_first_token_is_cut(pooling: Any, cls_position: Any, found: bool) -> None:
    torch.manual_seed(0)
    config = PooledClassifierConfig(tiny_config(), pooling, cls_position, num_labels=3)
    assert bool(places_of(PooledClassifier(config).eval())) == found


@pytest.mark.parametrize("model_type", ["albert", "xlnet"])
def test_a_shared_block_and_a_head_that_reads_the_last_token_stay_whole(model_type: str) -> None:
    assert places_of(build(model_type)) == ()


def test_padding_on_the_left_leaves_the_block_whole() -> None:
    torch.manual_seed(0)
    model = PooledClassifier(PooledClassifierConfig(tiny_config(), "cls", num_labels=3)).eval()
    assert places_of(model, {key: value.flip(1) for key, value in padded_batch().items()}) == ()


def test_a_block_that_keeps_statistics_of_its_batches_stays_whole() -> None:
    model = build("bert")
    model.bert.encoder.layer[1].output.LayerNorm = nn.Sequential(  # type: ignore[union-attr, index]
        nn.Flatten(0, 1), nn.BatchNorm1d(16), nn.Unflatten(0, (3, -1))
    )
    assert places_of(model) == ()


def test_a_head_of_zeros_proves_nothing() -> None:
    model = build("bert")
    nn.init.zeros_(model.classifier.weight)  # type: ignore[arg-type, union-attr]
    assert places_of(model) == ()


def test_trials_leave_modes_flags_and_hooks_as_they_were() -> None:
    model = build("bert").train()
    model.bert.embeddings.requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    with first_token_only(places_of(model)):
        pass
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before
    assert all(module.training and not module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


class AttentionLengths(TorchFunctionMode):
    """Notes how many keys and values each attention gets."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, int]] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.seen.add((args[1].shape[-2], args[2].shape[-2]))
        return func(*args, **(kwargs or {}))


def test_no_trial_hands_torch_fewer_keys_than_values_for_which_it_would_write_past_their_end() -> None:
    model = build("modernbert")
    layer_map = LayerMap.from_model(model)
    with AttentionLengths() as lengths:
        assert first_token_places(model, layer_map, padded_batch())
    assert lengths.seen == {(9, 9)}
