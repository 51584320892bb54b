"""The cheaper dropout drops with the exact probability, independently, and is torch's in all else."""

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
from torch.utils.checkpoint import checkpoint

from nlp_ft.recipe_loader import recipe_from_dict
from nlp_ft.training.dropout import FastDropout, draw_factors, fast_dropout, threshold
from nlp_ft.training.loop import Loop
from nlp_ft.training.run import train
from tests.tiny import tiny_recipe

P_WHOLE, P_LEAST, P_MOST = 0.25, 1 / 65536, 65535 / 65536
P_ROUNDED = 3.5 / 65536
"""Rounded down it would be a seventh too small."""
SMALLEST_WORD, LARGEST_WORD = -(2**63), 2**63 - 1


def seeded(module: nn.Module, input: torch.Tensor, seed: int = 3) -> torch.Tensor:
    torch.manual_seed(seed)
    output: torch.Tensor = module(input)
    return output


def share_of_words_that_round_up(p: float) -> Fraction:
    down = threshold(p, LARGEST_WORD)
    low, high = SMALLEST_WORD, LARGEST_WORD + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if threshold(p, middle) > down else (low, middle)
    return Fraction(low - SMALLEST_WORD, 2**64)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, P_WHOLE, P_ROUNDED, P_LEAST, P_MOST, 1 / 3, 0.9, math.pi / 4])
def test_over_all_bits_and_roundings_an_element_is_dropped_with_exactly_the_probability(p: float) -> None:
    up, bits = share_of_words_that_round_up(p), np.arange(-(2**15), 2**15)
    dropped = [int((bits < threshold(p, word)).sum()) for word in (SMALLEST_WORD, LARGEST_WORD)]
    expected = (up * dropped[0] + (1 - up) * dropped[1]) / 2**16
    assert abs(expected - Fraction(p)) < Fraction(1, 10**15)


def test_a_tenth_is_rounded_up_in_six_calls_of_ten() -> None:
    assert (threshold(0.1, SMALLEST_WORD), threshold(0.1, LARGEST_WORD)) == (6554 - 32768, 6553 - 32768)
    assert float(share_of_words_that_round_up(0.1)) == pytest.approx(0.6, abs=1e-11)


@pytest.mark.parametrize("p", [0.1, P_ROUNDED, P_MOST])
def test_an_element_is_dropped_where_its_16_bits_lie_below_the_threshold(p: float) -> None:
    torch.manual_seed(8)
    words = torch.empty(2**16 + 1, dtype=torch.int64).random_(-(2**63), None).numpy()
    torch.manual_seed(8)
    factors = draw_factors(torch.Size([512, 512]), p, torch.float64)
    bits = words[:-1].view(np.int16).reshape(512, 512)
    assert 0 < (factors == 0).sum() < 2**18
    assert ((factors == 0).numpy() == (bits < threshold(p, int(words[-1])))).all()


def drawn(p: float, calls: int, size: int) -> np.ndarray:
    """Whether each element was dropped, (calls, size)."""
    torch.manual_seed(1)
    return np.stack([(draw_factors(torch.Size([size]), p, torch.float32) == 0).numpy() for _ in range(calls)])


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, P_ROUNDED, P_MOST])
def test_the_share_that_is_dropped_is_binomial(p: float) -> None:
    dropped = drawn(p, calls=100, size=99_999)
    assert abs(dropped.sum() - p * dropped.size) < 5 * math.sqrt(dropped.size * p * (1 - p))


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 5, 1000])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_elements_are_dropped_independently(p: float, distance: int) -> None:
    deviations = drawn(p, calls=20, size=100_003) - p
    products = deviations[:, distance:] * deviations[:, :-distance]
    assert abs(products.sum()) < 5 * p * (1 - p) * math.sqrt(products.size)


def test_calls_are_independent() -> None:
    deviations = drawn(0.1, calls=21, size=100_003) - 0.1
    products = deviations[1:] * deviations[:-1]
    assert abs(products.sum()) < 5 * 0.1 * 0.9 * math.sqrt(products.size)


@pytest.mark.parametrize(("p", "factor"), [(0.2, 1.25), (0.5, 2.0), (0.75, 4.0), (0.9, 10.0)])
def test_what_is_kept_is_scaled(p: float, factor: float) -> None:
    output = seeded(FastDropout(p), torch.full((1000,), 3.0, dtype=torch.float64))
    assert sorted(set(output.tolist())) == [0.0, pytest.approx(3.0 * factor, rel=1e-15)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.1, 0.3, 0.85])
def test_the_values_and_their_type_are_those_of_torch(p: float, dtype: torch.dtype) -> None:
    input = torch.full((1000,), 1.7, dtype=dtype)
    ours, reference = seeded(FastDropout(p), input), seeded(nn.Dropout(p), input)
    assert ours.dtype == dtype
    assert set(ours.tolist()) == set(reference.tolist())


def test_the_gradient_passes_where_the_element_did() -> None:
    input = torch.randn(33, 7, requires_grad=True)
    output, upstream = seeded(FastDropout(0.2), input), torch.randn(33, 7)
    [gradient] = torch.autograd.grad(output, input, upstream)
    torch.testing.assert_close(gradient, torch.where(output == 0, 0.0, upstream * 1.25))
    assert 0 < (gradient == 0).sum() < 231


def test_the_gradient_is_the_derivative() -> None:
    input = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda tensor: seeded(FastDropout(0.4), tensor), input)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2,), (3,), (4,), (5, 1, 7), (2, 0, 3)])
