"""Planted faults of frozen modules and checkpointing: each is found by its own finding."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.optim import SGD, AdamW
from torchvision.models import convnext_tiny, resnet18
from transformers import ViTConfig, ViTForImageClassification

from nlp_ft.layerwise import LayerMap, audit, build_optimizer, set_trainable
from tests.layerwise import text_census
from tests.layerwise.auditing import bert, found, freeze_embeddings, loss, the_only
from tests.layerwise.families import build


def vit() -> Any:
    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16)
    return ViTForImageClassification(config).train()


def test_batch_norm_that_stays_live_in_frozen_stages() -> None:
    model = resnet18(num_classes=2).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(("layer4.", "fc."))
    optimizer = SGD(model.parameters(), lr=0.1)
    live = the_only(audit(model, optimizer), "live_batch_norm")
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(torch.randn(2, 3, 32, 32))
    moved = {name for name, value in model.named_buffers() if not torch.equal(before[name], value)}
    assert set(live) == {name for name in moved if name.endswith("mean") and not name.startswith("layer4.")}
    assert len(live) == 15


def test_dropout_that_stays_live_in_a_frozen_encoder() -> None:
    model = build("bert")
    model.bert.requires_grad_(False)
    live = the_only(audit(model, build_optimizer(model)), "live_dropout", "warning")
    assert "bert.embeddings.dropout" in live
    # The dropout before the classifier is part of what trains.
    assert "dropout" not in live


def test_in_eval_mode_the_report_says_that_it_cannot_tell_what_will_be_live() -> None:
    model = build("bert").eval()
    model.bert.requires_grad_(False)
    report = audit(model, build_optimizer(model))
    assert found(report) == []
    assert report.not_checked == ("live_dropout: the model is in eval mode; call audit after model.train()",)


def enable_checkpointing(model: Any, reentrant: bool, every: int = 1) -> None:
    """By the name that this Transformers has for it."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable({"use_reentrant": reentrant}, every_n_layers=every)
    else:
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})


def gradients(model: nn.Module) -> set[str]:
    model(pixel_values=torch.randn(2, 3, 16, 16)).logits.sum().backward()
    return {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}


# Transformers makes the embeddings of input_ids pass gradients on, but not those of pixels.
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize(("every", "lost"), [(1, ("layers.0.", "layers.1.")), (2, ("layers.0.",))])
def test_blocks_under_reentrant_checkpointing_over_frozen_embeddings(every: int, lost: tuple[str, ...]) -> None:
    model = vit()
    if not hasattr(model, "activation_checkpointing_enable"):
        pytest.skip("this Transformers checkpoints in another way")
    model.vit.embeddings.requires_grad_(False)
    enable_checkpointing(model, True, every)
    optimizer = AdamW(model.parameters(), weight_decay=0.0)
    without = the_only(audit(model, optimizer), "reentrant_checkpointing")
    assert all(any(part in name for part in lost) for name in without)
    assert set(without) == gradients(model)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_that_passes_gradients_on_is_sound(reentrant: bool) -> None:
    model = vit()
    enable_checkpointing(model, reentrant)
    # Reentrant with trainable embeddings, and not reentrant over frozen ones.
    model.vit.embeddings.requires_grad_(reentrant)
    assert found(audit(model, AdamW(model.parameters(), weight_decay=0.0))) == []
    assert gradients(model) == set()


def test_reentrant_checkpointing_of_text_where_transformers_mends_the_embeddings_is_sound() -> None:
    model = bert()
    freeze_embeddings(model)
    enable_checkpointing(model, True)
    assert found(audit(model, build_optimizer(model))) == []
    loss(model).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_drops_of_whole_paths_stay_live_too() -> None:
    model = convnext_tiny(num_classes=2, stochastic_depth_prob=0.1).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(("features.7.", "classifier."))
    live = the_only(audit(model, SGD(model.parameters(), lr=0.1)), "live_dropout", "warning")
    # The first block of all has the probability 0.
    assert len(live) == 3 + 3 + 9 - 1
    assert all(name.endswith("stochastic_depth") for name in live)


def optimizer_of(model: nn.Module) -> SGD:
    return SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)


@pytest.mark.parametrize(
    ("model_type", "frozen", "live"),
    [
        ("bart", ("shared", "embed", "encoder.layers.0."), "model.encoder"),
        ("t5", ("shared", "encoder.block.0.", "relative_attention_bias"), "transformer.decoder.dropout"),
        ("xlm", ("embeddings", "attentions.0.", "layer_norm_emb"), "transformer"),
    ],
)
def test_a_container_that_draws_between_frozen_layers_is_live(
    model_type: str, frozen: tuple[str, ...], live: str
) -> None:
    model = text_census.build(model_type, drop_rate=0.1).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not any(part in name for part in frozen)
    assert live in the_only(audit(model, optimizer_of(model)), "live_dropout", "warning")
    set_trainable(model, LayerMap.from_model(model), 2)
    assert found(audit(model.train(), optimizer_of(model))) == []


def test_dropout_of_base_modules_under_lora_is_live_where_nothing_trains_alone() -> None:
    config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], layers_to_transform=[1])
    model = get_peft_model(build("bert"), config).train()
    live = the_only(audit(model, optimizer_of(model)), "live_dropout", "warning")
    start = "base_model.model.bert."
    blocks = [f"{start}encoder.layer.0.{part}.dropout" for part in ("attention.self", "attention.output", "output")]
    assert live == (f"{start}embeddings.dropout", *blocks)


class Silent(nn.Sequential):
    """Raises where it is asked for its config."""

    @property
    def config(self) -> object:
        raise ValueError("not today")


def test_a_model_that_cannot_be_asked_ends_in_a_report_and_not_in_a_traceback() -> None:
    model = Silent(*(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2)))
    report = audit(model.train(), SGD(model.parameters(), lr=0.1))
    assert "live_dropout: this model cannot be asked, ValueError: not today" in report.not_checked
