"""A file in another format, encoding or place than those that are read: the message says what to do."""

from pathlib import Path

import pandas
import pytest
from datasets import Dataset

from nlp_ft.data.number_labels import check_numbers
from nlp_ft.data.sources import load_files
from nlp_ft.errors import DataError

COLUMNS = [("text", "text"), ("label", "label")]
ROWS = "text,label\nred,a\nblue,b\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            b"text;label\nred;a\n",
            "but the columns are: text;label; the fields look divided by semicolons",
        ),
        ("a.csv", b"text\tlabel\nred\ta\n", r".*; the fields look divided by tabs: such a file ends in \.tsv$"),
        (
            "a.tsv",
            ROWS.encode(),
            "text,label; the fields look divided by commas: such a file ends in .csv$",
        ),
        ("a.csv", ROWS.encode("utf-16"), "a.csv is in UTF-16; write it anew in Python: pandas.read"),
        (
            "a.csv",
            b"text,label\nred,a\nr\xeat,b\n",
            r"line 3 is not UTF-8 \(byte 0xea\); write it anew in Python: pandas.read_csv",
        ),
        (
            "a.csv",
            b"text,label\nwell, yes,a\n",
            "Expected 2 fields in line 2, saw 3; write a value with a ",
        ),
        (
            "a.csv",
            b"3,the cat sat down\n4,no\n",
            "the columns are: 3, the cat sat down; if its first line is a row, begin",
        ),
        (
            "eng.train",
            b"EU I-ORG\n",
            "got .train; a CoNLL file of words and tags ends in .conll, .bio, .iob or .txt: ren",
        ),
        ("a.csv.gz", b"x", "got .gz; unpack it first$"),
        (
            "SMSSpamCollection",
            b"ham\tgo\n",
            "got none; a table ends in .csv if commas divide its columns, and in .tsv ",
        ),
        (
            "a.tsv",
            "text\tlabel\ncafé\ta\nrosé\tb\n".encode() + b"th\xe9\tb\n",
            r"line 4 is not UTF-8 \(byte 0xe9\), and most of the file is: 1 line\(s\) are damaged; correct or remove",
        ),
        (
            "a.tsv",
            b'label\ttext\n0\tred\n1\t"Red\n0\tblue\n1\tgreen"\n',
            "a quotation mark makes lines 3 to 5 one row, though each has 2 fields; write a value with",
        ),
        (
            "a.xlsx",
            b"x",
            "got .xlsx; write it as CSV in UTF-8, or read it with pandas and give",
        ),
        ("a.ndjson", b"x", r"got .ndjson; JSON Lines is called .jsonl here$"),
        (
            "a.jsonl",
            b'{"text": "red", "label": 1}\n{"text": "blue", "label": 1.5}\n',
            "'label' is a number, and a whole number in the rows before it; write all as 1.0, or all as 1$",
        ),
    ],
)
def test_what_to_do_with_another_file_is_said(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_files(str(tmp_path / name), "data.train", COLUMNS)


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        (
            "mrpc.tsv",
            '\ufefflabel\ttext\n0\t"Red" , he said .\n1\t"Blue\n007\tNA\n'.encode(),
            [('"Red" , he said .', "0"), ('"Blue', "1"), ("NA", "007")],
        ),
        ("sms.csv", b"label,text\n0,\xa350 caf\xe9\n1,NA\n", [("£50 café", "0"), ("NA", "1")]),
        ("de.csv", b'label;text\n0;"red, or; green"\n1;NA\n', [("red, or; green", "0"), ("NA", "1")]),
        ("excel.csv", 'label\ttext\n0\t"red, ""blue"""\n1\tNA\n'.encode("utf-16"), [('red, "blue"', "0"), ("NA", "1")]),
    ],
)
def test_the_line_of_python_in_a_message_writes_the_file_so_that_it_is_read_as_it_was_meant(
    name: str, content: bytes, rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="write it anew in Python: ") as error:
        load_files(str(tmp_path / name), "data.train")
    exec(str(error.value).rpartition("in Python: ")[2], {"pandas": pandas})  # noqa: S102
    found = load_files(str((tmp_path / name).with_suffix(".new.csv")), "data.train", COLUMNS)
    assert list(zip(found["text"], found["label"], strict=True)) == rows


def test_a_quoted_text_of_several_lines_with_tabs_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('label\ttext\n0\t"one\ttab\nno tab\n1\ttab"\n')
    assert load_files(str(tmp_path / "a.tsv"), "data.train")["text"][:] == ["one\ttab\nno tab\n1\ttab"]


def test_an_address_is_to_be_downloaded() -> None:
    with pytest.raises(
        DataError, match=r"there is no https://a\.b/c\.csv \(.*\); download it first, and name the file$"
    ):
        load_files("https://a.b/c.csv", "data.train")


def test_the_number_that_stands_for_a_missing_one_is_explained() -> None:
    for value, explained in ((-100.0, True), (float("inf"), False)):
        with pytest.raises(DataError) as found:
            check_numbers({"train": Dataset.from_dict({"label": [1.0, value]})}, "label")
        assert ("; -100 stands for a missing number here, so add a constant" in str(found.value)) == explained


def test_numbers_whose_last_digits_are_lost_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    check_numbers({"train": Dataset.from_dict({"label": [1990, 2020, 2026]})}, "label")
    check_numbers({"test": Dataset.from_dict({"label": ["0.1", "0.25", "1e-3"]})}, "label")
    check_numbers({"test": Dataset.from_dict({"label": [16_777_217]})}, "label")
    assert capsys.readouterr().err == ""
    check_numbers({"train": Dataset.from_dict({"label": [1_700_000_000, 1_700_000_060, 1_700_000_130]})}, "label")
    assert " ".join(capsys.readouterr().err.split()) == (
        "look: numbers are kept with 7 digits, so 1700000060 in column 'label' of train becomes 1700000000: subtract a "
        "constant, such as 1.7e+09, from all numbers"
    )
