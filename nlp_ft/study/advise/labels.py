"""Whether more labels are the better advice: what the learning curve of the probe promises for them."""

from nlp_ft.study.advise.curves import RowCurve

WORTH = 1.5
"""Points that doubling the rows must bring to be worth a sentence."""
SHOWN = 2.0
"""So many standard errors must the power be above 0."""
BETTER_ADVICE = 3.0
"""Points of doubling from which labels come before the choice of a strategy."""
ROUND = 2
"""Digits of a number of rows."""


def labels_advice(curve: RowCurve | None, strategy_gain: float) -> tuple[bool, str]:
    """Say what more labels would bring.

    Args:
        curve: the learning curve of the probe; None if there is none.
        strategy_gain: points that the advised strategy is expected to bring over the next one.

    Returns:
        Whether that is the better advice, and a sentence.
    """
    if curve is None:
        return False, "more labels: not known, as there is no learning curve"
    gain = curve.gain(2.0)
    points, error = 100 * gain.value, 100 * gain.error
    power = f"error ~ rows^-{curve.power:.2f} ± {curve.power_error:.2f}"
    said = f"twice the rows would bring the probe {points:+.1f} ± {error:.1f} points ({power})"
    if points < WORTH or curve.power < SHOWN * curve.power_error:
        return False, f"more labels: no clear gain; {said}"
    more = curve.rows_for(points / 100)
    is_better = points >= BETTER_ADVICE and points > strategy_gain
    if is_better:
        return (
            True,
            f"gather more labels first: about {_rounded(more or 0):,} more rows for {points:.1f} points; {said}",
        )
    return False, f"more labels help: about {_rounded(more or 0):,} more rows for {points:.1f} points; {said}"


def _rounded(number: int) -> int:
    return round(number, ROUND - len(str(number))) if number else 0
