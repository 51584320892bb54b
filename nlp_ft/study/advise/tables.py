"""Writes advice for the screen: the evidence, the prior's answer, what moved it, and the settings."""

from nlp_ft.errors import printable
from nlp_ft.study.advise.advice import Candidate
from nlp_ft.study.advise.advise import DRAWN, Advice
from nlp_ft.study.advise.curves import Estimate
from nlp_ft.study.advise.domain import Domain
from nlp_ft.study.advise.evidence import Evidence
from nlp_ft.study.advise.measures import PROBED
from nlp_ft.study.advise.prior import DEFAULT, NEAR
from nlp_ft.study.advise.probing import LAST, Probe, is_share
from nlp_ft.tables import short_count, terminal_width, text_table, wrapped
from nlp_ft.training.verdict.facts import shown

NAME_WIDTH = 15
MEGA = 1e6
SOLVED = "strategy: probe solves for the same head at once, over the layer that suits best; try it, too"


def screen(advice: Advice) -> str:
    """Write all of it."""
    lines = [
        "evidence (test is not read)",
        *(_line(name, text) for name, text in evidence_lines(advice)),
        "",
        wrapped(f"textbook's table: {advice.prior.strategy}, for {advice.prior.cell}"),
        "",
        _candidates(advice),
        wrapped(
            f"points over {DEFAULT}, ± one deviation: believed before (published gains, leaning to the table), "
            f"measured, and both together; then the predicted {advice.metric.replace('_', ' ')} and the cost of a "
            f"whole run, and the steps of the trial{_unit(advice)}"
        ),
        "",
        *(wrapped(line) for line in advice_lines(advice)),
        "",
        _settings(advice),
    ]
    return "\n".join(lines)


def _unit(advice: Advice) -> str:
    return "" if is_share(advice.metric) else f"; a point is 1 % of the {advice.metric} of the trial of {DEFAULT}"


def predicted(advice: Advice) -> str:
    """Write the predicted score with its interval."""
    low, high = (shown(advice.metric, bound) for bound in advice.interval)
    return f"{shown(advice.metric, advice.choice.advised.score.value)} ({low} to {high})"


def advice_lines(advice: Advice) -> list[str]:
    """Write the advice in sentences."""
    choice, cost = advice.choice, advice.choice.advised.cost
    moved = (
        "as the table says" if choice.strategy == advice.prior.strategy else f"the table said {advice.prior.strategy}"
    )
    lines = [
        f"advice: {choice.strategy} ({moved}); {choice.reason}",
        f"how sure: {_degree(choice.sure)}; {100 * choice.sure:.0f} % that no other one is more than 1 point better",
        f"predicted {advice.metric.replace('_', ' ')}: {predicted(advice)} on {advice.evidence.validation_rows:,} new "
        "rows, 95 % interval",
        f"predicted cost: {_span(cost.seconds, cost.least, cost.most)} s of training and validation"
        + ("" if cost.memory is None else f", {cost.memory / MEGA:,.0f} MB"),
        worth(advice),
        SOLVED if choice.strategy == PROBED and advice.probe is not None else "",
        advice.labels,
    ]
    lines = [line for line in lines if line]
    return [lines[-1], *lines[:-1]] if advice.labels_first else lines


def worth(advice: Advice) -> str:
    """Say whether fine-tuning is worth its cost over the head alone; empty where that was not measured."""
    head = next((one for one in advice.choice.candidates if one.strategy == "head_only" and one.measured), None)
    advised = advice.choice.advised
    if head is None or advised is head:
        return ""
    gain = advised.gain.mean - head.gain.mean
    error = (advised.gain.deviation**2 + head.gain.deviation**2) ** 0.5
    is_shown = "worth it, if the points are" if gain > error else "not shown to be worth it"
    return (
        f"over head_only: {gain:+.1f} ± {error:.1f} points for {advised.cost.seconds:.0f} s instead of "
        f"{head.cost.seconds:.0f} s: {is_shown}"
    )


