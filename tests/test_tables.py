"""Tables, lines and numbers that fit the screen."""

import pytest

from nlp_ft.tables import short_count, short_rate, short_share, shortened, terminal_width, text_table, wrapped


def test_a_table_for_a_file_is_whole_and_for_a_screen_loses_the_middle_of_its_long_cells() -> None:
    rows = [["a label of many words", "1"], ["short", "22"]]
    assert text_table(["label", "rows"], rows, {1}).splitlines() == [
        "label                  rows",
        "---------------------  ----",
        "a label of many words     1",
        "short                    22",
    ]
    assert text_table(["label", "rows"], rows, {1}, width=18).splitlines() == [
        "label         rows",
        "------------  ----",
        "a lab...ords     1",
        "short           22",
    ]


def test_a_table_that_is_too_wide_all_the_same_is_divided_with_its_first_column_in_each_part() -> None:
    rows = [["full", "0.123456", "equal", "12.5"], ["lora", "0.5", "", "8"]]
    assert text_table(["", "accuracy", "verdict", "s"], rows, {1, 3}, width=22).splitlines() == [
        "      accuracy",
        "----  --------",
        "full  0.123456",
        "lora       0.5",
        "",
        "      verdict     s",
        "----  -------  ----",
        "full  equal    12.5",
        "lora              8",
    ]


def test_a_wide_character_counts_as_two_columns() -> None:
    assert text_table(["x", "y"], [["語語", "1"], ["ab", "2"]]).splitlines()[2:] == ["語語  1", "ab    2"]
    assert shortened("語語語語語語語語", 9) == "語...語語"


def test_a_long_line_is_broken_at_blanks_and_indented_and_a_word_is_never_broken() -> None:
    text = "short\n  effect: one two three four five\n" + "x" * 30
    assert wrapped(text, 20).splitlines() == ["short", "  effect: one two", "    three four five", "x" * 30]


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (4620, "4,620"),
        (9999, "9,999"),
        (10_000, "10.0K"),
        (148_610, "149K"),
        (999_499, "999K"),
        (999_500, "1.00M"),
        (1_774_464, "1.77M"),
        (22_569_996, "22.6M"),
        (1_500_000_000, "1.50B"),
    ],
)
def test_a_count_has_three_digits_and_a_unit(number: int, shown: str) -> None:
    assert short_count(number) == shown


@pytest.mark.parametrize(("rate", "shown"), [(3.2e-4, "3.2e-4"), (0.0, "0"), (1e-12, "1.0e-12"), (1.0, "1.0e0")])
def test_a_rate_has_a_short_exponent(rate: float, shown: str) -> None:
    assert short_rate(rate) == shown


@pytest.mark.parametrize(("columns", "width"), [("132", 132), ("10", 40), ("0", 80), ("", 80)])
def test_the_width_is_that_of_the_terminal_and_80_without_one(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.__stdout__", None)
    assert terminal_width() == width


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (1, 1, "100.0%"),
        (79, 1000, "7.9%"),
        (1, 2000, "0.1%"),
        (4620, 22_600_000, "0.02%"),
        (3, 10**8, "0.000003%"),
        (0, 9, "0.0%"),
    ],
)
def test_a_share_that_is_not_zero_is_never_shown_as_zero(part: int, whole: int, shown: str) -> None:
    assert short_share(part, whole) == shown


def test_a_divided_table_has_room_for_names() -> None:
    found = text_table(["run", "a", "b"], [["a-name-of-20-letters", "1" * 30, "2" * 40]], width=60)
    assert found.splitlines()[2] == f"a-name-of-20-letters  {'1' * 30}"
    longer = text_table(["run", "a", "b"], [["a-name-that-has-29-letters-all", "1" * 30, "2" * 40]], width=60)
    assert longer.splitlines()[2] == f"a-name-th...ters-all  {'1' * 30}"
