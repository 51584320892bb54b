"""A file of predictions keeps the columns of its input as they are, whatever the two formats, and adds its own."""

import csv
import datetime
import json
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset

from nlp_ft.data import streaming
from nlp_ft.data.row_writers import WRITERS, free_names
from nlp_ft.errors import DataError
from nlp_ft.prediction.command_line import ENDINGS, FORMATS
from nlp_ft.prediction.predict import Source, predict_to_file
from nlp_ft.prediction.text_run import TextRun
from tests.prediction.test_predict import read

TEXTS = ["cat cat cat", "red red red"]
LABELS = ["animal", "colour"]
PREDICTED = ["predicted_label", "predicted_score"]


def predicted(run: TextRun, file: Path, output: str, **options: Any) -> list[dict[str, Any]]:
    """The rows that are written for a file."""
    predict_to_file(run, Source(str(file)), str(file.parent / output), **options)
    return read(file.parent / output)


def without(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in names} for row in rows]


def write_jsonl(file: Path, *rows: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def test_a_csv_keeps_its_columns_in_their_order_with_their_values_and_gets_two_more(
    run: TextRun, tmp_path: Path
) -> None:
    file = tmp_path / "in.csv"
    file.write_text('id,note,text,label,score\n007,"a, ""b""",cat cat cat,size,NA\n8,,red red red,,1e3\n')
    predict_to_file(run, Source(str(file)), str(tmp_path / "out.csv"))
    scores = [f"{prediction.score:.6f}" for prediction in run.predict(TEXTS)]
    assert (tmp_path / "out.csv").read_bytes().decode() == (
        "id,note,text,label,score,predicted_label,predicted_score\r\n"
        f'007,"a, ""b""",cat cat cat,size,NA,animal,{scores[0]}\r\n'
        f"8,,red red red,,1e3,colour,{scores[1]}\r\n"
    )


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.parquet"])
@pytest.mark.parametrize("name", ["in.csv", "in.tsv", "in.jsonl", "in.parquet"])
def test_texts_are_the_same_from_every_format_to_every_other(
    name: str, output: str, run: TextRun, tmp_path: Path
) -> None:
    rows = [{"id": "007", "text": TEXTS[0], "x": "ü, \n"}, {"id": "8", "text": TEXTS[1], "x": ""}]
    file = tmp_path / name
    if name.endswith("sv"):
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if name == "in.tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif name == "in.jsonl":
        write_jsonl(file, *rows)
    else:
        Dataset.from_list(rows).to_parquet(str(file))
    written = predicted(run, file, output)
    assert list(written[0]) == ["id", "text", "x", *PREDICTED]
    assert without(written, *PREDICTED) == rows
    assert [row["predicted_label"] for row in written] == LABELS


def test_json_lines_keep_nested_values_types_and_keys_that_only_some_rows_have(run: TextRun, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 7, "text": TEXTS[0], "meta": {"a": [1, 2.5, None]}, "mixed": "x", "big": 2**70},
        {"text": TEXTS[1], "meta": {"b": {"c": True}}, "mixed": [1], "new": "ü"},
    ]
    written = predicted(run, write_jsonl(tmp_path / "in.jsonl", *rows), "out.jsonl")
    assert without(written, *PREDICTED) == rows
    assert [list(row)[:-2] for row in written] == [list(row) for row in rows]


def test_values_of_json_are_json_in_a_csv(run: TextRun, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 7, "text": TEXTS[0], "meta": {"ü": [1, None]}, "ok": True, "x": 0.1},
        {"text": TEXTS[1], "x": None},
    ]
    written = predicted(run, write_jsonl(tmp_path / "in.jsonl", *rows), "out.csv")
    assert without(written, *PREDICTED) == [
        {"id": "7", "text": TEXTS[0], "meta": '{"ü": [1, null]}', "ok": "true", "x": "0.1"},
        {"id": "", "text": TEXTS[1], "meta": "", "ok": "", "x": ""},
    ]


def frame() -> pyarrow.Table:
    return pyarrow.table(
        {
            "text": TEXTS,
            "id": pyarrow.array([7, None], pyarrow.int16()),
            "day": pyarrow.array([datetime.date(2026, 1, 2), None]),
            "tags": pyarrow.array([["a", "b"], []]),
            "raw": pyarrow.array([b"\xff", None]),
        }
    )