def test_any_shape_stays_and_a_seed_gives_one_mask(shape: Sequence[int]) -> None:
    module, input = FastDropout(0.5), torch.ones(shape)
    masks = [seeded(module, input, seed) for seed in range(60)]
    assert all(mask.shape == torch.Size(shape) for mask in masks)
    assert all(torch.equal(mask, seeded(module, input, seed)) for seed, mask in enumerate(masks))
    if input.numel():
        assert set(torch.stack(masks).flatten().tolist()) == {0.0, 2.0}
        last = torch.stack([mask.flatten()[-1] for mask in masks])
        assert set(last.tolist()) == {0.0, 2.0}


def test_a_transposed_input_is_dropped_as_a_contiguous_one() -> None:
    input = torch.randn(6, 5, 4).transpose(0, 2)
    assert torch.equal(seeded(FastDropout(0.3), input), seeded(FastDropout(0.3), input.contiguous()))


@pytest.mark.parametrize("p", [0.0, 1e-5, 0.99999, 1.0])
def test_what_16_bits_cannot_hold_is_left_to_torch(p: float) -> None:
    input = torch.randn(10**6)
    assert torch.equal(seeded(FastDropout(p), input), seeded(nn.Dropout(p), input))


def test_in_eval_mode_the_input_is_handed_on() -> None:
    input = torch.randn(10)
    assert FastDropout(0.5).eval()(input) is input


def test_in_place_means_in_place() -> None:
    input = torch.randn(100)
    expected = seeded(FastDropout(0.5), input)
    assert seeded(FastDropout(0.5, inplace=True), input) is input
    assert torch.equal(input, expected)


def test_under_autocast_the_low_precision_stays() -> None:
    model = nn.Sequential(nn.Linear(4, 8), FastDropout(0.5), nn.Linear(8, 2))
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model[1](model[0](torch.randn(3, 4)))
        output = model[2](hidden)
    [gradient] = torch.autograd.grad(output.sum(), next(model.parameters()))
    assert hidden.dtype == torch.bfloat16
    assert gradient.count_nonzero() > 0


def test_under_gradient_checkpointing_the_mask_is_drawn_again() -> None:
    model = nn.Sequential(nn.Linear(6, 50), FastDropout(0.5), nn.Linear(50, 1))
    input = torch.randn(4, 6)

    def gradient(forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        torch.manual_seed(4)
        output = forward()
        torch.rand(7)  # what comes later in a forward pass draws too
        return torch.autograd.grad(output.sum(), next(model.parameters()))[0]

    plain = gradient(lambda: model(input))
    assert torch.equal(plain, gradient(lambda: checkpoint(model, input, use_reentrant=False)))


def accelerator(device: str = "cpu", backend: DynamoBackend = DynamoBackend.NO) -> Any:
    plugin = SimpleNamespace(backend=backend)
    return SimpleNamespace(device=torch.device(device), state=SimpleNamespace(dynamo_plugin=plugin))


class OwnDropout(nn.Dropout):
    """Of a user."""


def model_with_dropout() -> nn.Sequential:
    return nn.Sequential(nn.Dropout(0.1), nn.Sequential(nn.Dropout(0.2), OwnDropout()), nn.Dropout1d(), nn.Linear(1, 1))


def types(model: nn.Module) -> list[type]:
    return [type(module) for module in model.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]


def test_plain_dropout_draws_cheaply_until_the_end_whatever_it_is() -> None:
    model = model_with_dropout()

    def fail() -> None:
        with fast_dropout(accelerator(), model):
            assert types(model) == [FastDropout, FastDropout, OwnDropout, nn.Dropout1d]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert types(model) == [nn.Dropout, nn.Dropout, OwnDropout, nn.Dropout1d]


@pytest.mark.parametrize("other", [accelerator("cuda"), accelerator("mps"), accelerator("cpu", DynamoBackend.INDUCTOR)])
def test_other_devices_and_compiled_models_are_left_alone(other: Any) -> None:
    model = model_with_dropout()
    with fast_dropout(other, model):
        assert types(model) == [nn.Dropout, nn.Dropout, OwnDropout, nn.Dropout1d]


def test_a_run_draws_cheaply_in_what_trains_and_not_at_all_in_what_is_frozen(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, tuple[type, bool]] = {}
    models, plain_step = [], Loop._step

    def step(self: Loop, batches: Any) -> torch.Tensor:
        def note(name: str) -> Callable[..., None]:
            return lambda module, inputs, output: seen.update({name: (type(module), output is inputs[0])})

        named = [(name, module) for name, module in self.model.named_modules() if isinstance(module, nn.Dropout)]
        handles = [module.register_forward_hook(note(name)) for name, module in named]
        models.append(self.model)
        total = plain_step(self, batches)
        for handle in handles:
            handle.remove()
        return total

    monkeypatch.setattr(Loop, "_step", step)
    strategy = {"name": "top_layers", "trainable_blocks": 1}
    recipe = tiny_recipe(tmp_path, tiny_encoder, strategy=strategy, training={"feature_cache": "off"})
    train(recipe_from_dict(recipe))
    blocks = [f"encoder.encoder.layer.{i}.{part}.dropout" for i in (0, 1) for part in ("attention.output", "output")]
    frozen, trained = ["encoder.embeddings.dropout", *blocks[:2]], [*blocks[2:], "head.dropout"]
    assert seen == {name: (FastDropout, name in frozen) for name in [*frozen, *trained]}
    assert set(types(models[0])) == {nn.Dropout}
