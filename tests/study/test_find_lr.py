"""The range test of learning rates: which rates it tries, what it suggests, and that it leaves the model as it was."""

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from matplotlib.figure import Figure

from nlp_ft.cli import main
from nlp_ft.errors import DataError, TrainingError
from nlp_ft.recipe.loader import dump_yaml, recipe_from_dict
from nlp_ft.study.find_lr import FoundRates, RangeTest, _Updates, find_rates, range_test, restored
from nlp_ft.study.lr_plot import check_plot, write_plot
from nlp_ft.tasks.losses import TagLoss
from tests.tiny import tiny_recipe


def falling_then_rising(rate: float) -> float:
    """A loss that is 2 at low rates, 1 at 1e-3, and grows beyond."""
    place = math.log10(rate)
    return 1 + min(1.0, (place + 3) ** 2 / 4) if place < -3 else 1 + 4 * (place + 3) ** 2


def test_the_rates_rise_by_one_factor_from_the_lowest_to_the_highest() -> None:
    test = range_test(lambda rate: 1.0, 1e-4, 1e-1, 4)
    assert test.rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    assert test.losses == [1.0] * 4
    assert test.suggestion is None


def test_the_suggestion_stands_below_the_rate_with_the_least_loss() -> None:
    assert range_test(falling_then_rising, 1e-7, 1e0, 141, margin=10).suggestion == pytest.approx(1e-4, rel=0.3)
    assert range_test(falling_then_rising, 1e-7, 1e0, 141, margin=1).suggestion == pytest.approx(1e-3, rel=0.3)


@pytest.mark.parametrize("broken", [math.nan, math.inf, 1e6])
def test_a_loss_that_breaks_ends_the_test(broken: float) -> None:
    test = range_test(lambda rate: broken if rate > 1e-2 else 1.0, 1e-5, 1e0, 101)
    assert test.rates[-1] == pytest.approx(1e-2, rel=0.3)
    assert len(test.losses) == len(test.rates) < 101


def test_a_batch_without_a_label_does_not_end_the_test() -> None:
    class Tagger(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            return SimpleNamespace(logits=super().forward(x))

    model, labels = Tagger(4, 3), torch.full((2, 5), -100)  # words of which the tokenizer makes nothing
    stream: Any = lambda epoch, first: iter([(2, [{"x": torch.ones(2, 5, 4), "labels": labels}])])  # noqa: E731
    recipe: Any = SimpleNamespace(training=SimpleNamespace(max_grad_norm=1.0), seed=0)
    updates = _Updates(Accelerator(cpu=True), model, TagLoss(), stream, recipe)
    assert updates(torch.optim.SGD(model.parameters()), 0.1) == 0


def test_the_plot_holds_both_tests_and_their_suggestions(tmp_path: Path) -> None:
    broken = range_test(lambda rate: math.nan if rate > 1e-2 else falling_then_rising(rate), 1e-7, 1e0, 141, margin=1)
    whole = range_test(falling_then_rising, 1e-7, 1e0, 141, margin=10)
    write_plot(FoundRates(whole, broken), str(tmp_path / "rates.svg"))
    write_plot(FoundRates(whole, None), str(tmp_path / "rates.PNG"))
    drawn = (tmp_path / "rates.svg").read_text()
    for words in (
        "<!-- head -->",
        "<!-- encoder -->",
        *(f"suggestion {test.suggestion:g}" for test in (whole, broken)),
    ):
        assert words in drawn
    assert (tmp_path / "rates.PNG").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("rates.txt", "must end in .svg, .png, .pdf, got rates.txt"),
        ("no/rates.svg", "No such file"),
        ("rates.svg/", "must end in"),
    ],
)
def test_a_plot_that_cannot_be_written_is_refused(file: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        check_plot(file)


def test_a_probe_has_no_rate_to_find(tmp_path: Path, tiny_encoder: Path) -> None:
    with pytest.raises(TrainingError, match="strategy probe takes no steps"):
        find_rates(recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, strategy="probe")))


