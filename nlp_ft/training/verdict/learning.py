"""Whether the run learned, and if not, why: the rates, the length, frozen random layers, labels without a pattern.

Each check looks at the facts and returns a remark or None; `cause` returns the first. All thresholds stand on top; they
were set on real runs, good ones and ones that went wrong on purpose (`scripts/bench/verdicts.py`).
"""

from collections.abc import Sequence

from nlp_ft.durations import Duration
from nlp_ft.training.verdict.facts import FITTED, WEAK, Facts, Remark, shown

LITTLE = 0.15
"""Share of the loss of a constant answer; a model that has removed less of it has learned nothing."""
RISE = 1.3
"""Factor by which a loss has risen that did not rise by chance."""
OVERFIT_RISE = 1.25
"""Factor on the lowest validation loss, above which the last one shows overfitting."""
GAP = 0.1
"""Least lead of the score on train over that on validation, in overfitting."""
FALL = 0.95
"""Factor between the means of the training loss in the last two quarters of the run, below which it still falls."""
RECORDS = 5
"""Records of the training loss that are needed to see a rise."""
SHORT = 100
"""Optimizer steps of a run that can be too short to learn anything."""


def cause(facts: Facts, data_is_faulty: bool) -> Remark | None:
    """Find why the run learned less than it could: one cause, the most certain first.

    Args:
        facts: the run.
        data_is_faulty: whether the data was found to be faulty; whether the run was long enough shows only after that.
    """
    checks = [frozen_random, rate_too_high, no_signal, rate_too_low, overfit]
    if not data_is_faulty:
        checks.append(too_short)
    if facts.is_solved:
        checks = [frozen_random, no_signal]
    return next((remark for check in checks if (remark := check(facts))), None)


def frozen_random(facts: Facts) -> Remark | None:
    """Frozen layers hold random weights, and the model has learned little."""
    if not facts.random_layers or facts.learned > WEAK:
        return None
    return Remark(
        "frozen_random",
        f"The frozen layers hold random weights, not pretrained ones: {', '.join(facts.random_layers)}. "
        "What trains above them sees noise.",
        "name pretrained weights in model, or let these layers train (strategy: scratch)",
    )


def rate_too_high(facts: Facts) -> Remark | None:
    """The loss rose far and stayed there, or the model collapsed."""
    says = _too_much(facts)
    if not says:
        return None
    rate = facts.rate
    lower = rate.suggested if rate.value > rate.high else rate.value / 5
    do = f"set {rate.setting} to {lower:.1g}, or make schedule.warmup longer"
    return Remark("rate_too_high", f"{says} {facts.rate}.", do)


