"""Reading raw splits: every format and place, texts as they stand in the file, and errors that say what is there."""

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset, DatasetDict

from nlp_ft.data.file_advice import TEXT_FILES
from nlp_ft.data.sources import load_files, load_raw_splits
from nlp_ft.errors import DataError
from nlp_ft.recipe.text import TextDataSection

ROWS = [{"text": "one, with a comma", "label": "a"}, {"text": 'two\nlines "quoted"', "label": "b"}]
TEXTS = [row["text"] for row in ROWS]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def written(file: Path, content: str | bytes) -> str:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(file)


def csv_file(folder: Path, name: str, *lines: str) -> str:
    return written(folder / name, "\n".join(["text,label,part", *lines]) + "\n")


def the_error(where: Any, field: str = "data.train") -> str:
    with pytest.raises(DataError) as caught:
        load_files(where, field)
    return str(caught.value)


def the_error_of(**data: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_raw_splits(TextDataSection(**data))
    return str(caught.value)


def write_rows(folder: Path, suffix: str) -> str:
    file = str(folder / f"rows{suffix}")
    rows = Dataset.from_list(ROWS)
    if suffix in (".csv", ".tsv"):
        rows.to_csv(file, sep="\t" if suffix == ".tsv" else ",")
    elif suffix == ".parquet":
        rows.to_parquet(file)
    elif suffix == ".jsonl":
        rows.to_json(file)
    else:
        written(Path(file), json.dumps(ROWS))
    return file


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_every_format_gives_the_same_rows(suffix: str, tmp_path: Path) -> None:
    rows = load_files(write_rows(tmp_path, suffix), "data.train")
    assert rows.to_list() == ROWS


def test_several_files_come_in_the_order_given_and_a_glob_in_the_order_of_names(tmp_path: Path) -> None:
    first, second = csv_file(tmp_path, "1.csv", "x,a,p"), csv_file(tmp_path, "2.csv", "y,b,q")
    assert load_files([second, first], "data.train")["text"][:] == ["y", "x"]
    assert load_files(str(tmp_path / "*.csv"), "data.train")["text"][:] == ["x", "y"]
    assert load_files([second, str(tmp_path / "1*.csv")], "data.train")["text"][:] == ["y", "x"]


def test_a_file_that_is_named_twice_is_refused_and_not_read_twice(tmp_path: Path) -> None:
    first, every = csv_file(tmp_path, "1.csv", "x,a,p"), str(tmp_path / "*.csv")
    (tmp_path / "2.csv").symlink_to(first)
    (tmp_path / "3.csv").mkdir()
    for files, named in (
        ([first, every], first),
        (every, first),
        ([first, str(tmp_path / "sub" / ".." / "1.csv")], first),
    ):
        (tmp_path / "sub").mkdir(exist_ok=True)
        assert the_error(files) == f"data.train: {named} is named twice, so its rows would count twice; name it once"
    folder = tmp_path / "3.csv"
    assert the_error([first, str(folder)]) == f"data.train: {folder} is a folder, and others are files; give one kind"


def test_saved_dataset_folders_are_read_one_or_several(tmp_path: Path) -> None:
    for name, row in zip("ab", ROWS):
        Dataset.from_list([row]).save_to_disk(tmp_path / name)
    assert load_files(str(tmp_path / "a"), "data.train").to_list() == ROWS[:1]
    assert load_files([str(tmp_path / "a"), str(tmp_path / "b")], "data.train").to_list() == ROWS


def test_a_saved_dataset_dict_is_a_source_of_splits(tmp_path: Path) -> None:
    folder = str(tmp_path / "d")
    DatasetDict(train=Dataset.from_list(ROWS), dev=Dataset.from_list(ROWS[:1])).save_to_disk(folder)
    raw = load_raw_splits(TextDataSection(source=folder, validation="dev"))
    assert {split: rows.to_list() for split, rows in raw.items()} == {"train": ROWS, "validation": ROWS[:1]}
    assert the_error_of(source=folder, train="tran") == (
        f"data.train: {folder} has no split tran; it has: train, dev; did you mean train?"
    )
    assert the_error(folder) == f"data.train: {folder} holds the splits train, dev; name the folder in data.source"
    assert the_error_of(source=folder, train=["train", "dev"]) == (
        "data.train must be one split of data.source, got ['train', 'dev']"
    )


@pytest.mark.parametrize("several", [False, True])
def test_a_column_tells_the_split_of_each_row(several: bool, tmp_path: Path) -> None:
    lines = ["x,a,tr", "y,b,te", "z,a,tr"]
    source: Any = csv_file(tmp_path, "all.csv", *lines)
    if several:
        source = [csv_file(tmp_path, "1.csv", *lines[:2]), csv_file(tmp_path, "2.csv", lines[2])]
    raw = load_raw_splits(TextDataSection(source=source, split_column="part", train="tr", test="te"))
    assert {split: rows["text"][:] for split, rows in raw.items()} == {"train": ["x", "z"], "test": ["y"]}


def test_a_column_of_whole_numbers_tells_the_split_too(tmp_path: Path) -> None:
    source = csv_file(tmp_path, "folds.csv", "x,a,1", "y,b,2", "z,a,1")
    raw = load_raw_splits(TextDataSection(source=source, split_column="part", train="1", test="2"))
    assert {split: rows["text"][:] for split, rows in raw.items()} == {"train": ["x", "z"], "test": ["y"]}


def test_a_wrong_split_column_or_value_names_what_there_is(tmp_path: Path) -> None:
    source = csv_file(tmp_path, "all.csv", "x,a,train", "y,b,test")
    assert the_error_of(source=source, split_column="prt") == (
        "data.split_column: there is no column 'prt'; the columns are: text, label, part; did you mean part?"
    )
    assert the_error_of(source=source, split_column="part", train="trian") == (
        "data.train: no row has 'trian' in column 'part'; it holds: train, test; did you mean train?"
    )


def test_spellings_of_a_split_that_would_be_left_out_are_refused(tmp_path: Path) -> None:
    source = csv_file(tmp_path, "all.csv", "x,a,train", "y,b,Train ", "z,b,test")
    assert the_error_of(source=source, split_column="part") == (
        "data.train: column 'part' holds 'train', 'Train ', which differ in case, blanks or invisible characters "
        "alone, so rows of one would be left out; write them alike"
    )


def test_a_file_inside_an_installed_package_can_be_named() -> None:
    source = "package:nlp_ft/examples/support_messages.csv"
    data = TextDataSection(source=source, split_column="split", validation="validation", test="test", label="category")
    raw = load_raw_splits(data)
    assert {split: len(rows) for split, rows in raw.items()} == {"train": 936, "validation": 132, "test": 276}
    missing = "package:nlp_ft/examples/none.csv"
    assert the_error(missing) == f"{missing}: the package nlp_ft holds no examples/none.csv"
    assert the_error("package:no_such_one/a.csv") == (
        "package:no_such_one/a.csv: the package no_such_one is not installed; try: pip install no-such-one"
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize(
    "texts",
    [
        ["NA", "null", "", "None", "nan", "N/A", "a text"],
        ["007", "1e3", "1.50", "-0"],
        ["42", "7"],
        ["True", "False"],
        ["2020-01-01", "12:30"],
    ],
)
def test_texts_stay_as_they_stand_in_the_file(texts: list[str], suffix: str, tmp_path: Path) -> None:
    separator = "\t" if suffix == ".tsv" else ","
    lines = [f"{text}{separator}x" for text in texts]
    file = written(tmp_path / f"t{suffix}", "\n".join([f"text{separator}label", *lines]) + "\n")
    raw = load_raw_splits(TextDataSection(train=file))
    assert ["" if text is None else str(text) for text in raw["train"]["text"]] == texts


def test_a_number_like_text_after_ten_thousand_words_stays_as_it_is(tmp_path: Path) -> None:
    # pandas reads 10,000 rows at a time and guesses the type of each part anew.
    file = csv_file(tmp_path, "late.csv", *["word,a,p"] * 10_000, "007,a,p")
    assert load_raw_splits(TextDataSection(train=file))["train"][10_000]["text"] == "007"


def test_json_texts_stay_as_they_are(tmp_path: Path) -> None:
    texts = ["NA", "null", "", "007", "x\ny"]
    content = "".join(json.dumps({"text": text, "label": 1}) + "\n" for text in texts)
    assert load_files(written(tmp_path / "t.jsonl", content), "data.train")["text"][:] == texts


def test_a_quoted_line_break_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    file = written(tmp_path / "w.csv", b'\xef\xbb\xbftext,label\r\n"first\nsecond, third",a\r\nlast,b\r\n')
    assert load_files(file, "data.train").to_list() == [
        {"text": "first\nsecond, third", "label": "a"},
        {"text": "last", "label": "b"},
    ]


def test_what_is_not_there_is_named_with_the_place_and_the_nearest_name(tmp_path: Path) -> None:
    csv_file(tmp_path, "train.csv", "x,a,p")
    wrong, pattern = str(tmp_path / "trian.csv"), str(tmp_path / "none*.csv")
    assert the_error(wrong) == (
        f"data.train: there is no {wrong} (looked for {wrong}); did you mean {tmp_path / 'train.csv'}?"
    )
    assert the_error(pattern) == f"data.train: there is no {pattern} (looked for {pattern})"
    assert the_error_of(source=wrong).startswith(f"data.source: there is no {wrong}")
    assert the_error(str(tmp_path)) == (
        f"data.train: {tmp_path} is a folder, but not one written by Dataset.save_to_disk; {TEXT_FILES}"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"text": "txt"}, "data.text is 'txt', but the columns are: text, label, part; did you mean text?"),
        ({"text": ["text", "zz"]}, "data.text is 'zz', but the columns are: text, label, part"),
        ({"label": "lable"}, "data.label is 'lable', but the columns are: text, label, part; did you mean label?"),
    ],
)
def test_a_missing_column_is_named_with_the_nearest(data: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = csv_file(tmp_path, "a.csv", "x,a,p")
    assert the_error_of(train=file, **data) == f"data.train ({file}): {message}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "data.train: FILE is empty"),
        ("a.jsonl", " \n\n", "data.train: FILE is empty"),
        ("a.csv", b"text\x00\x01\x02", "data.train: FILE is a binary file, not text"),
        ("a.csv", b"text,label\n\xff\xfe,a\n", r"data.train: FILE cannot be read as csv: line 2 is not UTF-8 \(byte"),
        ("a.csv", "text,label\nx,a\ny,b,c\n", "data.train: FILE cannot be read as csv: .*Expected 2 fields in line 3"),
        ("a.jsonl", "{bad\n", "data.train: FILE cannot be read as json: line 1: Expecting property name"),
        ("a.parquet", "not parquet", "data.train: FILE cannot be read as parquet: Parquet magic bytes not found"),
        ("a.csv", "text,label\n", r"data.train \(FILE\) has no rows"),
        ("a.json", "[]", r"data.train \(FILE\) has no rows"),
        ("a.txt", "x", "data.train: files must all be one of .csv, .tsv, .jsonl, .json, .parquet, got .txt$"),
    ],
)
def test_a_file_that_cannot_be_trained_on_is_refused(
    name: str, content: str | bytes, message: str, tmp_path: Path
) -> None:
    file = written(tmp_path / name, content)
    assert re.match(message.replace("FILE", re.escape(file)), the_error_of(train=file))


def test_rows_longer_than_the_header_are_refused_and_not_shifted(tmp_path: Path) -> None:
    # pandas would take the first of three fields as an index, and the second as the text.
    file = written(tmp_path / "a.csv", "text,label\nhello, world,a\nbye, world,b\n")
    assert the_error(file).startswith(f"data.train: {file} cannot be read as csv: ")


def test_formats_are_not_mixed(tmp_path: Path) -> None:
    files = [csv_file(tmp_path, "a.csv", "x,a,p"), written(tmp_path / "b.jsonl", '{"text": "y", "label": "b"}\n')]
    assert the_error(files) == (
        "data.train: files must all be one of .csv, .tsv, .jsonl, .json, .parquet, got .csv, .jsonl"
    )


def test_a_source_that_is_one_file_or_one_unnamed_split_says_what_to_do(tmp_path: Path) -> None:
    file, folder = csv_file(tmp_path, "a.csv", "x,a,p"), str(tmp_path / "saved")
    Dataset.from_list(ROWS).save_to_disk(folder)
    assert the_error_of(source=file) == (
        f"data.source: {file} is a file; name its split_column, or give the files in data.train"
    )
    assert the_error_of(source=folder) == f"data.train: {folder} has no split train; it has: one unnamed split"
