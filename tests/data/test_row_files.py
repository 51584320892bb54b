"""One strict reader: labels and texts are what stands in the file, and what is damaged or ambiguous is refused."""

import json
import os
import re
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset

from nlp_ft.data.row_files import RowFiles
from nlp_ft.data.sources import load_files, load_raw_splits
from nlp_ft.data.streaming import stream_texts
from nlp_ft.data.text_labels import ClassLabels
from nlp_ft.errors import DataError
from nlp_ft.recipe.text import TextDataSection


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def section(file: str, **data: Any) -> TextDataSection:
    return TextDataSection(**{"train": file, **data})


def labels_of(*values: str) -> list[str]:
    Path("a.csv").write_text("text,label\n" + "".join(f"t{i},{value}\n" for i, value in enumerate(values)))
    return list(ClassLabels.load(section("a.csv"))[1].names)


def the_error(content: bytes | str, name: str = "a.csv", **data: Any) -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        ClassLabels.load(section(name, **data))
    return str(caught.value)


def write_parquet(**columns: Any) -> str:
    pyarrow.parquet.write_table(pyarrow.table(columns), "a.parquet")
    return "a.parquet"


@pytest.mark.parametrize(
    "values",
    [
        ("007", "7"),
        ("0042", "42"),
        ("+1", "1"),
        ("01", "1"),
        ("no", "yes"),
        ("False", "True", "false", "true"),
        ("NA", "None", "nan", "null"),
        ("1.0", "1.0.1"),
        ("1000", "1_000"),
    ],
)
def test_a_label_of_a_csv_is_the_text_of_the_file(values: tuple[str, ...]) -> None:
    assert labels_of(*values) == list(values)


def test_labels_that_are_numbers_keep_the_order_of_numbers() -> None:
    assert labels_of("10", "9", "-1", "2") == ["-1", "2", "9", "10"]


def test_a_word_after_twelve_thousand_numbers_is_a_label_like_any_other() -> None:
    assert labels_of(*["1", "2"] * 6000, "word") == ["1", "2", "word"]


@pytest.mark.parametrize("blank", [" a", "a ", "a\t", "\u00a0a"])
def test_a_label_with_a_blank_at_an_end_is_refused_with_it_shown(blank: str) -> None:
    message = the_error(f"text,label\nx,a\ny,{blank}\n")
    assert message.startswith(f"train has the label {blank!r} in column 'label': a blank at its beginning or end")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label,text\nx,a,z\ny,b,z\n", "data.train: a.csv has the column 'text' 2 times; rename all but one"),
        ("text,label\nx\ny,b\n", "data.train: a.csv cannot be read as csv: Expected 2 fields in line 2, saw 1"),
        (
            'text,label\n"never closed,a\ny,b\nz,a\n',
            "data.train: a.csv cannot be read as csv: a quotation mark is opened in line 2 and never closed; ",
        ),
        (
            'text,label\nw,b\n"open,a\ny,b\n"z",a\n',
            "data.train: a.csv cannot be read as csv: the row that begins in line 3 goes on after a closing quotation",
        ),
        ("text,label\nx,0.5\ny,1\n", "labels must be strings or whole numbers; column 'label' of train"),
        (
            "text,label\n" + "word word,a\n" * 1000 + "x\0y,b\n",
            "data.train: a.csv cannot be read as csv: line 1002 holds a NUL byte",
        ),
    ],
)
def test_a_csv_that_could_be_read_in_two_ways_is_refused(content: str, message: str) -> None:
    assert the_error(content).startswith(message)


def test_blank_lines_between_rows_of_several_columns_are_no_rows() -> None:
    Path("a.csv").write_text("text,label\n\nx,a\n\n\ny,b\n\n")
    assert load_raw_splits(section("a.csv"))["train"].to_list() == [
        {"text": "x", "label": "a"},
        {"text": "y", "label": "b"},
    ]


def test_a_blank_line_of_one_column_is_an_empty_text_so_that_rows_stay_in_line() -> None:
    Path("a.csv").write_text("text\nx\n\ny\n")
    assert [text for [chunk], _ in stream_texts("a.csv", "--file", ["text"]) for text in chunk] == ["x", "", "y"]


