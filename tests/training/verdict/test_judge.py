"""The verdict: literal facts give literal codes and words. The figures are those of real runs, rounded."""

from dataclasses import replace
from typing import Any

import pytest

from nlp_ft.durations import Duration
from nlp_ft.training.verdict.facts import Facts, Rate, SplitFacts
from nlp_ft.training.verdict.judge import format_verdict, judge

CHANCE = 1.386  # ln 4
LABELS = ("a", "b", "c", "d")
EVEN = dict.fromkeys(LABELS, 50)
TFIDF = "TF-IDF with logistic regression"


def split(accuracy: float, loss: float, **changes: Any) -> SplitFacts:
    scores = {"accuracy": accuracy, "macro_f1": accuracy, "matthews": (accuracy - 0.25) / 0.75, "loss": loss}
    return replace(SplitFacts(200, scores, CHANCE, references=EVEN, predicted=EVEN), **changes)


def described(**changes: Any) -> dict[str, Any]:
    return {"rows": 200, "labels": EVEN, "truncated": 0.0, "repeated_with_another_label": 0, **changes}


def losses(*values: float) -> list[tuple[int, float]]:
    return [(10 * (i + 1), value) for i, value in enumerate(values)]


def evaluations(*values: tuple[float, float]) -> list[tuple[int, dict[str, float]]]:
    """(accuracy, loss) of each evaluation, one every 40 steps."""
    return [(40 * (i + 1), {"accuracy": accuracy, "loss": loss}) for i, (accuracy, loss) in enumerate(values)]


GOOD = Facts(
    metric="accuracy",
    plain_metric="accuracy",
    correlation="matthews",
    lower_is_better=False,
    splits={"train": split(0.99, 0.03), "validation": split(0.80, 0.70), "test": split(0.82, 0.69)},
    margins={name: {"accuracy": 0.055, "matthews": 0.08} for name in ("train", "validation", "test")},
    baselines={"the majority label": {"accuracy": 0.25, "matthews": 0.0}, TFIDF: {"accuracy": 0.52, "matthews": 0.36}},
    losses=losses(1.37, 1.2, 0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1, 0.08, 0.05, 0.04),
    evaluations=evaluations((0.70, 0.90), (0.79, 0.75), (0.80, 0.70)),
    steps_per_epoch=40,
    duration=Duration(3, "ep"),
    stopped_early=False,
    rate=Rate("optimizer.lr", 3e-4, 1e-5, 5e-4, 1e-4),
    random_layers=(),
    report={
        "train": described(),
        "validation": described(also_in_train=0),
        "test": described(also_in_train=0),
    },
    max_length=64,
)
NOTHING = {"train": split(0.26, 1.38), "validation": split(0.25, 1.39), "test": split(0.27, 1.39)}
"""What a model answers that has learned nothing."""
FLAT = losses(1.39, 1.39, 1.38, 1.39, 1.38, 1.39, 1.38, 1.38, 1.39, 1.38, 1.38, 1.38)


def at_rate(value: float) -> Rate:
    return replace(GOOD.rate, value=value)


def codes(**changes: Any) -> list[str]:
    return [remark.code for remark in judge(replace(GOOD, **changes))]


def the_remark(code: str, **changes: Any) -> tuple[str, str]:
    """What the verdict says and what to do."""
    [remark] = [remark for remark in judge(replace(GOOD, **changes)) if remark.code == code]
    return remark.says, remark.do


def test_a_good_run_is_one_line_with_its_lead_over_the_best_baseline() -> None:
    [remark] = judge(GOOD)
    assert (remark.code, remark.do) == ("fine", "")
    assert remark.says == (
        f"Beats {TFIDF} by 30.0 points: accuracy 82.0 on test, against 52.0; the loss on train is down to 0.03."
    )


def test_without_baselines_a_good_run_has_its_score() -> None:
    [remark] = judge(replace(GOOD, baselines={}, stopped_early=True))
    assert remark.says == "accuracy 82.0 on test; no baseline was computed; early stopping ended the run."


@pytest.mark.parametrize(
    ("accuracy", "code"), [(0.40, "below_baseline"), (0.50, "near_baseline"), (0.56, "near_baseline"), (0.60, "fine")]
)
def test_the_lead_over_a_baseline_must_be_more_than_chance(accuracy: float, code: str) -> None:
    assert codes(splits={**GOOD.splits, "test": split(accuracy, 0.9)}) == [code]


