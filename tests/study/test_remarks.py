"""The words of a comparison: what is judged, what it cannot show, what is odd."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from nlp_ft.study.cheap_rows import CheapRow
from nlp_ft.study.remarks import front_line, remarks, verdict_lines
from nlp_ft.study.results import Judged, Runs, judge

ROWS = 400


def runs(
    strategy: str,
    shares: Sequence[float],
    seconds: float = 10.0,
    edge: str = "",
    codes: Sequence[str] = (),
    shift: int = 0,
) -> Runs:
    """Runs that are right on a share of the rows, the first ones after a shift; a seed each."""
    tests, summaries = [], []
    for share in shares:
        hits = (np.arange(ROWS) - shift) % ROWS < share * ROWS
        without = [np.delete(hits, slice(start, start + 4)).mean() for start in range(0, ROWS, 4)]
        tests.append({"scores": {"accuracy": hits.mean()}, "without": without, "hits": hits.tolist(), "rows": ROWS})
        summaries.append({"train_seconds": seconds, "verdict": [{"code": code} for code in codes]})
    return Runs(strategy, 1e-4, edge, summaries, tests)


def judged(*of: Runs, margin: float = 0.01) -> list[Judged]:
    return judge(of, "full", "accuracy", 1, margin)


def said(*of: Runs, cheap: Sequence[CheapRow] = (), report: dict[str, Any] | None = None, jobs: int = 1) -> list[str]:
    return remarks(judged(*of), cheap, report or {}, "accuracy", 1, jobs, 0.01)


@pytest.mark.parametrize(("rows", "word"), [(2, "cannot tell yet"), (400, "cannot tell yet"), (2000, "equal")])
def test_runs_that_agree_in_every_row_are_equal_only_if_the_rows_are_many(rows: int, word: str) -> None:
    without = np.ones(min(rows, 100)).tolist()
    test = {"scores": {"accuracy": 1.0}, "without": without, "hits": [True] * rows, "rows": rows}
    both = [Runs(name, 1e-4, "", [{"train_seconds": 1.0}] * 3, [test] * 3) for name in ("full", "llrd")]
    found = judged(*both, margin=0.002)[1]
    assert (found.word, found.gain and found.gain.value) == (word, 0.0)
    assert found.gain is not None
    assert found.gain.interval is not None
    # 3 / rows with many groups; with few, Student's t is wider.
    expected = {2: 12.706 * 0.75, 400: 1.984 * 1.5 / 400, 2000: 1.984 * 1.5 / 2000}[rows]
    assert found.gain.interval.half_width == pytest.approx(expected, rel=1e-3)


def test_each_strategy_gets_its_word() -> None:
    full = runs("full", [0.80, 0.81, 0.80, 0.79, 0.80])
    found = judged(
        full,
        runs("llrd", [0.90, 0.91, 0.91, 0.90, 0.90]),
        runs("head_only", [0.60, 0.61, 0.60, 0.60, 0.59]),
        runs("lora", [0.80, 0.81, 0.80, 0.79, 0.80]),
        runs("gradual", [0.70, 0.95, 0.90, 0.75, 0.80]),
    )
    assert [one.word for one in found] == ["baseline", "better", "worse", "equal", "cannot tell yet"]
    lines = verdict_lines(found, "full", "accuracy", 0.01)
    assert lines[:3] == [
        "llrd: better than full.",
        "head_only: worse than full.",
        "lora: equal to full within 1.0 points.",
    ]
    assert lines[3].startswith("gradual: cannot tell yet. A true difference of 1.0 points would show in 4 %")


def test_cells_that_went_on_on_another_machine_are_told() -> None:
    full, llrd = runs("full", [0.8] * 5), runs("llrd", [0.9] * 5)
    for summary in [*full.summaries, *llrd.summaries]:
        assert isinstance(summary, dict)
        summary |= {"device": "cpu", "precision": "fp32", "versions": {"torch": "2.0"}}
    assert said(full, llrd) == []
    last = llrd.summaries[-1]
    assert isinstance(last, dict)
    last |= {"device": "cuda", "versions": {"torch": "2.1"}}
    assert said(full, llrd) == [
        "The cells did not train alike (device cpu and cuda, torch 2.0 and 2.1): neither seconds nor small differences "
        "compare."
    ]


def test_too_few_rows_are_told_from_too_few_seeds() -> None:
    full = runs("full", [0.8] * 5)
    other_rows = judged(full, runs("llrd", [0.8] * 5, shift=40))
    [line] = verdict_lines(other_rows, "full", "accuracy", 0.01)
    assert line == (
        "llrd: cannot tell yet. A true difference of 1.0 points would show in 4 % of such comparisons; no number of "
        "seeds is enough, as 400 test rows are too few: it takes about 63,426."
    )
    other_seeds = judged(full, runs("llrd", [0.7, 0.9, 0.8, 0.95, 0.65]))
    [line] = verdict_lines(other_seeds, "full", "accuracy", 0.1)
    assert line == (
        "llrd: cannot tell yet. A true difference of 10.0 points would show in 26 % of such comparisons; for 80 % it "
        "would take 18 seeds."
    )


def test_a_good_comparison_has_no_remark() -> None:
    shares = [0.80, 0.81, 0.80, 0.79, 0.80]
    cheaper = runs("head_only", [0.7, 0.7, 0.7, 0.7, 0.7], seconds=1)
    assert said(runs("full", shares), cheaper, cheap=[CheapRow("TF-IDF", {"accuracy": 0.5})]) == []


@pytest.mark.parametrize(
    ("of", "more", "expected"),
    [
        (runs("llrd", [0.8] * 5, edge="highest"), {}, "llrd: its rate 0.0001 is the highest of its grid"),
        (runs("llrd", [0.8] * 5, codes=["overfit"]), {}, "llrd overfits in 5 of 5 seeds"),
        (runs("llrd", [0.8, 0.8, 0.5, 0.8, 0.8]), {}, "llrd: seed 2 collapsed, accuracy 50.0."),
        (
            runs("llrd", [0.8] * 5),
            {"cheap": [CheapRow("TF-IDF", {"accuracy": 0.85})]},
            "llrd (80.0) is worse than TF-IDF (85.0).",
        ),
        (
            runs("llrd", [0.8] * 5),
            {"report": {"test": {"also_in_train": 7, "rows": 400}}},
            "7 of 400 test texts are in train",
        ),
        (runs("llrd", [0.79] * 5, seconds=30), {}, "llrd takes 3.0 times as long as full, with no gain shown."),
        (runs("llrd", [0.8] * 5), {"jobs": 2}, "2 cells ran at a time"),
    ],
)
def test_what_is_odd_is_said(of: Runs, more: dict[str, Any], expected: str) -> None:
    found = said(runs("full", [0.80, 0.81, 0.80, 0.79, 0.80]), of, **more)
    assert [line for line in found if line.startswith(expected)] != [], found


def test_the_front_is_named_from_the_fastest_on_and_the_others_with_who_dominates_them() -> None:
    full = runs("full", [0.80] * 5, seconds=20)
    found = judged(full, runs("head_only", [0.7] * 5, seconds=2), runs("llrd", [0.79] * 5, seconds=30))
    assert front_line(found, "accuracy") == (
        "Pareto front of score and seconds: head_only (70.0 in 2 s), full (80.0 in 20 s); dominated: llrd (by full)."
    )
    assert front_line(found[:1], "accuracy") == (
        "Pareto front of score and seconds: full (80.0 in 20 s); none is dominated."
    )


def test_few_seeds_are_said() -> None:
    [line] = said(runs("full", [0.8, 0.8]))
    assert line.startswith("2 seeds instead of 5: where seeds decide, a difference must be 12.7 standard errors")
    [line] = said(runs("full", [0.8]))
    assert line == "1 seed instead of 5: no interval over seeds, so no strategy is called better, worse or equal."


def test_a_loss_is_better_when_it_is_lower() -> None:
    first, second = runs("full", [0.8] * 3), runs("llrd", [0.7, 0.71, 0.7])
    assert [one.word for one in judge([first, second], "full", "accuracy", -1, 0.001)] == ["baseline", "better"]


def test_a_margin_that_is_wide_beside_an_error_is_said() -> None:
    def of(name: str) -> Runs:
        test = {"scores": {"mse": 1.25}, "without": [1.25] * 2, "hits": None, "rows": 2}
        return Runs(name, 1e-4, "", [{"train_seconds": 1.0}] * 5, [test] * 5)

    found = judge([of("full"), of("llrd")], "full", "mse", -1, 0.5)
    assert remarks(found, [], {}, "mse", -1, 1, 0.5) == [
        "the margin of 0.5 is wide beside the mse of full, 1.25: `equal` says little; "
        "set --margin in the unit of the mse."
    ]
    assert remarks(found, [], {}, "mse", -1, 1, 0.1) == []


def test_all_rows_right_in_all_seeds_is_no_proof_where_rows_are_few() -> None:
    def of(name: str, share: float) -> Runs:
        test = {"scores": {"accuracy": share}, "without": [share] * 2, "hits": [share] * 2, "rows": 2}
        return Runs(name, 1e-4, "", [{"train_seconds": 1.0}] * 2, [test] * 2)

    found = judged(of("full", 0.0), of("llrd", 1.0))[1]
    assert (found.word, found.gain and found.gain.value) == ("cannot tell yet", 1.0)
    assert found.runs.interval("accuracy") == pytest.approx((1 - 12.706 * 0.75, 1 + 12.706 * 0.75), rel=1e-3)


def test_who_dominates_is_on_the_front() -> None:
    chain = [runs(name, [0.8] * 5, seconds) for name, seconds in (("full", 20), ("llrd", 10), ("lora", 5))]
    assert [one.dominated_by for one in judged(*chain)] == ["lora", "lora", ""]
