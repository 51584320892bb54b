"""What is quoted in a message or a table can neither move the cursor nor forge a line."""

import pytest

from nlp_ft.errors import DataError, NlpFtError, RecipeError, listed, printable
from nlp_ft.tables import text_table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é, 漢字, 🙂, a\u00a0b", "plain, é, 漢字, 🙂, a\u00a0b"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("one\ntwo\r\tthree", "one\\ntwo\\r\\tthree"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\u202eright to left", "\\u202eright to left"),
        ("\u2028\u0085\x00", "\\u2028\\x85\\x00"),
        ("lone \ud800", "lone \\ud800"),
        ("", ""),
    ],
)
def test_controls_and_invisible_characters_are_spelled_and_all_else_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_line_breaks_stay_where_a_message_has_several_lines() -> None:
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"
    assert str(RecipeError("one\ntwo\x07")) == "one\ntwo\\x07"
    assert str(NlpFtError("plain")) == "plain"


def test_an_error_about_data_is_one_line_whatever_it_quotes() -> None:
    assert str(DataError("label 'a\nerror: forged\x1b[2J'")) == "label 'a\\nerror: forged\\x1b[2J'"


def test_a_label_forges_no_line_of_a_table() -> None:
    table = text_table(["label", "rows"], [["a\nb    9", "1"]], right={1})
    assert table.splitlines() == ["label      rows", "---------  ----", "a\\nb    9     1"]


def test_a_list_of_names_ends_and_says_how_many_more_there_are() -> None:
    assert listed("abc") == listed(iter("abc"), 3) == "a, b, c"
    assert listed("abcde", 3) == "a, b, c and 2 more"
    assert listed(["a", "b" * 201]) == f"a, {'b' * 200}..."