def _too_much(facts: Facts) -> str:
    """Say what shows that the rate was too high; an empty text if nothing does."""
    values, train = [loss for _, loss in facts.losses], facts.splits["train"]
    low, last = min(_smooth(values)), _mean(values[-max(1, len(values) // 10) :])
    is_stuck, of_constant = facts.learned < LITTLE, f"a constant answer has {train.constant_loss:.3g}."
    if len(values) >= RECORDS and last > RISE * low and last - low > LITTLE * train.constant_loss:
        return f"The training loss rose from {low:.3g} to {last:.3g} during the run."
    if is_stuck and max(values) > RISE * max(values[0], train.constant_loss):
        return f"The training loss jumped to {max(values):.3g}; {of_constant}"
    if facts.rate.value > facts.rate.high and (is_stuck or (facts.learned < WEAK and train.is_constant)):
        return f"The training loss stays at {last:.3g}; {of_constant}"
    may_have_signal = _has_signal(facts) or not facts.baselines
    is_usual, was_long = facts.rate.value >= facts.rate.low, not _is_short(facts) and not _falls(values)
    if is_stuck and train.is_constant and may_have_signal and is_usual and was_long:
        return f"The model gives nearly all rows the same answer after {facts.losses[-1][0]} steps."
    return ""


def no_signal(facts: Facts) -> Remark | None:
    """Train is learned by heart, or was studied for long, and other rows get no better answers than by chance."""
    held_out = [split for split in facts.splits if split != "train"]
    if not held_out or not all(facts.at_chance(split) for split in held_out) or _has_signal(facts):
        return None
    studied = bool(facts.baselines) and facts.rate.value >= facts.rate.low and not _is_short(facts)
    if facts.at_chance("train") and not studied:
        return None
    largest, metric = max(held_out, key=lambda split: facts.splits[split].rows), facts.plain_metric
    value, on_train = (facts.splits[split].scores[metric] for split in (largest, "train"))
    by_heart = "" if facts.at_chance("train") else f", though it is {shown(metric, on_train)} on train"
    return Remark(
        "no_signal",
        f"The {metric} on {largest}, {shown(metric, value)}, is no better than chance{by_heart}. The labels look "
        f"shuffled, or the {facts.inputs} do not tell them.",
        "read some rows of train: is data.label the right column, and does each row have its own label?",
    )


def rate_too_low(facts: Facts) -> Remark | None:
    """The model has not learned much, and its rate is below the usual ones."""
    rate = facts.rate
    if facts.learned > WEAK or rate.value >= rate.low:
        return None
    return Remark(
        "rate_too_low",
        f"The loss hardly moved: {_last(facts)}; a constant answer has {facts.splits['train'].constant_loss:.3g}. "
        f"{facts.rate}.",
        f"set {rate.setting} to {rate.suggested:.1g}",
    )


def overfit(facts: Facts) -> Remark | None:
    """The loss on validation has risen for several evaluations, while train is far better."""
    if "validation" not in facts.splits or len(facts.evaluations) < 3:
        return None
    metric = facts.plain_metric
    losses = [scores["loss"] for _, scores in facts.evaluations]
    values = [scores[facts.metric] for _, scores in facts.evaluations]
    lowest = min(range(len(losses)), key=losses.__getitem__)
    lead = facts.splits["train"].scores[metric] - facts.splits["validation"].scores[metric]
    best = max(range(len(values)), key=lambda i: facts.gain(facts.metric, values[i], 0.0))
    if len(losses) - lowest < 3 or losses[-1] < OVERFIT_RISE * losses[lowest] or best == len(values) - 1:
        return None
    if lead < max(GAP, 2 * facts.margin("validation", metric)):
        return None
    best_step = facts.evaluations[best][0]
    epochs = max(1, round(best_step / facts.steps_per_epoch))
    is_shorter = epochs * facts.steps_per_epoch < facts.evaluations[-1][0]
    duration = f"{epochs}ep" if is_shorter else f"{best_step}st"
    return Remark(
        "overfit",
        f"The model learns train by heart: {metric} {shown(metric, facts.splits['train'].scores[metric])} on train, "
        f"{shown(metric, facts.splits['validation'].scores[metric])} on validation; the loss on validation rose from "
        f"{losses[lowest]:.3g} (step {facts.evaluations[lowest][0]}) to {losses[-1]:.3g}. The best {facts.metric} was "
        f"at step {best_step}.",
        f"set training.duration to {duration} or training.early_stopping to {{patience: 2}}; add rows to train, or "
        "train fewer layers (strategy: top_layers)",
    )


def too_short(facts: Facts) -> Remark | None:
    """The run ended before it learned anything, or while train and validation were still improving."""
    falls = _falls([loss for _, loss in facts.losses])
    is_stuck = facts.learned < LITTLE
    ended_early = (falls or _is_short(facts)) if is_stuck else (falls and _improves(facts))
    if facts.learned > FITTED or facts.stopped_early or not ended_early:
        return None
    constant = f"{_last(facts)}; a constant answer has {facts.splits['train'].constant_loss:.3g}"
    course = f" ({_last(facts)})" + (
        "" if len(facts.evaluations) < 2 else f", and validation improved ({_course(facts)})"
    )
    seen = f"train is not learned yet (loss {constant})" if is_stuck else f"the training loss still fell{course}"
    longer = Duration(facts.duration.value * (4 if is_stuck else 2), facts.duration.unit)
    return Remark(
        "too_short",
        f"The run ended too early, after {facts.losses[-1][0]} steps: {seen}.",
        f"set training.duration to {longer} (now {facts.duration})",
    )


def _improves(facts: Facts) -> bool:
    """Whether the last evaluation is the best, or there are too few to tell."""
    values = [scores[facts.metric] for _, scores in facts.evaluations]
    if len(values) < 2:
        return True
    return all(facts.gain(facts.metric, values[-1], value) >= 0 for value in values[:-1])


def _has_signal(facts: Facts) -> bool:
    """Whether a baseline does better than chance."""
    border = facts.margin(facts.spoken, facts.correlation)
    return any(scores.get(facts.correlation, 0.0) > border for scores in facts.baselines.values())


def _is_short(facts: Facts) -> bool:
    return not facts.is_solved and facts.losses[-1][0] < SHORT


def _falls(losses: Sequence[float]) -> bool:
    quarter = max(1, len(losses) // 4)
    if len(losses) < 2:
        return True
    return _mean(losses[-quarter:]) < FALL * _mean(losses[-2 * quarter : -quarter])


def _smooth(losses: Sequence[float]) -> list[float]:
    return [_mean(losses[max(0, i - 2) : i + 1]) for i in range(len(losses))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _last(facts: Facts) -> str:
    first, last = facts.losses[0][1], facts.losses[-1][1]
    return f"{first:.3g} at first, {last:.3g} at last"


def _course(facts: Facts) -> str:
    values = ", ".join(shown(facts.metric, scores[facts.metric]) for _, scores in facts.evaluations[-3:])
    return f"{facts.metric} {values}"
