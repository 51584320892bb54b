"""A file in another format, encoding or place than those that are read: the message says what to do."""

from pathlib import Path

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
        ("a.csv", b"text\tlabel\nred\ta\n", r".*; the fields look divided by tabs, and must be by commas in \.csv"),
        ("a.tsv", ROWS.encode(), "but the columns are: text,label; the fields look divided by commas, and must"),
        ("a.csv", ROWS.encode("utf-16"), "a.csv is in UTF-16; save it in UTF-8"),
        ("a.csv", b"text,label\nred,a\nr\xeat,b\n", r"line 3 is not UTF-8 \(byte 0xea\); save it in UTF-8, as pandas"),
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