def test_a_run_below_a_baseline_names_it_and_both_scores() -> None:
    says, do = the_remark("below_baseline", splits={**GOOD.splits, "test": split(0.40, 0.9)})
    assert says == f"The model is worse than {TFIDF}: accuracy 40.0 on test, against 52.0."
    assert do.startswith("try a higher optimizer.lr (now 0.0003) or a longer training.duration (now 3ep)")


def test_a_metric_that_is_better_when_lower_is_compared_downwards() -> None:
    numbers = {"spearman": 0.8, "loss": 0.5, "mse": 0.5}
    of = SplitFacts(200, numbers, 2.0)
    changes: dict[str, Any] = {
        "metric": "mse",
        "plain_metric": "spearman",
        "correlation": "spearman",
        "lower_is_better": True,
        "splits": {"train": replace(of, scores={**numbers, "loss": 0.01}), "test": of},
        "evaluations": [],
        "report": {name: {"rows": 200, "labels": {"mean": 0.0}} for name in ("train", "test")},
    }
    assert codes(**changes, baselines={"ridge": {"mse": 0.4}}) == ["below_baseline", "no_validation"]
    assert codes(**changes, baselines={"ridge": {"mse": 0.9}}) == ["fine", "no_validation"]
    assert the_remark("fine", **changes, baselines={"ridge": {"mse": 0.9}})[0].startswith("Beats ridge by 0.4: mse 0.5")


def test_a_flat_loss_at_a_rate_below_the_usual_ones_is_a_rate_too_low() -> None:
    says, do = the_remark("rate_too_low", splits=NOTHING, losses=FLAT, rate=at_rate(1e-7))
    assert says == (
        "The loss hardly moved: 1.39 at first, 1.38 at last; a constant answer has 1.39. optimizer.lr 1e-07 is below "
        "the usual rates of pretrained layers, 1e-05 to 0.0005."
    )
    assert do == "set optimizer.lr to 0.0001"


def test_a_flat_loss_at_a_rate_above_the_usual_ones_is_a_rate_too_high() -> None:
    says, do = the_remark("rate_too_high", splits=NOTHING, losses=FLAT, rate=at_rate(3e-2))
    assert says.startswith("The training loss stays at 1.38; a constant answer has 1.39. optimizer.lr 0.03 is above")
    assert do == "set optimizer.lr to 0.0001, or make schedule.warmup longer"


def test_a_loss_that_rises_is_a_rate_too_high_even_among_the_usual_ones() -> None:
    rising = losses(1.37, 0.8, 0.4, 0.3, 0.3, 0.9, 1.3, 1.4, 1.38, 1.4)
    says, do = the_remark("rate_too_high", losses=rising)
    assert says.startswith("The training loss rose from 0.333 to 1.4 during the run. optimizer.lr 0.0003 is among")
    assert do.startswith("set optimizer.lr to 6e-05")


def test_a_model_that_gives_one_answer_although_a_baseline_learns_has_collapsed() -> None:
    collapsed = {name: replace(of, is_constant=True) for name, of in NOTHING.items()}
    assert codes(splits=collapsed, losses=FLAT)[0] == "rate_too_high"
    assert codes(splits=collapsed, losses=FLAT, baselines={})[0] == "rate_too_high"
    at_chance = {TFIDF: {"accuracy": 0.25, "matthews": 0.0}}
    assert codes(splits=collapsed, losses=FLAT, baselines=at_chance)[0] == "no_signal"


def test_a_flat_loss_after_few_steps_is_a_run_too_short() -> None:
    few: dict[str, Any] = {"losses": FLAT[:2], "evaluations": [], "duration": Duration(20, "st")}
    says, do = the_remark("too_short", splits=NOTHING, **few)
    seen = "train is not learned yet (loss 1.39 at first, 1.39 at last; a constant answer has 1.39)"
    assert says == f"The run ended too early, after 20 steps: {seen}."
    assert do == "set training.duration to 80st (now 20st)"


def test_a_run_that_has_learned_nothing_is_too_short_while_its_loss_falls_whatever_validation_does() -> None:
    falling = losses(*(1.6 - 0.02 * i for i in range(11)), 1.2)
    worse = evaluations((0.27, 1.39), (0.26, 1.39), (0.25, 1.39))
    assert codes(splits=NOTHING, losses=falling, evaluations=worse)[0] == "too_short"
    assert "too_short" not in codes(splits=NOTHING, losses=FLAT, evaluations=worse)


