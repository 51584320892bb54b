"""What the data report says about the scores: rows in two splits, labels that are missing, and texts that are cut."""

from collections.abc import Mapping

from nlp_ft.errors import listed
from nlp_ft.training.verdict.facts import Facts, Remark

LEAKED = 0.01
"""Share of the rows of a split that also occur in train, from which its score is too good."""
CONFLICTING = 0.02
"""Share of the rows of train that are texts with several labels, from which labels look unreliable."""
CUT = 0.5
DOMINANT = 0.9
"""Share of train with one label, from which a constant answer looks good."""


def leaked(facts: Facts) -> Remark | None:
    """Rows of test or validation also occur in train."""
    found = {split: described.get("also_in_train", 0) for split, described in facts.report.items()}
    found = {split: rows for split, rows in found.items() if rows >= LEAKED * facts.report[split]["rows"] and rows}
    if not found:
        return None
    sizes = {split: facts.report[split]["rows"] for split in found}
    counts = " and ".join(f"{rows:,} of {sizes[split]:,} rows of {split}" for split, rows in found.items())
    return Remark(
        "rows_in_train",
        f"{counts} also occur in train, so the scores there are too good.",
        f"remove them from train and train again; {' and '.join(found)} must hold new {facts.inputs} only",
    )


def missing_in_train(facts: Facts) -> Remark | None:
    """Labels of test or validation have no row in train."""
    if not facts.splits["train"].references:
        return None
    without = [name for name, rows in facts.report["train"]["labels"].items() if not rows]
    found = {
        split: {name: described["labels"][name] for name in without if described["labels"].get(name)}
        for split, described in facts.report.items()
    }
    names = sorted({name for labels in found.values() for name in labels})
    if not names:
        return None
    counts = ", ".join(f"{sum(labels.values()):,} of {split}" for split, labels in found.items() if labels)
    return Remark(
        "missing_in_train",
        f"No row of train has the label(s) {listed(names, 5)}, so all rows with them get wrong answers ({counts}).",
        "add rows with these labels to train, or take them out of data.label_names and out of the other splits",
    )


def conflicting(facts: Facts) -> Remark | None:
    """Many rows of train have the same content and another label."""
    rows, several = facts.report["train"]["rows"], facts.report["train"].get("repeated_with_another_label", 0)
    if several < CONFLICTING * rows:
        return None
    train = facts.report["train"]
    if "labels_per_row" in train:
        what, do = "set of labels", "give all rows of a text the same set of labels in train"
    elif any(isinstance(value, float | Mapping) for value in train["labels"].values()):
        what, do = "number", "keep one number for each in train, such as their mean"
    else:
        what, do = "label", "keep one label for each in train"
    return Remark(
        "conflicting_labels",
        f"{several:,} {facts.inputs} of train ({several / rows:.1%} of its rows) occur with more than one {what}, so "
        "no model can be right on them.",
        do,
    )


def cut(facts: Facts) -> Remark | None:
    """Most texts are cut."""
    train = facts.report["train"]
    share = train.get("truncated", 0.0)
    if share <= CUT:
        return None
    return Remark(
        "texts_cut",
        f"data.max_length {facts.max_length} cuts {share:.1%} of train: half of its texts have more than "
        f"{train['median_tokens']:.0f} tokens.",
        f"set data.max_length to {train['p95_tokens']:.0f}, which keeps 95 % of them whole",
    )


def dominated(facts: Facts) -> Remark | None:
    """Nearly all rows of train have one label."""
    if not facts.splits["train"].references:
        return None
    labels, rows = facts.report["train"]["labels"], facts.report["train"]["rows"]
    most = max(labels, key=lambda name: labels[name])
    # Where a row may have several labels, or none, no constant answer is nearly always right.
    if labels[most] < DOMINANT * rows or sum(labels.values()) != rows:
        return None
    do = [] if facts.class_weights else ["loss.class_weights to balanced"]
    do += [] if facts.metric == "macro_f1" else ["training.metric to macro_f1"]
    return Remark(
        "one_label_dominates",
        f"{labels[most] / rows:.1%} of train has the label {most}: who always answers {most} is nearly always right.",
        f"set {' and '.join(do)}; add rows of the other labels" if do else "add rows of the other labels",
    )
