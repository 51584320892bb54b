"""Durations: what is read, what is refused with which advice, and how many steps they are."""

import math
import re
from typing import Literal

import pytest

from nlp_ft.durations import Duration

FORMS = "must be a duration such as 3ep (epochs), 200st (steps) or 10% (of the run)"


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("3ep", 3.0, "ep"),
        ("0.5ep", 0.5, "ep"),
        ("0ep", 0.0, "ep"),
        ("200st", 200.0, "st"),
        ("200.0st", 200.0, "st"),
        (" 12.5 % ", 12.5, "%"),
        ("100%", 100.0, "%"),
    ],
)
def test_a_duration_is_a_number_with_its_unit(text: str, value: float, unit: Literal["ep", "st", "%"]) -> None:
    assert Duration.parse(text) == Duration(value, unit)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (3, f"{FORMS}; did you mean 3ep or 3st?"),
        (0.5, f"{FORMS}; did you mean 0.5ep?"),
        (True, FORMS),
        ("3", FORMS),
        ("3 epochs", FORMS),
        ("-3ep", FORMS),
        ("ep", FORMS),
        ("1e3st", FORMS),
        ("3EP", FORMS),
        ("", FORMS),
        (None, FORMS),
        (["3ep"], FORMS),
        ("1.5st", "must be a whole number of steps"),
        ("100.5%", "must be at most 100%"),
        ("9" * 400 + "ep", "must be at most 1000000000ep"),
        ("1000000001st", "must be at most 1000000000st"),
        (10**400, FORMS),
        (float("nan"), FORMS),
        ("3²ep", FORMS),
        ("\u0663ep", FORMS),
    ],
)
def test_another_form_is_refused_with_the_right_one(wrong: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Duration.parse(wrong)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_duration_that_is_no_length_cannot_be_made(value: float) -> None:
    with pytest.raises(ValueError, match=r"^must be a number that is 0 or more, got "):
        Duration(value, "ep")


@pytest.mark.parametrize(
    ("text", "written"),
    [("3ep", "3ep"), ("3.0ep", "3ep"), ("0.25 ep", "0.25ep"), ("200st", "200st"), ("12.50%", "12.5%")],
)
def test_a_duration_is_written_in_its_shortest_form(text: str, written: str) -> None:
    assert str(Duration.parse(text)) == written


@pytest.mark.parametrize("text", ["3ep", "0.3333333333ep", "1234567st", "20000000st", "33.3333333%", "0.00001ep"])
def test_a_written_duration_reads_as_the_same(text: str) -> None:
    assert Duration.parse(str(Duration.parse(text))) == Duration.parse(text)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("3ep", 300),
        ("0.5ep", 50),
        ("0.501ep", 51),
        ("0.001ep", 1),
        ("200st", 200),
        ("10%", 100),
        ("0.19%", 1),
        ("0%", 0),
        ("100%", 1000),
    ],
)
def test_epochs_round_up_and_shares_round_down(text: str, steps: int) -> None:
    assert Duration.parse(text).steps(steps_per_epoch=100, total_steps=1000) == steps


@pytest.mark.parametrize(
    ("text", "steps"),
    # In binary floating point 0.55 * 100 is above 55, and 29 / 100 * 100 below 29.
    [("0.55ep", 55), ("1.1ep", 110), ("29%", 29), ("57%", 57), ("58%", 58)],
)
def test_whole_steps_are_exact_whatever_binary_rounding_says(text: str, steps: int) -> None:
    assert Duration.parse(text).steps(steps_per_epoch=100, total_steps=100) == steps


def test_what_was_multiplied_or_divided_before_is_off_by_no_step() -> None:
    assert [Duration(0.1 * number, "ep").steps(10) for number in range(8)] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [Duration(100 / 9 * number, "%").steps(1, 9) for number in range(9)] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert Duration(1e-12, "ep").steps(10) == 1