def test_a_run_that_still_improves_should_be_longer() -> None:
    improving = {
        "splits": {**GOOD.splits, "train": split(0.75, 0.6)},
        "losses": losses(1.37, 1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7),
    }
    says, do = the_remark("too_short", **improving)
    assert says == (
        "The run ended too early, after 80 steps: the training loss still fell (1.37 at first, 0.7 at last), and "
        "validation improved (accuracy 70.0, 79.0, 80.0)."
    )
    assert do == "set training.duration to 6ep (now 3ep)"
    assert codes(**improving, stopped_early=True) == ["fine"]
    assert codes(**improving, evaluations=evaluations((0.7, 0.9), (0.8, 0.7), (0.75, 0.7))) == ["fine"]


def test_validation_at_chance_while_train_is_learned_are_shuffled_labels() -> None:
    by_heart = {**NOTHING, "train": split(0.95, 0.2)}
    says, do = the_remark("no_signal", splits=by_heart, baselines={TFIDF: {"accuracy": 0.26, "matthews": 0.01}})
    assert says == (
        "The accuracy on validation, 25.0, is no better than chance, though it is 95.0 on train. The "
        "labels look shuffled, or the texts do not tell them."
    )
    assert do.startswith("read some rows of train: is data.label the right column")


def test_labels_that_a_baseline_learns_are_not_shuffled() -> None:
    assert "no_signal" not in codes(splits={**NOTHING, "train": split(0.95, 0.2)})


def test_frozen_layers_with_random_weights_are_the_cause_before_the_rate() -> None:
    random = {"splits": NOTHING, "random_layers": ["block 1", "block 2"], "rate": at_rate(1e-7)}
    says, do = the_remark("frozen_random", **random)
    assert says == (
        "The frozen layers hold random weights, not pretrained ones: block 1, block 2. What trains above them "
        "sees noise."
    )
    assert do == "name pretrained weights in model, or let these layers train (strategy: scratch)"
    assert codes(random_layers=["block 1"]) == ["fine"]


RISING = evaluations((0.6, 1.0), (0.61, 1.1), (0.6, 1.3), (0.6, 1.6))


def test_a_validation_loss_that_rises_while_train_is_perfect_is_overfitting() -> None:
    splits = {**GOOD.splits, "train": split(1.0, 0.01), "validation": split(0.61, 1.1)}
    says, do = the_remark("overfit", splits=splits, evaluations=RISING)
    assert says == (
        "The model learns train by heart: accuracy 100.0 on train, 61.0 on validation; the loss on validation rose "
        "from 1 (step 40) to 1.6. The best accuracy was at step 80."
    )
    assert do.startswith("set training.duration to 2ep or training.early_stopping to {patience: 2}")
    _, do = the_remark("overfit", splits=splits, evaluations=RISING, steps_per_epoch=160)
    assert do.startswith("set training.duration to 80st or")
    assert codes(evaluations=RISING, splits={**splits, "train": split(0.65, 0.3)}) == ["fine"]
    assert codes(evaluations=RISING[:2], splits=splits) == ["fine"]
    assert codes(evaluations=[*RISING[:3], (160, {"accuracy": 0.62, "loss": 1.6})], splits=splits) == ["fine"]


def test_a_label_that_is_never_predicted_is_named_with_its_rows_of_train() -> None:
    test = split(0.82, 0.69, predicted={**EVEN, "d": 0})
    report = {**GOOD.report, "train": described(labels={**EVEN, "d": 3})}
    says, do = the_remark("never_predicted", splits={**GOOD.splits, "test": test}, report=report)
    assert says == "1 of 4 labels are never predicted on test, where 50 rows have them: d."
    assert do == (
        "set loss.class_weights to balanced and training.metric to macro_f1, or add rows to train (d has 3 of 200)"
    )
    rare = replace(test, references={**EVEN, "d": 2})
    assert codes(splits={**GOOD.splits, "test": rare}) == ["fine"]


def test_a_model_that_learned_nothing_is_not_blamed_for_its_labels() -> None:
    one_answer = replace(NOTHING["test"], predicted={"a": 200})
    assert codes(splits={**NOTHING, "test": one_answer}, losses=FLAT, rate=at_rate(1e-7)) == [
        "rate_too_low",
        "below_baseline",
    ]


