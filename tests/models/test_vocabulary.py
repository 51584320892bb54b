"""Training the used rows of an embedding table ends where training the whole table ends."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lion_pytorch import Lion
from torch import nn

from nlp_ft.models.vocabulary import UsedVocabulary, lookup_table
from tests.layerwise.discovery.test_text_census import BUILT
from tests.layerwise.text_census import batch, build

ROWS = 50
TOKENS = [3, 7, 8, 20, 49]
PADDING = 3
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, weight_decay=0.1, momentum=0.9),
    "lion": lambda p: Lion(p, lr=1e-3, weight_decay=0.1),
}


def used_rows(*tokens: int) -> torch.Tensor:
    used = torch.zeros(ROWS, dtype=torch.bool)
    used[[*tokens]] = True
    return used


def embed_and_score(dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(ROWS, 6, padding_idx=PADDING), nn.Linear(6, 2)).to(dtype)


def run(model: nn.Sequential, optimizer: torch.optim.Optimizer, steps: int = 40, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        tokens = torch.tensor(TOKENS)[torch.randint(len(TOKENS), (8, 4), generator=generator)]
        model(tokens).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_row_ends_as_in_the_training_of_the_whole_table(name: str) -> None:
    whole = embed_and_score()
    run(whole, OPTIMIZERS[name](whole.parameters()))
    model = embed_and_score()
    optimizer = OPTIMIZERS[name](model.parameters())
    vocabulary = UsedVocabulary(model[0], used_rows(*TOKENS), optimizer)
    vocabulary.trim()
    run(model, optimizer)
    assert model[0].weight.shape == (6, 6)  # five tokens and the witness
    vocabulary.restore()
    vocabulary.decay_unused()
    assert model[0].weight.shape == (50, 6)
    torch.testing.assert_close(dict(model.named_parameters()), dict(whole.named_parameters()), rtol=1e-13, atol=1e-13)


def test_thousands_of_decays_in_float32_come_closer_to_the_closed_form_than_in_the_whole_table() -> None:
    """Each decay by a millionth is rounded by some per cent, always the same way for the same value."""
    errors = []
    for trims in (False, True):
        model = embed_and_score(torch.float32)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-2)
        vocabulary = UsedVocabulary(model[0], used_rows(*TOKENS), optimizer)
        if trims:
            vocabulary.trim()
        run(model, optimizer, steps=600)
        if trims:
            vocabulary.restore()
            vocabulary.decay_unused()
        decayed = model[0].weight.detach().double() / embed_and_score(torch.float32)[0].weight.detach().double()
        errors.append(float((decayed / (1 - 1e-6) ** 600 - 1)[~used_rows(*TOKENS)].abs().max()))
    assert errors[1] < 1.5e-5 < errors[0] < 6e-5


def test_a_table_that_is_made_whole_on_the_way_ends_the_same() -> None:
    weights = []
    for is_whole_between in (False, True):
        model = embed_and_score()
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        vocabulary = UsedVocabulary(model[0], used_rows(*TOKENS), optimizer)
        vocabulary.trim()
        run(model, optimizer, seed=1)
        if is_whole_between:
            vocabulary.restore()
            vocabulary.trim()
        run(model, optimizer, seed=2)
        vocabulary.restore()
        vocabulary.decay_unused()
        weights.append(model[0].weight.detach())
    assert torch.equal(weights[0], weights[1])


def test_the_optimizer_keeps_no_moments_of_unused_rows() -> None:
    model = embed_and_score()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    vocabulary = UsedVocabulary(model[0], used_rows(*TOKENS), optimizer)
    vocabulary.trim()
    run(model, optimizer, steps=1)
    assert sorted(tuple(state["exp_avg"].shape) for state in optimizer.state.values()) == [(2,), (2, 6), (6, 6)]


def test_a_token_that_is_not_in_use_is_an_error_and_not_another_row() -> None:
    model = embed_and_score()
    vocabulary = UsedVocabulary(model[0], used_rows(*TOKENS), torch.optim.AdamW(model.parameters()))
    vocabulary.trim()
    with pytest.raises(IndexError):
        model(torch.tensor([[4]]))


def test_a_frozen_table_stays_frozen_and_unmoved_to_the_bit() -> None:
    model = embed_and_score(torch.float32)
    before = model[0].weight.detach().clone()
    model[0].weight.requires_grad_(False)
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    vocabulary = UsedVocabulary(model[0], used_rows(*TOKENS), optimizer)
    vocabulary.trim()
    run(model, optimizer)
    vocabulary.restore()
    vocabulary.decay_unused()
    assert not model[0].weight.requires_grad
    assert torch.equal(model[0].weight, before)


LEFT_ALONE = {
    *("bart", "bigbird_pegasus", "biogpt", "gemma", "gemma2", "gemma3", "gemma3_text", "ibert", "mbart", "minicpm3"),
    *("plbart", "t5gemma2", "mt5", "mvp", "t5", "umt5", "canine", "perceiver"),
}
"""Types whose embedding does more than look up, whose table is also read elsewhere, or who have no such table."""
RANDOM_IN_EVALUATION = {"reformer"}


@pytest.mark.slow
@pytest.mark.parametrize("model_type", BUILT)
def test_a_table_is_trimmed_with_logits_equal_to_the_bit_or_left_alone(model_type: str) -> None:
    model = build(model_type).eval()
    embedding = lookup_table(model)
    assert (embedding is None) == (model_type in LEFT_ALONE)
    if embedding is None:
        return
    inputs = batch(model)
    used = torch.zeros(embedding.num_embeddings, dtype=torch.bool)
    used[inputs["input_ids"].flatten()] = True
    used[:3] = True  # the special tokens: Longformer pads by itself
    with torch.no_grad():
        before = model(**inputs).logits
        UsedVocabulary(embedding, used, torch.optim.AdamW(model.parameters())).trim()
        assert torch.equal(model(**inputs).logits, before) == (model_type not in RANDOM_IN_EVALUATION)