def test_twenty_thousand_labels_are_refused() -> None:
    message = the_error("text,label\n" + "".join(f"t,{i}\n" for i in range(20_000)))
    assert message.startswith("data.label: column 'label' of train has 20,000 different values, more than 10,000")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"label": "text"}, "data.text and data.label are one column, 'text'; each needs its own"),
        ({"label_names": ["a", "b "]}, "data.label_names: 'b ' is blank, or begins or ends with a blank"),
    ],
)
def test_columns_and_names_that_make_no_sense_are_refused(data: dict[str, Any], message: str) -> None:
    assert the_error("text,label\nx,a\ny,a\n", **data).startswith(message)


@pytest.mark.parametrize(
    ("texts", "held"),
    [
        (pyarrow.array([b"x", b"y"]), "binary"),
        (pyarrow.array([["x"], ["y"]]), "List(Value('string'))"),
        (pyarrow.array([1, 2]), "int64"),
        (pyarrow.array([1, 2], pyarrow.date32()), "date32"),
        (pyarrow.array([{"a": "x"}, {"a": "y"}]), "{'a': Value('string')}"),
    ],
)
def test_a_column_that_holds_no_texts_is_refused_and_not_spelled_out(texts: pyarrow.Array, held: str) -> None:
    file = write_parquet(text=texts, label=["a", "b"])
    expected = f"(a.parquet): data.text is 'text', a column of {held}, not of texts; write it as text"
    with pytest.raises(DataError) as caught:
        load_raw_splits(section(file))
    assert str(caught.value) == f"data.train {expected}"
    with pytest.raises(DataError) as caught:
        list(stream_texts(file, "--file", ["text"]))
    assert str(caught.value) == f"--file {expected}"


def write_lines(*rows: Any) -> str:
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "a.jsonl"


@pytest.mark.parametrize(
    ("value", "held"), [(5, "a whole number"), (True, "true or false"), (["x"], "a list"), ({"a": 1}, "an object")]
)
def test_one_value_of_another_type_in_json_lines_is_named_by_its_line(value: Any, held: str) -> None:
    file = write_lines({"text": "x", "label": "a"}, {"text": "y", "label": "b"}, {"text": value, "label": "a"})
    with pytest.raises(DataError) as caught:
        list(stream_texts(file, "--file", ["text"]))
    assert str(caught.value) == (
        f"--file: a.jsonl cannot be read as json: line 3: 'text' is {held}, and a text in the rows before it"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x", "label": "a", "text": "y"}', "line 1: the key 'text' is given twice"),
        ('["x", "a"]', "row 0 is a text, not an object"),
        ('{"text": "x", "label": "a"}\n[1]', "line 2 is a list, not an object"),
        (
            '{"text": "\\ud800", "label": "a"}',
            "line 1 to line 1: 'text' holds a value that cannot be stored: half",
        ),
        ('{"text": "x", "label": ' + "9" * 30 + "}", "line 1 to line 1: 'label' holds a value that cannot be stored"),
        ("[" * 100_000, "the list is nested too deeply"),
    ],
)
def test_json_that_cannot_be_kept_as_it_is_is_refused(line: str, message: str) -> None:
    assert the_error(line + "\n", "a.jsonl").startswith(f"data.train: a.jsonl cannot be read as json: {message}")


def test_json_columns_that_nobody_asks_for_may_hold_anything() -> None:
    rows = [{"text": "x", "label": 1, "more": [1]}, {"text": "y", "label": 2, "more": "z"}, {"label": 1}]
    assert load_raw_splits(section(write_lines(*rows)))["train"].to_list() == [
        {"text": "x", "label": 1},
        {"text": "y", "label": 2},
        {"text": None, "label": 1},
    ]


