"""Whether the scores are worth something: baselines, labels that are never predicted, and validation."""

from collections.abc import Sequence

from nlp_ft.errors import listed
from nlp_ft.training.verdict.data import dominated
from nlp_ft.training.verdict.facts import FITTED, WEAK, Facts, Remark, points, shown

FEW = 3
"""Rows that a label needs, for its absence among the predictions to be worth a remark."""
MOST_LABELS_NAMED = 5
WIDE = 0.1
"""Margin of a score on validation, above which it says little."""


def best_baseline(facts: Facts) -> tuple[str, str, float] | None:
    """Find the best baseline: its name, the metric it is compared in, and its value; None if there is none."""
    found = []
    for name, scores in facts.baselines.items():
        metric = facts.metric if facts.metric in scores else facts.plain_metric
        if metric in scores:
            found.append((name, metric, scores[metric]))
    if not found:
        return None
    return max(found, key=lambda item: facts.gain(item[1], item[2], 0.0))


def below_baseline(facts: Facts, has_cause: bool) -> Remark | None:
    """Compare the run with the best baseline: it must be better, by more than chance."""
    best = best_baseline(facts)
    if best is None:
        return None
    name, metric, baseline = best
    split = facts.spoken
    value = facts.splits[split].scores[metric]
    lead, margin = facts.gain(metric, value, baseline), facts.margin(split, metric)
    if lead > margin:
        return None
    do = (
        ""
        if has_cause
        else "train layers below the head (strategy: llrd), or use the baseline, which costs less"
        if facts.is_solved
        else (
            f"try a higher {facts.rate.setting} (now {facts.rate.value:.3g}) or a longer training.duration (now "
            f"{facts.duration}), or use the baseline, which costs less"
        )
    )
    scores = f"{metric} {shown(metric, value)} on {split}, against {shown(metric, baseline)}"
    if lead < -margin or (lead < 0 and margin == 0):
        return Remark("below_baseline", f"The model is worse than {name}: {scores}.", do)
    says = f"The model is no better than {name}, beyond chance: {scores}"
    rows = facts.splits[split].rows
    return Remark("near_baseline", f"{says}; with {rows:,} rows, {points(metric, margin)} can be chance.", do)


def never_predicted(facts: Facts, has_cause: bool) -> Remark | None:
    """Some labels of test or validation are never predicted, and not because the model has learned nothing."""
    of = facts.splits[facts.spoken]
    if has_cause and facts.learned < WEAK and dominated(facts) is None:
        return None
    of_train = facts.report["train"]["labels"]
    never = [
        name
        for name, rows in of.references.items()
        if rows >= FEW and of_train.get(name) and not of.predicted.get(name)
    ]
    if not never:
        return None
    rows = sum(of.references[name] for name in never)
    least = min(never, key=lambda name: of_train.get(name, 0))
    settings = [] if facts.class_weights else ["loss.class_weights to balanced"]
    settings += [] if facts.metric == "macro_f1" else ["training.metric to macro_f1"]
    do = f"set {' and '.join(settings)}, or " if settings else ""
    return Remark(
        "never_predicted",
        f"{len(never)} of {len(of.references)} labels are never predicted on {facts.spoken}, where {rows:,} rows have "
        f"them: {listed(never, MOST_LABELS_NAMED)}.",
        f"{do}add rows to train ({least} has {of_train.get(least, 0):,} of {facts.report['train']['rows']:,})",
    )


def no_validation(facts: Facts) -> Remark | None:
    """Without validation, nothing chose the best step; a solved head needs no choice of it."""
    if "validation" in facts.splits or facts.is_solved:
        return None
    return Remark(
        "no_validation",
        "There is no validation split: the last model is kept, whether or not it is the best.",
        "set data.validation to 10%, which draws it from train",
    )


def small_validation(facts: Facts) -> Remark | None:
    """A small validation split chooses by chance."""
    margin = facts.margin("validation", facts.plain_metric)
    if margin <= WIDE:
        return None
    return Remark(
        "small_validation",
        f"Validation has {facts.splits['validation'].rows:,} rows: differences below "
        f"{points(facts.plain_metric, margin)} of {facts.plain_metric} are chance.",
        "put more rows into data.validation before you compare settings",
    )


def notes(facts: Facts) -> Sequence[Remark]:
    """List what limits a verdict, and is wrong with no run."""
    found = (no_validation(facts), small_validation(facts))
    return [remark for remark in found if remark]


def all_well(facts: Facts) -> Remark:
    """Say what a good run has reached."""
    split = facts.spoken
    best = best_baseline(facts)
    if best is None:
        value = facts.splits[split].scores[facts.metric]
        says = f"{facts.metric} {shown(facts.metric, value)} on {split}; no baseline was computed"
    else:
        name, metric, baseline = best
        value = facts.splits[split].scores[metric]
        lead = points(metric, facts.gain(metric, value, baseline))
        says = f"Beats {name} by {lead}: {metric} {shown(metric, value)} on {split}, against {shown(metric, baseline)}"
    return Remark("fine", f"{says}; {_ended(facts)}.")


def _ended(facts: Facts) -> str:
    if facts.stopped_early:
        return "early stopping ended the run"
    if facts.learned > FITTED:
        return f"the loss on train is down to {facts.splits['train'].scores['loss']:.2g}"
    if facts.is_solved:
        return "its head was solved for, without steps"
    return "it had stopped improving"