def test_weights_and_random_numbers_come_back_to_the_bit() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    model[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    with restored(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        model.requires_grad_(True)
        model(torch.rand(4, 3)).square().sum().backward()
        optimizer.step()
        assert not torch.equal(model.state_dict()["0.weight"], before["0.weight"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model[0].bias.requires_grad
    assert torch.equal(torch.rand(2), expected)


def test_head_and_encoder_are_tested_and_nothing_is_written(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder))
    before = sorted(tmp_path.rglob("*"))
    found = find_rates(recipe, 20)
    again = find_rates(recipe, 20)
    assert found == again
    assert found.encoder is not None
    assert found.head.rates[0] == 1e-5
    assert found.encoder.rates[0] == 1e-7
    assert found.head.losses[0] == pytest.approx(math.log(3), abs=0.3)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_strategy_that_trains_the_head_alone_gets_one_rate(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my recipe.yaml"
    file.write_text(dump_yaml(tiny_recipe(tmp_path, tiny_encoder)))
    with pytest.raises(SystemExit) as ended:
        main(["find-lr", str(file), "strategy=head_only", "--steps", "30"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "head, over the frozen encoder" in shown
    assert "encoder, under" not in shown
    assert "optimizer.head_lr=" not in shown
    # The command can be copied: it is one line, whatever its length, and is quoted.
    assert re.search(
        rf"^next: nlp-ft train '{re.escape(str(file))}' strategy=head_only optimizer.lr=[0-9.e-]+$", shown, re.M
    )
    assert "say less than runs that are scored on" in shown


def test_too_few_steps_are_refused(tmp_path: Path, tiny_encoder: Path) -> None:
    with pytest.raises(TrainingError, match="--steps must be at least 20, got 5"):
        find_rates(recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder)), 5)


def test_a_fall_within_what_batches_differ_by_is_no_suggestion() -> None:
    losses = iter([1.3, 0.7, 1.4, 0.6, 1.2, 0.8, 1.1, 0.7] + 30 * [1.0])
    assert range_test(lambda _: next(losses), 1e-5, 1e-1, 30, margin=1.0).suggestion is None
    assert range_test(falling_then_rising, 1e-5, 1e1, 100).suggestion is not None


def test_a_rate_of_the_head_that_breaks_the_loss_is_not_suggested() -> None:
    rates = [float(rate) for rate in range(1, 21)]
    head = RangeTest(rates, [1.0 - 0.04 * step for step in range(20)], 10.0)
    broken = FoundRates(head, RangeTest(rates, [5.0] * 20, 1.0))
    assert broken.settings == []
    assert "look: that rate of the head breaks the loss" in str(broken)
    assert FoundRates(head, RangeTest(rates, [0.9] * 20, 1.0)).settings == [f"optimizer.head_lr={head.suggestion:g}"]


def test_a_loss_that_is_no_number_from_the_first_steps_on_suggests_nothing() -> None:
    head = RangeTest([1e-5 * 2**step for step in range(20)], [2 - 0.05 * step for step in range(20)], 10.0)
    found = FoundRates(head, RangeTest([1e-7, 2e-7, 4e-7], [1.0, 1.0, math.nan], 1.0))
    assert head.suggestion is not None
    assert (found.encoder and found.encoder.suggestion, found.settings) == (None, [])
    assert "that rate of the head breaks the loss, so nothing is suggested" in str(found)


def test_a_plot_that_finds_no_room_is_named_and_not_left_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(figure: Figure, file: str, dpi: int) -> None:
        Path(file).write_text("<svg")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    found = FoundRates(range_test(falling_then_rising, 1e-5, 1e1, 100), None)
    with pytest.raises(DataError, match=r"--plot: .*rates\.svg: No space left on device"):
        write_plot(found, str(tmp_path / "rates.svg"))
    assert not (tmp_path / "rates.svg").exists()