def test_parquet_of_a_filtered_frame_is_read_without_its_index() -> None:
    frame = pandas.DataFrame({"text": ["x", "y", "y", "z"], "label": ["a", "b", "b", "a"]})
    frame[[True, False, True, True]].to_parquet("a.parquet")
    assert "__index_level_0__" in pyarrow.parquet.read_schema("a.parquet").names
    assert load_raw_splits(section("a.parquet"))["train"].to_list() == [
        {"text": "x", "label": "a"},
        {"text": "y", "label": "b"},
        {"text": "z", "label": "a"},
    ]


def test_parquet_of_categories_holds_their_names() -> None:
    pandas.DataFrame({"text": ["x", "y"], "label": pandas.Categorical(["b", "a"])}).to_parquet("a.parquet")
    assert load_raw_splits(section("a.parquet"))["train"]["label"][:] == ["b", "a"]


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_parquet_that_is_cut_is_refused(kept: float) -> None:
    whole = Path(write_parquet(text=["x"] * 1000, label=["a", "b"] * 500)).read_bytes()
    message = the_error(whole[: int(len(whole) * kept)], "b.parquet")
    assert message.startswith("data.train: b.parquet cannot be read as parquet: ")


@pytest.mark.parametrize("name", ["a[v1].csv", "a?.csv", "a**.csv", "x::a.csv", "zip:a.csv"])
def test_a_file_that_exists_is_read_whatever_pattern_its_name_would_be(name: str) -> None:
    for other in ("av.csv", "a1.csv", "ab.csv", "a.csv"):
        Path(other).write_text("text,label\nother,a\n")
    Path(name).write_text("text,label\nx,a\ny,b\n")
    assert load_raw_splits(section(name))["train"]["text"][:] == ["x", "y"]
    assert [chunk for chunk, _ in stream_texts(name, "--file", ["text"])] == [[["x", "y"]]]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (" ", "f: a path must not be blank, got ' '"),
        ("a\0.csv", r"f: 'a\x00.csv' can be no path"),
        ("a\ud800.csv", r"f: 'a\ud800.csv' can be no path"),
        ("~/no_such.csv", f"f: there is no ~/no_such.csv (looked for {Path.home()}/no_such.csv)"),
        ("$HOME/a.csv", "f: $HOME/a.csv must be a path in which no variable stands"),
        ("pipe.csv", "f: pipe.csv is a pipe or a device; save its content as a file, and name that"),
        ("b\u200b.csv", r"f: there is no b\u200b.csv"),
    ],
)
def test_what_can_be_no_file_is_refused_at_once(path: str, message: str) -> None:
    os.mkfifo("pipe.csv")
    for read in (lambda: load_files(path, "f"), lambda: list(stream_texts(path, "f", ["text"]))):
        with pytest.raises(DataError) as caught:
            read()
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize("damage", ["cut", "without its end", "flipped", "no state", "state is no JSON"])
def test_a_saved_data_set_that_is_damaged_is_refused(damage: str) -> None:
    Dataset.from_dict({"text": ["some text"] * 3000, "label": ["a", "b", "c"] * 1000}).save_to_disk("saved")
    [arrow] = Path("saved").glob("*.arrow")
    content = bytearray(arrow.read_bytes())
    if damage == "flipped":
        place = content.rindex(b"some text")
        content[place] = 0xFF
        arrow.write_bytes(content)
    elif damage == "no state":
        arrow.unlink()
    elif damage == "state is no JSON":
        Path("saved/state.json").write_text("{")
    else:
        arrow.write_bytes(content[: len(content) // 2 if damage == "cut" else -8])
    with pytest.raises(DataError, match=re.escape("data.train: saved was written by save_to_disk, but ")):
        load_raw_splits(section("saved"))


@pytest.mark.parametrize("error", [ConnectionError("no route"), RuntimeError("x"), TimeoutError("late"), KeyError("k")])
def test_a_hub_that_cannot_be_reached_is_one_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=r"^data[.]train: someone/rows is not a file or folder here, and loading"):
        load_raw_splits(TextDataSection(source="someone/rows"))


@pytest.mark.parametrize("broken", ["name", "notes of pandas"])
def test_a_parquet_file_with_a_broken_name_or_notes_is_refused(broken: str) -> None:
    table = pyarrow.table({"text": ["a", "b"], "label": ["x", "y"]})
    notes = {"pandas": "{"} if broken == "notes of pandas" else {}
    pyarrow.parquet.write_table(table.replace_schema_metadata(notes), "a.parquet", store_schema=bool(notes))
    content = Path("a.parquet").read_bytes()
    message = the_error(content if notes else content.replace(b"text", b"\xf4ext"), "a.parquet")
    assert message.startswith("data.train: a.parquet cannot be read as parquet: ")


SPAN = {"start": 0, "end": 3, "label": "animal"}


@pytest.mark.parametrize("filled", [["animal"], [SPAN]])
@pytest.mark.parametrize("order", [["empty", "filled"], ["filled", "empty"], ["empty", "filled", "empty"]])
def test_files_of_empty_lists_stand_beside_files_of_full_ones(filled: list[Any], order: list[str]) -> None:
    for number, name in enumerate(order):
        value = [] if name == "empty" else filled
        Path(f"{number}.jsonl").write_text(json.dumps({"text": "cat", "labels": value}) + "\n")
    rows = load_files("[0-9].jsonl", "data.train", [("text", "text"), ("label", "labels")])
    assert rows["labels"][:] == [[] if name == "empty" else filled for name in order]


def test_objects_may_have_their_keys_in_another_order_and_lack_some() -> None:
    values = [[SPAN], [{"label": "animal", "start": 1, "end": 2}], [{"start": 0}], None]
    for number, value in enumerate(values):
        Path(f"{number}.jsonl").write_text(json.dumps({"text": "cat", "spans": value}) + "\n")
    rows = load_files("[0-9].jsonl", "data.train", [("text", "text"), ("spans", "spans")])
    missing = {"start": 0, "end": None, "label": None}
    assert rows["spans"][:] == [[SPAN], [{"start": 1, "end": 2, "label": "animal"}], [missing], None]
    Path("4.jsonl").write_text(json.dumps({"text": "cat", "spans": [{**SPAN, "score": 0.5}]}) + "\n")
    rows = load_files("[0-9].jsonl", "data.train", [("text", "text"), ("spans", "spans")])
    assert rows["spans"][:][1::3] == [
        [{"start": 1, "end": 2, "label": "animal", "score": None}],
        [{**SPAN, "score": 0.5}],
    ]
    Path("5.jsonl").write_text(json.dumps({"text": "cat", "spans": [{**SPAN, "score": "high"}]}) + "\n")
    with pytest.raises(DataError, match=r"holds list<.*> in 4\.jsonl, and list<.*> in the files before it"):
        load_files("[0-9].jsonl", "data.train", [("text", "text"), ("spans", "spans")])


@pytest.mark.parametrize("value", [["animal"], [], [SPAN], 3, True, None])
def test_missing_values_alone_stand_beside_values_of_any_type(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowFiles.tables, "__defaults__", (2,))
    held = [None, None, None, value, None, [] if isinstance(value, list) else None]
    Path("a.jsonl").write_text("".join(json.dumps({"text": "cat", "labels": one}) + "\n" for one in held))
    rows = load_files("a.jsonl", "data.train", [("text", "text"), ("labels", "labels")])
    assert rows["labels"][:] == held


def test_a_column_without_any_value_does_not_hold_a_long_file_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": f"text {i}", "note": None}) + "\n" for i in range(40)), "utf-8")
    files = RowFiles([str(file)], "--file")
    read: list[int] = []
    with_files = files._with_files

    def counted(tables_of: Any) -> Any:
        for number, found in enumerate(with_files(tables_of), start=1):
            read.append(number)
            yield found

    monkeypatch.setattr(RowFiles, "_with_files", lambda self, tables_of: counted(tables_of))
    parts = files.whole_rows(["text", "note"], 2)
    table, _ = next(parts)
    assert read[-1] == 10
    assert table.schema.types == [pyarrow.string(), pyarrow.string()]
    assert sum(len(part) for part, _ in parts) + len(table) == 40