def test_a_label_that_train_lacks_is_named_with_the_rows_that_need_it() -> None:
    report = {**GOOD.report, "train": described(labels={**EVEN, "c": 0})}
    says, _ = the_remark("missing_in_train", report=report)
    assert says == (
        "No row of train has the label(s) c, so all rows with them get wrong answers (50 of validation, 50 of test)."
    )


def test_rows_of_test_in_train_are_counted_and_one_in_200_is_no_alarm() -> None:
    says, do = the_remark("rows_in_train", report={**GOOD.report, "test": described(also_in_train=67)})
    assert says == "67 of 200 rows of test also occur in train, so the scores there are too good."
    assert do == "remove them from train and train again; test must hold new texts only"
    assert codes(report={**GOOD.report, "test": described(also_in_train=1)}) == ["fine"]


def test_many_texts_with_several_labels_are_counted() -> None:
    says, _ = the_remark(
        "conflicting_labels", report={**GOOD.report, "train": described(repeated_with_another_label=20)}
    )
    assert says.startswith("20 texts of train (10.0% of its rows) occur with more than one label")
    sets = described(repeated_with_another_label=20, labels_per_row=1.2)
    says, do = the_remark("conflicting_labels", report={**GOOD.report, "train": sets})
    assert "occur with more than one set of labels, so no model" in says
    assert do == "give all rows of a text the same set of labels in train"
    numbers = described(repeated_with_another_label=20, labels={"mean": 0.5, "deviation": 1.0})
    assert the_remark("conflicting_labels", report={**GOOD.report, "train": numbers})[1].startswith("keep one number")
    assert codes(report={**GOOD.report, "train": described(repeated_with_another_label=3)}) == ["fine"]


def test_texts_that_are_mostly_cut_name_the_length_to_set() -> None:
    train = described(truncated=0.98, median_tokens=30.0, p95_tokens=38.0)
    says, do = the_remark("texts_cut", report={**GOOD.report, "train": train})
    assert says == "data.max_length 64 cuts 98.0% of train: half of its texts have more than 30 tokens."
    assert do == "set data.max_length to 38, which keeps 95 % of them whole"
    assert codes(report={**GOOD.report, "train": {**train, "truncated": 0.4}}) == ["fine"]


def test_a_run_on_faulty_data_is_not_called_too_short() -> None:
    short: dict[str, Any] = {"splits": NOTHING, "losses": FLAT[:2], "evaluations": []}
    assert codes(**short)[0] == "too_short"
    train = described(truncated=0.98, median_tokens=30.0, p95_tokens=38.0)
    assert codes(**short, report={**GOOD.report, "train": train})[:2] == ["texts_cut", "below_baseline"]


def test_one_label_for_nearly_all_rows_is_named() -> None:
    train = described(labels={"a": 190, "b": 10, "c": 0, "d": 0})
    report = {"train": train, "test": described(labels={"a": 190, "b": 10, "c": 0, "d": 0})}
    says, do = the_remark("one_label_dominates", report=report)
    assert says == "95.0% of train has the label a: who always answers a is nearly always right."
    assert do == ("set loss.class_weights to balanced and training.metric to macro_f1; add rows of the other labels")
    # A row may have several labels here, so that no constant answer is right.
    several = {**report, "train": {**report["train"], "labels": {**report["train"]["labels"], "c": 40}}}
    assert "one_label_dominates" not in codes(report=several)


def test_a_missing_or_small_validation_is_noted_beside_a_good_verdict() -> None:
    assert codes(splits={name: of for name, of in GOOD.splits.items() if name != "validation"}, evaluations=[]) == [
        "fine",
        "no_validation",
    ]
    small = {**GOOD.splits, "validation": split(0.8, 0.7, rows=20)}
    says, _ = the_remark("small_validation", splits=small, margins={**GOOD.margins, "validation": {"accuracy": 0.175}})
    assert says == "Validation has 20 rows: differences below 17.5 points of accuracy are chance."


def test_a_verdict_is_wrapped_to_80_columns_under_its_heading() -> None:
    text = format_verdict([{"code": "x", "says": "word " * 30, "do": "set this"}])
    assert text.splitlines() == [
        "verdict",
        "- word word word word word word word word word word word word word word word",
        "  word word word word word word word word word word word word word word word",
        "  do: set this",
    ]
