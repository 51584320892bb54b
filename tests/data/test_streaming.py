"""Texts in chunks: of every format the same ones that reading the whole file gives."""

import csv
import json
from pathlib import Path

import datasets
import pytest
from datasets import Dataset

from nlp_ft.data import streaming
from nlp_ft.data.sources import load_files
from nlp_ft.data.streaming import estimated_rows, stream_texts
from nlp_ft.errors import DataError

TEXTS = ["NA", "007", 'a "quoted" text', "two\nlines", "", "ü, comma", "null", "1.50", " spaces ", "last"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def write(folder: Path, name: str) -> str:
    """TEXTS with a number in front, in the format of the name."""
    file = folder / name
    if name.endswith(("csv", "tsv")):
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, delimiter="\t" if name.endswith("tsv") else ",")
            writer.writerows([["number", "text"], *enumerate(TEXTS)])
    elif name.endswith("jsonl"):
        file.write_text("".join(json.dumps({"number": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    else:
        rows = Dataset.from_dict({"number": range(len(TEXTS)), "text": TEXTS})
        rows.to_parquet(str(file)) if name.endswith("parquet") else rows.save_to_disk(str(file))
    return str(file)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "saved"])
def test_chunks_hold_the_texts_of_the_whole_file_in_their_order(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "CHUNK_ROWS", 4)
    file = write(tmp_path, name)
    chunks = [chunk for [chunk], _ in stream_texts(file, "--file", ["text"])]
    assert [len(chunk) for chunk in chunks] == [4, 4, 2]
    assert [text for chunk in chunks for text in chunk] == TEXTS == load_files(file, "--file")["text"][:]


def test_a_column_that_changes_its_type_on_the_way_hinders_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A chunk that holds rows of both kinds.
    monkeypatch.setattr(streaming, "CHUNK_ROWS", 6000)
    file = tmp_path / "a.csv"
    # Of 10,000 rows that pandas reads at once, the first have numbers and the last do not.
    rows = [f"{i if i < 10_000 else 'x'},text {i}\n" for i in range(10_002)]
    file.write_text("number,text\n" + "".join(rows))
    chunks = [chunk for [chunk], _ in stream_texts(str(file), "--file", ["text"])]
    assert [text for chunk in chunks for text in chunk] == [f"text {i}" for i in range(10_002)]


def test_two_columns_of_several_files_stay_side_by_side(tmp_path: Path) -> None:
    for name, word in (("1.jsonl", "one"), ("2.jsonl", "two")):
        (tmp_path / name).write_text(json.dumps({"a": word, "b": None, "c": 0}) + "\n")
    [(columns, rows)] = stream_texts(str(tmp_path / "*.jsonl"), "--file", ["b", "a"])
    assert columns == [["", ""], ["one", "two"]]
    assert rows == [{"a": "one", "b": None, "c": 0}, {"a": "two", "b": None, "c": 0}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\n", "--file (a.csv) has no rows"),
        ("words,label\nx,y\n", "--file: a.csv has no column 'text'; it has: words, label"),
        ("text\nx,y,z\n", "--file: a.csv cannot be read as csv: Expected 1 fields in line 2, saw 3"),
        ("text,label\nx,y\nx,y,z\n", "--file: a.csv cannot be read as csv: Expected 2 fields in line 3, saw 3"),
    ],
)
def test_what_cannot_be_read_is_said_as_of_a_whole_file(
    content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text(content)
    with pytest.raises(DataError) as caught:
        list(stream_texts("a.csv", "--file", ["text"]))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "rows"), [("a.csv", 11), ("a.tsv", 11), ("a.jsonl", 10), ("a.parquet", 10), ("saved", None)]
)
def test_rows_are_counted_without_parsing_them(name: str, rows: int | None, tmp_path: Path) -> None:
    # One text of the CSV has two lines.
    assert estimated_rows(write(tmp_path, name), "--file") == rows
