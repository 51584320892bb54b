"""Published forms that would be misread are refused by `init` and `fit`, with what to do."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pytest

import nlp_ft
from nlp_ft.api.draft import draft_recipe
from nlp_ft.api.forms import View, see, see_as
from nlp_ft.api.rows import Table, read_rows
from nlp_ft.errors import DataError

LONG = """Sentence #,Word,POS,Tag
Sentence: 1,the,DT,O
,cat,NN,B-animal
,"null",NN,O
Sentence: 2,NA,NN,B-animal
"""


def test_a_word_a_line_is_refused_with_a_program_that_writes_a_sentence_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_encoder: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ner_dataset.csv").write_text(LONG)
    with pytest.raises(DataError, match=r"has a word a line \(columns Sentence #, Word, Tag\)") as found:
        draft_recipe("ner_dataset.csv", str(tiny_encoder))
    [program] = re.findall(r"pandas\.read_csv.*", str(found.value))
    exec(program, {"pandas": pandas})  # noqa: S102
    rows = [json.loads(line) for line in Path("train.jsonl").read_text().splitlines()]
    assert rows == [
        {"tokens": ["the", "cat", "null"], "ner_tags": ["O", "B-animal", "O"]},
        {"tokens": ["NA"], "ner_tags": ["B-animal"]},
    ]
    assert "words: tokens  # by its name\n  label: ner_tags" in draft_recipe("train.jsonl", str(tiny_encoder))


@pytest.mark.parametrize(
    "columns",
    [
        {"name": ["Ann", "Bob"] * 20, "label": ["f", "m"] * 20},
        {"sentence": ["the cat", "a dog"] * 20, "label": ["x", "y"] * 20},
        {"id": range(40), "word": ["cat", "dog"] * 20, "label": ["x", "y"] * 20},
    ],
)
def test_labels_of_words_and_of_sentences_are_no_sentences_of_words(
    columns: dict[str, Any], tmp_path: Path, tiny_encoder: Path
) -> None:
    pandas.DataFrame(columns).to_csv(tmp_path / "a.csv", index=False)
    assert "task: text_classification" in draft_recipe(str(tmp_path / "a.csv"), str(tiny_encoder))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("['the', 'cat']", r"holds lists that are written as texts, such as .*ast.literal_eval"),
        ("['the' 'cat']", "NumPy wrote them without commas, so write the data again, with DataFrame.to_parquet"),
    ],
)
def test_lists_in_texts_are_refused(cell: str, message: str, tmp_path: Path, tiny_encoder: Path) -> None:
    rows = pandas.DataFrame({"text": ["the cat", "a dog"] * 20, "label": [cell, "[]"] * 20})
    rows.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=f"column 'label' {message}" if "literal" in message else message):
        draft_recipe(str(tmp_path / "a.csv"), str(tiny_encoder))
    for data in (rows, tmp_path / "a.csv"):
        with pytest.raises(DataError, match=r"^data: column 'label' holds lists that are written as texts"):
            nlp_ft.fit(data, model=tiny_encoder, output_dir=tmp_path / "run")
    if "," in cell:
        read = pandas.read_csv(tmp_path / "a.csv", converters={"label": ast.literal_eval})
        assert read["label"][0] == ["the", "cat"]


def test_paths_of_images_and_folders_of_images_are_refused(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = pandas.DataFrame({"path": ["a/1.JPG", "b/2.png"] * 20, "label": ["rose", "tulip"] * 20})
    rows.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(
        DataError, match=r"column 'path' holds paths of images, such as 'a/1.JPG'; copy each image into"
    ):
        draft_recipe(str(tmp_path / "a.csv"), str(tiny_encoder))
    with pytest.raises(DataError, match=r"^data: column 'path' holds paths of images"):
        nlp_ft.fit(rows, text="path", model=tiny_encoder, output_dir=tmp_path / "run")
    (tmp_path / "rose").mkdir()
    with pytest.raises(
        DataError, match="must be a file of rows, not a folder or zip file; for images, see docs/images"
    ):
        draft_recipe(str(tmp_path), str(tiny_encoder))


def test_rejected_rows_of_prodigy_are_refused(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = [
        {"text": "a", "spans": [{"start": 0, "end": 1, "label": "x"}], "answer": word} for word in ("accept", "reject")
    ]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(
        DataError, match="has rows whose answer is reject, as Prodigy writes it; keep those with accept"
    ):
        draft_recipe(str(tmp_path / "a.jsonl"), str(tiny_encoder))
    for data in (rows, tmp_path / "a.jsonl"):
        with pytest.raises(DataError, match=r"^data has rows whose answer is reject"):
            nlp_ft.fit(data, model=tiny_encoder, output_dir=tmp_path / "run")
    (tmp_path / "b.jsonl").write_text(f"{json.dumps(rows[0])}\n")
    assert "spans: spans" in draft_recipe(str(tmp_path / "b.jsonl"), str(tiny_encoder))


def test_a_column_of_odd_values_that_is_not_needed_is_left_out_and_said(tmp_path: Path, tiny_encoder: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "the cat", "label": "ab"[row % 2], "meta": {"at": row if row % 2 else "x"}} for row in range(40)
    ]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    text = draft_recipe(str(tmp_path / "a.jsonl"), str(tiny_encoder))
    assert "label: label  # by its name\n  # not looked at, as values of several kinds: meta" in text
    rows[3]["label"] = 3
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(DataError, match="'label' is a whole number, and a text in the rows before it"):
        draft_recipe(str(tmp_path / "a.jsonl"), str(tiny_encoder))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"goal": [f"goal {row}" for row in range(40)], "sol1": ["the red cat"] * 40, "sol2": ["the blue cat"] * 40},
            r"no column for the label: .*; there are columns of candidates \(sol1, sol2\), and none that names",
        ),
        (
            {"id": range(40), "text": [f"the cat {row}" for row in range(40)]},
            "no column for the label: beside the text",
        ),
    ],
)
def test_columns_that_differ_in_every_row_are_no_labels(
    columns: dict[str, Any], message: str, tmp_path: Path, tiny_encoder: Path
) -> None:
    pandas.DataFrame(columns).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=message):
        draft_recipe(str(tmp_path / "a.csv"), str(tiny_encoder))


def test_spans_as_tuples_are_seen_in_python_and_in_json(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = [{"text": "the cat", "label": [(4, 7, "animal")]}, {"text": "no", "label": []}] * 4
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert "text: text  # by its name\n  spans: label" in draft_recipe(str(tmp_path / "a.jsonl"), str(tiny_encoder))
    settings: dict[str, Any] = {"duration": "1st", "precision": "fp32", "baselines": False, "level": "quiet"}
    run = nlp_ft.fit(rows, model=tiny_encoder, output_dir=tmp_path / "run", report=False, **settings)
    assert (run.recipe.task, vars(run.recipe.data)["spans"]) == ("token_classification", "label")
    assert run.labels == ["O", "B-animal", "I-animal"] or run.labels == ["O", "B-animal"]


def test_pairs_of_spacy_are_seen_as_texts_with_spans() -> None:
    pairs = [("the cat", {"entities": [(4, 7, "animal")]}), ("no", {"entities": []})] * 4
    table = read_rows(pairs, "text", "label", "data")
    assert isinstance(table, Table)
    assert see(View(table.rows)).columns == {"text": "text", "spans": "label"}
    assert table.rows.column("label").to_pylist()[:2] == [[{"start": 4, "end": 7, "label": "animal"}], []]


def test_words_with_tags_are_no_texts_with_labels_unless_the_task_is_named() -> None:
    rows = pyarrow.table({"Word": ["the", "cat"] * 4, "Tag": ["O", "B-animal"] * 4})
    view = View(rows, text="Word", label="Tag")
    with pytest.raises(DataError, match=r"column 'Word' holds a word a row .*df.groupby\('sentence', sort=False\)"):
        see(view)
    assert see_as(view, "text_classification").columns == {"text": "Word", "label": "Tag"}
    other = pyarrow.table({"Word": ["the", "cat"] * 4, "Tag": ["O", "N"] * 4})
    assert see(View(other, text="Word", label="Tag")).task == "text_classification"


def test_an_object_over_several_lines_is_no_json_lines(tmp_path: Path, tiny_encoder: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"annotations": []}, indent=1))
    with pytest.raises(
        DataError, match="line 1 begins an object that goes on in further lines; write an object a line"
    ):
        draft_recipe(str(tmp_path / "a.json"), str(tiny_encoder))


HALF = ["the red cat runs", "a dog eats"] * 20


@pytest.mark.parametrize(
    "columns",
    [
        {"text": HALF, "hashtags": ["['sun']", "[]"] * 20, "label": ["x", "y"] * 20},
        {"img": [f"img/{row}.png" for row in range(40)], "text": HALF, "label": [0, 1] * 20},
        {"text": [f"[CLS] {text} [SEP]" for text in HALF], "label": ["[pos]", "[neg]"] * 20},
        {"sentence": HALF, "word": ["red", "dog"] * 20, "label": ["x", "y"] * 20},
        {"text": HALF, "answer": ["accept", "reject"] * 20},
    ],
)
def test_a_text_and_its_label_are_seen_whatever_stands_beside_or_in_them(
    columns: dict[str, Any], tmp_path: Path, tiny_encoder: Path
) -> None:
    pandas.DataFrame(columns).to_csv(tmp_path / "a.csv", index=False)
    recipe = draft_recipe(str(tmp_path / "a.csv"), str(tiny_encoder))
    text, label = ("sentence" if "sentence" in columns else "text"), ("answer" if "answer" in columns else "label")
    assert "task: text_classification" in recipe
    assert f"\n  text: {text}  #" in recipe
    assert f"\n  label: {label}  #" in recipe


def test_an_object_in_place_of_a_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": {"a": 1}, "label": "x"}\n{"text": {"a": 2}, "label": "y"}\n')
    with pytest.raises(DataError, match="no column for the label"):
        draft_recipe(str(tmp_path / "a.jsonl"), "m")