def test_parquet_keeps_its_types(run: TextRun, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(frame(), tmp_path / "in.parquet")
    predicted(run, tmp_path / "in.parquet", "out.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.select(frame().column_names).equals(frame())
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "text": "string",
        "id": "int16",
        "day": "date32[day]",
        "tags": "list<element: string>",
        "raw": "binary",
        "predicted_label": "string",
        "predicted_score": "float",
    }


def test_what_json_and_csv_have_no_form_for_is_written_as_text(run: TextRun, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(frame(), tmp_path / "in.parquet")
    [row, _] = without(predicted(run, tmp_path / "in.parquet", "out.jsonl"), *PREDICTED)
    assert row == {"text": TEXTS[0], "id": 7, "day": "2026-01-02", "tags": ["a", "b"], "raw": "/w=="}
    [row, empty] = without(predicted(run, tmp_path / "in.parquet", "out.csv"), *PREDICTED)
    assert row == {"text": TEXTS[0], "id": "7", "day": "2026-01-02", "tags": '["a", "b"]', "raw": "/w=="}
    assert empty == {"text": TEXTS[1], "id": "", "day": "", "tags": "[]", "raw": ""}


@pytest.mark.parametrize(
    ("rows", "output", "message"),
    [
        (
            [{"x": 1}, {"x": "a"}],
            "out.parquet",
            "--output: the values of 'x' have no type in common that",
        ),
        (
            [{"x": 1}] * 2 + [{"y": 2}],
            "out.parquet",
            "--output: the key 'y' is in later rows and not in the",
        ),
        ([{"x": 1}] * 2 + [{"y": 2}], "out.csv", "--output: the key 'y' is in later rows and not in the"),
        ([{"x": 1}] * 2 + [{"predicted_score": 1}], "out.jsonl", "--output: the key 'predicted_score' of a later row"),
    ],
)
def test_what_a_format_cannot_hold_is_said_and_nothing_is_left(
    rows: list[dict[str, Any]], output: str, message: str, run: TextRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "CHUNK_ROWS", 2)
    file = write_jsonl(tmp_path / "in.jsonl", *({"text": "cat", **row} for row in rows))
    with pytest.raises(DataError) as caught:
        predict_to_file(run, Source(str(file)), str(tmp_path / output))
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == [file]


def test_columns_that_clash_get_a_number_all_together(run: TextRun, tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text("text,predicted_label,predicted_score_2\ncat,old,x\n")
    [row] = predicted(run, file, "out.csv")
    assert list(row) == ["text", "predicted_label", "predicted_score_2", "predicted_label_3", "predicted_score_3"]
    assert (row["predicted_label"], row["predicted_score_2"], row["predicted_label_3"]) == ("old", "x", "animal")
    assert free_names(["a", "b"], ["c"]) == ["a", "b"]


def test_two_columns_of_one_name_stay_in_a_csv_and_are_refused_elsewhere(run: TextRun, tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text("x,text,x\n1,cat,2\n")
    predict_to_file(run, Source(str(file)), str(tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text().startswith("x,text,x,predicted_label,predicted_score\n1,cat,2,animal,")
    with pytest.raises(DataError, match="--output: the input has the column 'x' 2 times, which JSON Lines cannot hold"):
        predict_to_file(run, Source(str(file)), str(tmp_path / "out.jsonl"))


def test_files_that_are_predicted_together_have_the_same_columns(run: TextRun, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("id,text\n1,cat\n")
    (tmp_path / "2.csv").write_text("text,id\nred,2\n")
    predict_to_file(run, Source(str(tmp_path / "?.csv")), str(tmp_path / "out.csv"))
    assert [(row["id"], row["text"]) for row in read(tmp_path / "out.csv")] == [("1", "cat"), ("2", "red")]
    (tmp_path / "3.csv").write_text("text\nred\n")
    with pytest.raises(DataError, match=r"3.csv has the columns text, and .*1.csv has id, text; give all"):
        predict_to_file(run, Source(str(tmp_path / "?.csv")), str(tmp_path / "out.csv"))


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.parquet"])
def test_probabilities_are_a_column_for_each_label(output: str, run: TextRun, tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text(f"text\n{TEXTS[0]}\n{TEXTS[1]}\n")
    written = predicted(run, file, output, probabilities=True)
    assert list(written[0]) == [
        "text", *PREDICTED, "probability_animal", "probability_colour", "probability_size"
    ]  # fmt: skip
    for row, prediction in zip(written, run.predict(TEXTS), strict=True):
        found = {label: float(row[f"probability_{label}"]) for label in prediction.scores}
        assert found == pytest.approx(prediction.scores, abs=1e-6)
        assert float(row["predicted_score"]) == max(found.values())


def test_probabilities_are_numbers_for_pandas(run: TextRun, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f"text\n{TEXTS[0]}\n{TEXTS[1]}\n")
    predicted(run, tmp_path / "in.csv", "out.csv", probabilities=True)
    table = pandas.read_csv(tmp_path / "out.csv").filter(like="probability_")
    assert table.idxmax(axis=1).tolist() == ["probability_animal", "probability_colour"]
    assert table.sum(axis=1).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_pairs_keep_both_of_their_columns(pair_run: TextRun, tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text("second,id,first\nthe cat,1,cat\n")
    [row] = predicted(pair_run, file, "out.csv")
    assert list(row) == ["second", "id", "first", *PREDICTED]
    [expected] = pair_run.predict([("cat", "the cat")])
    assert (row["predicted_label"], row["predicted_score"]) == (expected.label, f"{expected.score:.6f}")
    predict_to_file(pair_run, Source(words=["cat", "the cat"]), str(tmp_path / "words.csv"))
    assert without(read(tmp_path / "words.csv"), *PREDICTED) == [{"first": "cat", "second": "the cat"}]


def test_no_input_at_all_is_an_error_and_no_file(run: TextRun, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^predict needs one text or more, got none$"):
        predict_to_file(run, Source(words=[]), str(tmp_path / "out.parquet"))
    assert list(tmp_path.iterdir()) == []


def test_the_endings_that_are_checked_before_torch_is_imported_are_those_that_can_be_written_and_read() -> None:
    assert set(ENDINGS) == set(WRITERS)
    assert {f".{name}" for name in FORMATS} == {".csv", ".tsv", ".jsonl", ".parquet"}
