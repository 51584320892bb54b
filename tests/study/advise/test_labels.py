"""When more labels are the better advice."""

from nlp_ft.study.advise.curves import RowCurve
from nlp_ft.study.advise.labels import labels_advice


def test_a_steep_curve_sends_people_for_labels_first() -> None:
    # 20 % of errors at 1,000 rows; half of them are left with four times the rows.
    curve = RowCurve(0.2 * 1000**0.5, 0.5, 0.05, 1_000)
    assert labels_advice(curve, 1.0) == (
        True,
        "gather more labels first: about 1,000 more rows for 5.9 points; twice the rows would bring the probe +5.9 ± "
        "0.5 points (error ~ rows^-0.50 ± 0.05)",
    )


def test_a_strategy_that_gains_more_comes_first() -> None:
    is_first, said = labels_advice(RowCurve(0.2 * 1000**0.5, 0.5, 0.05, 1_000), 8.0)
    assert (is_first, said[:46]) == (False, "more labels help: about 1,000 more rows for 5.")


def test_a_flat_or_uncertain_curve_promises_nothing() -> None:
    for curve in (RowCurve(0.2, 0.0, 0.05, 1_000), RowCurve(0.2 * 1000**0.5, 0.5, 0.3, 1_000)):
        assert labels_advice(curve, 0.0)[1].startswith("more labels: no clear gain; twice the rows")


def test_without_a_curve_it_is_not_known() -> None:
    assert labels_advice(None, 0.0) == (False, "more labels: not known, as there is no learning curve")