def evidence_lines(advice: Advice) -> list[tuple[str, str]]:
    """List the evidence: a name, and its numbers."""
    facts = advice.evidence
    source = f"drawn from train ({DRAWN})" if advice.was_drawn else "validation"
    found = [("rows", f"{facts.rows:,} train, {facts.validation_rows:,} {source}")]
    if facts.label_counts:
        found.append(
            (
                "classes",
                f"{len(facts.label_counts)}, smallest {facts.smallest:,}, largest / smallest {facts.imbalance:.1f}",
            )
        )
    if facts.lengths is not None:
        of = facts.lengths
        found.append(("tokens a row", f"median {of.median}, 95 % {of.p95}, 99 % {of.p99}, longest {of.longest}"))
    if facts.words is not None:
        words = facts.words
        found.append(
            ("words", f"{words.tokens_per_word:.2f} tokens each, {words.split:.1%} split, {words.unknown:.2%} unknown")
        )
    if facts.domain is not None:
        found.append(("domain", _domain(facts.domain)))
    found += _trained(facts)
    return [*found, *_probe(advice)]


def _domain(domain: Domain) -> str:
    if domain.distance is None:
        return f"distance to general English not measured: {domain.why_not}"
    return f"{domain.distance:.2f} x as far from general English as that is from itself (border {NEAR})"


def _trained(facts: Evidence) -> list[tuple[str, str]]:
    per_row = ", ".join(
        f"{name} {short_count(number)} ({number / facts.rows:,.0f})"
        for name, number in sorted(facts.trainable.items(), key=lambda item: item[1])
    )
    return [("trained (a row)", per_row)]


def _probe(advice: Advice) -> list[tuple[str, str]]:
    probe = advice.probe
    if probe is None:
        return [("probe", "not available: it needs a vector for each row, and a metric of at most 1")]
    layers = ", ".join(f"{name} {_share(advice, one)}" for name, one in probe.layers.items())
    found = [("probe by layer", f"{layers} (cross-validated on {probe.rows:,} rows)")]
    return [*found, ("learning curve", _curve(advice, probe))]


def _curve(advice: Advice, probe: Probe) -> str:
    seen = ", ".join(f"{rows:,} rows {shown(advice.metric, score)}" for rows, score, _ in probe.points)
    curve = probe.curve(advice.evidence.rows)
    law = "" if curve is None else f"; error ~ rows^-{curve.power:.2f} ± {curve.power_error:.2f}"
    return f"{seen} ({LAST} layer){law}"


def _share(advice: Advice, one: Estimate) -> str:
    return f"{shown(advice.metric, one.value)} ± {shown(advice.metric, one.error)}"


def _candidates(advice: Advice) -> str:
    ordered = sorted(advice.choice.candidates, key=lambda one: -one.gain.mean)
    rows = [_row(advice, one) for one in ordered]
    header = ["strategy", "believed", "measured", "both", "", "score", "s", "MB", "steps"]
    return text_table(header, rows, (5, 6, 7), terminal_width(), (8,))


def _row(advice: Advice, one: Candidate) -> list[str]:
    if one.strategy == DEFAULT:
        gains = ["0", "0", "0", "default"]
    else:
        measured = "-" if one.measured is None else _gain(one.measured.gain.value, one.measured.error(one.prior))
        prior, both = (_gain(belief.mean, belief.deviation) for belief in (one.prior, one.gain))
        gains = [prior, measured, both, one.word]
    memory = "" if one.cost.memory is None else f"{one.cost.memory / MEGA:,.0f}"
    trial = advice.trials.get(one.strategy)
    source = "" if one.measured is None else one.measured.source
    if trial is not None:
        source = f"{trial.steps}/{trial.full_steps}"
    return [one.strategy, *gains, shown(advice.metric, one.score.value), f"{one.cost.seconds:.0f}", memory, source]


def _gain(value: float, error: float) -> str:
    return f"{value:+.1f}±{error:.1f}"


def _settings(advice: Advice) -> str:
    return "\n".join(["settings", *(wrapped(f"  {line}") for line in _reasons(advice))])


def _reasons(advice: Advice) -> list[str]:
    return [f"{one.key} = {one.value}: {one.reason}" for one in advice.settings]


def recipe_comments(advice: Advice, command: str) -> list[str]:
    """Write what stands above the advised recipe: the command, the advice, and each setting with its reason."""
    return [printable(line) for line in [f"advised by: {command}", *advice_lines(advice), *_reasons(advice)]]


def _line(name: str, text: str) -> str:
    return wrapped(f"  {name:<{NAME_WIDTH}}  {printable(text)}")


def _span(value: float, low: float, high: float) -> str:
    return f"{value:.0f} ({low:.0f} to {high:.0f})"


def _degree(sure: float) -> str:
    return "high" if sure >= 0.9 else "fair" if sure >= 0.7 else "low"
