"""Planted faults of what the groups hold: each is found by its own finding."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from transformers import GPT2Config, GPT2LMHeadModel

from nlp_ft.layerwise import LayerMap, audit, build_optimizer, set_trainable
from tests.layerwise.auditing import (
    NO_DROPOUT,
    bert,
    found,
    freeze_embeddings,
    loss,
    moved_by,
    names,
    the_only,
)
from tests.layerwise.families import build


def test_a_model_that_is_frozen_as_a_whole() -> None:
    model = bert().requires_grad_(False)
    assert the_only(audit(model, build_optimizer(model)), "everything_frozen") == names(model, "")


def test_parameters_unfrozen_after_the_optimizer_was_made_over_the_trainable_ones() -> None:
    model = bert()
    layer_map = LayerMap.from_model(model)
    set_trainable(model, layer_map, 2)
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=0.0)
    assert found(audit(model, optimizer)) == []
    set_trainable(model, layer_map, 1)
    late = the_only(audit(model, optimizer), "trainable_without_group")
    assert late == names(model, "bert.encoder.layer.0.")
    loss(model).backward()
    assert set(moved_by(optimizer.step, model)).isdisjoint(late)


def test_the_published_snippet_that_freezes_what_it_gives_to_the_optimizer() -> None:
    model = bert()
    lower = list(model.parameters())[:-20]
    for parameter in lower:
        parameter.requires_grad = False
    optimizer = AdamW(lower, lr=1e-2, weight_decay=0.0)
    trainable = tuple(name for name, p in model.named_parameters() if p.requires_grad)
    assert len(trainable) == 20
    assert the_only(audit(model, optimizer), "trainable_without_group") == trainable
    loss(model).backward()
    assert moved_by(optimizer.step, model) == ()


def test_the_published_snippet_that_unfreezes_a_block_which_no_group_holds() -> None:
    model = bert()
    model.bert.requires_grad_(False)
    optimizer = AdamW(model.classifier.parameters(), lr=1e-2, weight_decay=0.0)
    moved = []
    for epoch in range(2):
        if epoch == 1:
            for parameter in model.bert.encoder.layer[1].parameters():
                parameter.requires_grad = True
        report = audit(model, optimizer)
        optimizer.zero_grad()
        loss(model).backward()
        moved.append(moved_by(optimizer.step, model))
    assert the_only(report, "trainable_without_group") == names(model, "bert.encoder.layer.1.")
    assert moved == [("classifier.weight", "classifier.bias")] * 2


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
def test_a_parameter_that_is_listed_twice() -> None:
    model = bert()
    optimizer = SGD([*model.parameters(), *model.classifier.parameters()], lr=0.1)
    assert the_only(audit(model, optimizer), "parameter_in_two_groups") == names(model, "classifier.")


def test_a_parameter_in_two_groups() -> None:
    model = bert()
    optimizer = build_optimizer(model)
    # add_param_group refuses this; a list that somebody extends does not.
    optimizer.param_groups.append({**optimizer.param_groups[-1], "params": [model.classifier.bias], "param_names": []})
    assert the_only(audit(model, optimizer), "parameter_in_two_groups") == ("classifier.bias",)


def test_a_head_that_shares_its_numbers_with_the_embeddings_but_is_another_parameter() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=40, n_embd=16, n_layer=2, n_head=2)).train()
    tied = SGD([{"params": list(model.parameters()), "lr": 0.1}])
    assert found(audit(model, tied)) == []
    model.lm_head.weight = nn.Parameter(model.transformer.wte.weight.data)
    optimizer = SGD(
        [{"params": list(model.transformer.parameters()), "lr": 0.1}, {"params": [model.lm_head.weight], "lr": 0.05}]
    )
    report = audit(model, optimizer)
    assert the_only(report, "tied_weight_in_two_groups") == ("transformer.wte.weight", "lm_head.weight")
    assert "at the rates 0.1 and 0.05" in report.findings[0].what


def test_one_tied_parameter_in_two_groups_with_two_rates() -> None:
    model = build("bert", "masked", **NO_DROPOUT)
    optimizer = build_optimizer(model)
    decoder = model.cls.predictions.decoder.weight
    optimizer.param_groups.append({"params": [decoder], "lr": 1e-7, "weight_decay": 0.0})
    embeddings = "bert.embeddings.word_embeddings.weight"
    assert the_only(audit(model, optimizer), "tied_weight_in_two_groups") == (
        embeddings,
        "cls.predictions.decoder.weight",
    )


def test_an_optimizer_of_the_model_as_it_was_before_it_was_made_anew() -> None:
    model = bert()
    optimizer = build_optimizer(model)
    anew = copy.deepcopy(model)
    report = audit(anew, optimizer)
    # Both are true: what it holds is not of the model, and what is of the model it does not hold.
    assert sorted(found(report)) == ["foreign_parameter", "trainable_without_group"]
    assert {finding.severity for finding in report} == {"error"}
    assert set(report.findings[1].parameters) == set(names(anew, ""))


def test_the_parameters_of_a_loss_are_only_worth_a_warning() -> None:
    model = bert()
    optimizer = SGD([{"params": list(model.parameters())}, {"params": [nn.Parameter(torch.zeros(3))]}], lr=0.1)
    assert the_only(audit(model, optimizer), "foreign_parameter", "warning") == ("a tensor of shape (3,)",)


def test_a_frozen_parameter_with_a_gradient_from_before_is_found_and_does_move() -> None:
    model = bert()
    optimizer = SGD(model.parameters(), lr=0.1)
    loss(model).backward()
    frozen = freeze_embeddings(model)
    assert the_only(audit(model, optimizer), "frozen_with_gradient") == frozen
    assert set(moved_by(optimizer.step, model)) >= set(frozen)


def test_a_frozen_parameter_with_zeros_for_a_gradient_is_decayed() -> None:
    model = bert()
    optimizer = build_optimizer(model, weight_decay=0.1, lr=0.1)
    loss(model).backward()
    optimizer.zero_grad(set_to_none=False)
    frozen = freeze_embeddings(model)
    decayed = the_only(audit(model, optimizer), "frozen_but_decayed")
    assert decayed == tuple(name for name in frozen if "LayerNorm" not in name)
    assert set(moved_by(optimizer.step, model)) & set(frozen) == set(decayed)


def test_a_frozen_parameter_with_zeros_for_a_gradient_rolls_on_with_its_momentum() -> None:
    model = bert()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss(model).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    frozen = freeze_embeddings(model)
    assert the_only(audit(model, optimizer), "frozen_with_momentum") == frozen
    assert set(moved_by(optimizer.step, model)) >= set(frozen)


@pytest.mark.parametrize("steps_before", [0, 1])
def test_zeros_for_a_gradient_move_nothing_without_decay_and_momentum(steps_before: int) -> None:
    model = bert()
    optimizer = AdamW(model.parameters(), lr=0.1, weight_decay=0.0)
    loss(model).backward()
    optimizer.zero_grad(set_to_none=False)
    for _ in range(steps_before):
        # Leaves moments that are zero.
        optimizer.step()
    frozen = freeze_embeddings(model)
    assert found(audit(model, optimizer)) == []
    assert set(moved_by(optimizer.step, model)).isdisjoint(frozen)


def test_a_frozen_parameter_with_a_gradient_at_a_rate_of_zero_stays() -> None:
    model = bert()
    head: dict[str, Any] = {"params": list(model.classifier.parameters())}
    optimizer = SGD([{"params": list(model.bert.parameters()), "lr": 0.0}, head])
    loss(model).backward()
    freeze_embeddings(model)
    assert found(audit(model, optimizer)) == []
    assert moved_by(optimizer.step, model) == names(model, "classifier.")


def test_decayed_norms_and_biases() -> None:
    model = bert()
    spared = the_only(audit(model, AdamW(model.parameters())), "norm_or_bias_decayed", "warning")
    assert spared == tuple(name for name, p in model.named_parameters() if p.ndim == 1)
