"""From the facts of a run to its verdict, and from a verdict to lines for people."""

import textwrap
from collections.abc import Mapping, Sequence

from nlp_ft.errors import printable
from nlp_ft.training.verdict import data, learning, scores
from nlp_ft.training.verdict.facts import Facts, Remark

WIDTH = 80
USELESS = {"below_baseline", "frozen_random", "no_signal", "rate_too_high", "rate_too_low"}
"""Codes of remarks on a model that nobody should use."""


def judge(facts: Facts) -> list[Remark]:
    """Find what went wrong in a run, causes first; if nothing did, the first remark is `fine`.

    Remarks on missing or small validation can follow either.
    """
    checks = (data.missing_in_train, data.leaked, data.conflicting, data.cut, data.dominated)
    of_data = [remark for check in checks if (remark := check(facts))]
    cause = learning.cause(facts, bool(of_data))
    wrong = [*of_data, *([cause] if cause else [])]
    below = scores.below_baseline(facts, bool(wrong))
    wrong += [remark for remark in (below, scores.never_predicted(facts, bool(cause))) if remark]
    return [*(wrong or [scores.all_well(facts)]), *scores.notes(facts)]


def is_useless(verdict: Sequence[Mapping[str, str]]) -> bool:
    """Whether the model of a run should not be used, by its verdict as in summary.json."""
    return any(remark["code"] in USELESS for remark in verdict)


def format_verdict(verdict: Sequence[Mapping[str, str]]) -> str:
    """Write a verdict under its heading, wrapped to 80 columns.

    Args:
        verdict: the remarks as in summary.json, each with `says` and `do`.
    """
    lines = ["verdict"]
    for remark in verdict:
        lines += textwrap.wrap(printable(remark["says"]), WIDTH, initial_indent="- ", subsequent_indent="  ")
        if remark["do"]:
            do = f"do: {printable(remark['do'])}"
            lines += textwrap.wrap(do, WIDTH, initial_indent="  ", subsequent_indent="      ")
    return "\n".join(lines)
