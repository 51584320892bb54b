"""The cheaper random numbers are one with the exact probability, independently, and every dropout takes them."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import DynamoBackend
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.training.loop import Loop
from nlp_ft.training.random_bits import draw, fast_random_bits, threshold
from nlp_ft.training.run import train
from tests.tiny import tiny_recipe

P_WHOLE, P_LEAST, P_MOST = 0.25, 1 / 65536, 65535 / 65536
P_ROUNDED = 3.5 / 65536
"""Rounded down it would be a seventh too small."""
SMALLEST_WORD, LARGEST_WORD = -(2**63), 2**63 - 1


def share_of_words_that_round_up(p: float) -> Fraction:
    down = threshold(p, LARGEST_WORD)
    low, high = SMALLEST_WORD, LARGEST_WORD + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if threshold(p, middle) > down else (low, middle)
    return Fraction(low - SMALLEST_WORD, 2**64)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, P_WHOLE, P_ROUNDED, P_LEAST, P_MOST, 1 / 3, 0.9, math.pi / 4])
def test_over_all_bits_and_roundings_an_element_is_one_with_exactly_the_probability(p: float) -> None:
    up, bits = share_of_words_that_round_up(p), np.arange(-(2**15), 2**15)
    ones = [int((bits < threshold(p, word)).sum()) for word in (SMALLEST_WORD, LARGEST_WORD)]
    expected = (up * ones[0] + (1 - up) * ones[1]) / 2**16
    assert abs(expected - Fraction(p)) < Fraction(1, 10**15)


def test_a_tenth_is_rounded_up_in_six_calls_of_ten() -> None:
    assert (threshold(0.1, SMALLEST_WORD), threshold(0.1, LARGEST_WORD)) == (6554 - 32768, 6553 - 32768)
    assert float(share_of_words_that_round_up(0.1)) == pytest.approx(0.6, abs=1e-11)


@pytest.mark.parametrize("p", [0.1, P_ROUNDED, P_MOST])
def test_an_element_is_one_where_its_16_bits_lie_below_the_threshold(p: float) -> None:
    torch.manual_seed(8)
    words = torch.empty(2**16 + 1, dtype=torch.int64).random_(-(2**63), None).numpy()
    torch.manual_seed(8)
    ones = draw(torch.empty(512, 512), p).numpy()
    bits = words[:-1].view(np.int16).reshape(512, 512)
    assert set(np.unique(ones)) == {0.0, 1.0}
    assert ((ones == 1) == (bits < threshold(p, int(words[-1])))).all()


def drawn(p: float, calls: int, size: int) -> np.ndarray:
    """Zeros and ones, (calls, size)."""
    torch.manual_seed(1)
    return np.stack([draw(torch.empty(size), p).numpy() for _ in range(calls)])


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, P_ROUNDED, P_MOST])
def test_the_share_of_ones_is_binomial(p: float) -> None:
    ones = drawn(p, calls=100, size=99_999)
    assert abs(ones.sum(dtype=np.float64) - p * ones.size) < 5 * math.sqrt(ones.size * p * (1 - p))


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 5, 1000])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_elements_are_independent(p: float, distance: int) -> None:
    deviations = drawn(p, calls=20, size=100_003) - p
    products = deviations[:, distance:] * deviations[:, :-distance]
    assert abs(products.sum()) < 5 * p * (1 - p) * math.sqrt(products.size)


def test_calls_are_independent() -> None:
    deviations = drawn(0.1, calls=21, size=100_003) - 0.1
    products = deviations[1:] * deviations[:-1]
    assert abs(products.sum()) < 5 * 0.1 * 0.9 * math.sqrt(products.size)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_what_is_certain_is_certain(p: float) -> None:
    assert (drawn(p, calls=1, size=10_000) == p).all()


@pytest.mark.parametrize("p", [1e-5, 1 - 1e-5])
def test_what_16_bits_cannot_hold_is_drawn_from_more(p: float) -> None:
    ones = drawn(p, calls=1, size=10**7)
    assert 0 < abs(ones.sum(dtype=np.float64) - p * 10**7) < 5 * math.sqrt(10**7 * p * (1 - p))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.bool, torch.uint8]
)
def test_any_type_is_filled_from_the_same_bits(dtype: torch.dtype) -> None:
    targets = []
    for kind in (torch.float32, dtype):
        torch.manual_seed(2)
        targets.append(draw(torch.empty(6, 5, 4, dtype=kind).transpose(0, 2), 0.3))
    assert targets[1].dtype == dtype
    assert targets[1].shape == (4, 5, 6)
    assert torch.equal(targets[0], targets[1].float())


def test_a_generator_of_its_own_leaves_the_default_one_alone() -> None:
    state = torch.get_rng_state()
    own = [draw(torch.empty(100), 0.5, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*own)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2,), (3,), (4,), (5, 1, 7), (2, 0, 3)])
def test_any_shape_stays_and_its_last_element_is_drawn_too(shape: Sequence[int]) -> None:
    torch.manual_seed(6)
    targets = [draw(torch.empty(shape), 0.5) for _ in range(60)]
    assert all(target.shape == torch.Size(shape) for target in targets)
    if targets[0].numel():
        assert {float(target.flatten()[-1]) for target in targets} == {0.0, 1.0}


def accelerator(device: str = "cpu", backend: DynamoBackend = DynamoBackend.NO) -> Any:
    plugin = SimpleNamespace(backend=backend)
    return SimpleNamespace(device=torch.device(device), state=SimpleNamespace(dynamo_plugin=plugin))


def seeded(call: Callable[[], torch.Tensor], seed: int = 3) -> torch.Tensor:
    torch.manual_seed(seed)
    return call()


QUERY = torch.randn(2, 3, 20, 8, generator=torch.Generator().manual_seed(0))
CALLS: dict[str, Callable[[], torch.Tensor]] = {
    "Dropout": lambda: nn.Dropout(0.2)(QUERY),
    "functional dropout": lambda: F.dropout(QUERY, 0.2),
    "attention probabilities": lambda: F.scaled_dot_product_attention(QUERY, QUERY, QUERY, dropout_p=0.2),
    "Dropout1d": lambda: nn.Dropout1d(0.2)(QUERY[0]),
    "bernoulli_": lambda: torch.empty(100).bernoulli_(0.2),
}


@pytest.mark.parametrize("name", CALLS)
def test_inside_all_dropout_is_drawn_cheaply_and_outside_none(name: str) -> None:
    plain = seeded(CALLS[name])
    with fast_random_bits(accelerator()):
        fast = seeded(CALLS[name])
    assert fast.shape == plain.shape
    assert not torch.equal(fast, plain)
    assert torch.equal(seeded(CALLS[name]), plain)


def test_dropout_scales_what_the_drawn_ones_keep() -> None:
    with fast_random_bits(accelerator()):
        output = seeded(lambda: F.dropout(torch.full((50, 7), 3.0), 0.2))
    kept = seeded(lambda: draw(torch.empty(50, 7), 0.8))
    assert torch.equal(output, kept * 3.75)


def test_attention_is_that_of_the_drawn_probabilities() -> None:
    with fast_random_bits(accelerator()):
        output = seeded(CALLS["attention probabilities"])
    kept = seeded(lambda: draw(torch.empty(2, 3, 20, 20), 0.8))
    probabilities = torch.softmax(QUERY @ QUERY.transpose(-2, -1) / math.sqrt(8), -1) * kept / 0.8
    torch.testing.assert_close(output, probabilities @ QUERY)


def test_the_gradient_passes_where_the_element_did() -> None:
    input = torch.randn(33, 7, requires_grad=True)
    with fast_random_bits(accelerator()):
        output, upstream = F.dropout(input, 0.2), torch.randn(33, 7)
        [gradient] = torch.autograd.grad(output, input, upstream)
    torch.testing.assert_close(gradient, torch.where(output == 0, 0.0, upstream * 1.25))
    assert 0 < (gradient == 0).sum() < 231


def test_under_gradient_checkpointing_the_same_is_drawn_again() -> None:
    model = nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5), nn.Linear(50, 1))
    input = torch.randn(4, 6)

    def gradient(forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        torch.manual_seed(4)
        output = forward()
        torch.rand(7)  # what comes later in a forward pass draws too
        return torch.autograd.grad(output.sum(), next(model.parameters()))[0]

    with fast_random_bits(accelerator()):
        plain = gradient(lambda: model(input))
        assert torch.equal(plain, gradient(lambda: checkpoint(model, input, use_reentrant=False)))


def test_an_error_inside_puts_the_random_numbers_of_torch_back() -> None:
    plain = seeded(CALLS["Dropout"])

    def fail() -> None:
        with fast_random_bits(accelerator()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.equal(seeded(CALLS["Dropout"]), plain)


@pytest.mark.parametrize("other", [accelerator("cuda"), accelerator("mps"), accelerator("cpu", DynamoBackend.INDUCTOR)])
def test_other_devices_and_compiled_models_are_left_alone(other: Any) -> None:
    plain = seeded(CALLS["Dropout"])
    with fast_random_bits(other):
        assert torch.equal(seeded(CALLS["Dropout"]), plain)


def test_a_run_draws_cheaply(tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_step, drawn_by_run = Loop._step, []

    def step(self: Loop, batches: Any) -> torch.Tensor:
        drawn_by_run.append(seeded(CALLS["Dropout"]))
        return plain_step(self, batches)

    monkeypatch.setattr(Loop, "_step", step)
    train(recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder)))
    with fast_random_bits(accelerator()):
        expected = seeded(CALLS["Dropout"])
    assert len(drawn_by_run) == 14
    assert all(torch.equal(output, expected) for output in drawn_by_run)
