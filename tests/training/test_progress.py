"""The bar, the lines of a log and the lines of evaluations, as they stand on a screen of 80 columns."""

import io
import re
import sys

import pytest

from nlp_ft.screen import at_level
from nlp_ft.training.progress import Progress, named_rate, shown_first

RATES = {"head": 1e-3, "block 12": 3.2e-4, "block 11": 0.0, "embeddings": 0.0}


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def bar(monkeypatch: pytest.MonkeyPatch, num_phases: int, phase: int) -> str:
    """The last state of the bar after 1,200 of 2,950 steps."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(2950, 295, 0, num_phases, enabled=True)
    progress.step(1200, phase, 0.43118, RATES, 249.7)
    progress._bar.refresh()
    progress.close()
    return re.split(r"[\r\n]+", terminal.getvalue().strip())[-1]


def test_the_bar_names_phase_loss_the_rate_of_a_layer_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = bar(monkeypatch, num_phases=14, phase=2)
    assert re.fullmatch(
        r"phase 2/14 \|[^|]+\| 1200/2950 \d\d:\d\d left, loss 0\.4312, lr block 12 3\.2e-4, 250 ex/s", shown
    )
    assert len(shown) <= 80


def test_the_bar_of_a_run_of_one_phase_names_no_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = bar(monkeypatch, num_phases=1, phase=1)
    assert re.fullmatch(r"\|[^|]+\| 1200/2950 \d\d:\d\d left, loss 0\.4312, lr block 12 3\.2e-4, 250 ex/s", shown)
    assert len(shown) == 80


def test_evaluations_stand_in_columns_and_the_best_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(2950, 295, 0, 1, enabled=True)
    progress.evaluated(59, {"accuracy": 0.25, "macro_f1": 0.125}, 12.34567, is_best=True)
    progress.evaluated(2950, {"accuracy": 0.5, "macro_f1": 0.25}, 1.5, is_best=False)
    progress.say(2950, "phase 2/3: head, block 2 train")
    assert capsys.readouterr().out.splitlines() == [
        "step   59  epoch  0.20  accuracy 0.2500  macro f1 0.1250  loss 12.35  best",
        "step 2950  epoch 10.00  accuracy 0.5000  macro f1 0.2500  loss 1.5000",
        "step 2950  phase 2/3: head, block 2 train",
    ]


def test_a_log_gets_a_line_with_the_same_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nlp_ft.training.progress.SECONDS_BETWEEN_LINES", -1.0)
    Progress(2950, 295, 0, 7, enabled=True).step(1200, 2, 0.43118, RATES, 249.7)
    shown = capsys.readouterr().out.rstrip("\n")
    values = r"step 1200/2950  phase 2/7  loss 0\.4312  lr block 12 3\.2e-4  250 ex/s  00:0\d left"
    assert re.fullmatch(values, shown)
    assert len(shown) <= 80


def test_neither_a_quiet_screen_nor_another_process_shows_anything(capsys: pytest.CaptureFixture[str]) -> None:
    with at_level("quiet"):
        Progress(10, 5, 0, 1, enabled=True).say(1, "seen")
    Progress(10, 5, 0, 1, enabled=False).say(1, "seen")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("rates", "shown"),
    [
        ({"head": 0.1, "block 2": 0.0, "block 1": 0.0}, ("head", 0.1)),
        ({"head": 0.1, "block 2": 0.2, "block 1": 0.3}, ("block 2", 0.2)),
        ({"head": 0.1, "block 2": 0.0, "block 1": 0.3}, ("block 1", 0.3)),
        ({"head": 0.0, "block 2": 0.0}, ("head", 0.0)),
    ],
)
def test_the_rate_shown_is_that_of_the_highest_block_that_trains(
    rates: dict[str, float], shown: tuple[str, float]
) -> None:
    assert named_rate(rates) == shown


@pytest.mark.parametrize(
    ("metric", "shown"),
    [
        ("accuracy", ["accuracy", "macro_f1"]),
        ("macro_f1", ["macro_f1", "accuracy"]),
        ("matthews", ["matthews", "accuracy"]),
        ("loss", ["accuracy", "macro_f1"]),
    ],
)
def test_the_selected_metric_comes_first_and_the_loss_keeps_its_place(metric: str, shown: list[str]) -> None:
    assert shown_first(metric, ("accuracy", "macro_f1")) == shown
