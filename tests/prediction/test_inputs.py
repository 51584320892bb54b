"""What `predict` is given: arrays are taken, tables and names of files are no texts, and errors count all inputs."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow
import pytest
from PIL import Image

import nlp_ft
from nlp_ft.cli import main
from nlp_ft.data import streaming
from nlp_ft.errors import DataError
from nlp_ft.prediction import trained_run
from nlp_ft.prediction.image_run import ImageRun
from nlp_ft.prediction.predict import Source, predict_to_file
from nlp_ft.prediction.shards import predict_shard
from nlp_ft.prediction.text_run import TextRun
from nlp_ft.prediction.word_run import WordRun
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.recipe.words import WordsDataSection
from nlp_ft.training.run import train
from tests.tiny_questions import question_recipe

COLUMNS = {"text": ["red", "cat"]}


@pytest.mark.parametrize(
    "rows", [COLUMNS, pd.DataFrame(COLUMNS), datasets.Dataset.from_dict(COLUMNS), pyarrow.table(COLUMNS)]
)
def test_the_names_of_columns_are_not_predicted(rows: Any, run: TextRun) -> None:
    """Iterating over these gives `text`, which would be one text to predict."""
    for predict in (run.predict, lambda inputs: nlp_ft.predict(run.folder, inputs)):
        with pytest.raises(DataError, match=r"^predict takes one text or a list of them, got .*; nlp_ft\.load\(RUN\)"):
            predict(rows)
    assert nlp_ft.load(run.folder).predict(rows) == run.predict(COLUMNS["text"])


def test_a_table_that_offers_arrow_alone_is_taken_as_it_is_by_fit(run: TextRun) -> None:
    class Frame:
        """As a DataFrame of Polars."""

        columns = ("text",)

        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            texts = pyarrow.array(COLUMNS["text"], pyarrow.string_view())
            return pyarrow.table({"text": texts}).__arrow_c_stream__(requested_schema)

    assert nlp_ft.load(run.folder).predict(Frame()) == run.predict(COLUMNS["text"])


def test_a_column_is_named_by_renaming_it(run: TextRun) -> None:
    with pytest.raises(DataError, match=r"the input has no column 'text'; its columns are: body; rename one of them$"):
        nlp_ft.load(run.folder).predict({"body": ["red"]})


def test_an_array_holds_what_a_list_does(run: TextRun, pair_run: TextRun) -> None:
    assert run.predict(np.array(["red", "cat"])) == run.predict(["red", "cat"])
    pairs = [("cat", "the cat"), ("red", "small")]
    assert pair_run.predict(np.array(pairs)) == pair_run.predict(pairs)
    with pytest.raises(DataError, match="predict takes one text or a list of them, got ndarray"):
        run.predict(np.array("red"))


def test_a_run_comes_before_the_inputs(run: TextRun) -> None:
    with pytest.raises(DataError, match=r"^predict takes a run folder or a loaded run, .* got list first$"):
        nlp_ft.predict(["red"], str(run.folder))


def test_pixels_are_no_image() -> None:
    with pytest.raises(DataError, match=r"^predict: an image must be a file or a Pillow image, got list$"):
        ImageRun._pixel_values(None, [[0, 0], [0, 0]])  # type: ignore[arg-type]
    fractions = Image.fromarray(np.full((2, 2), 0.5, np.float32))
    with pytest.raises(DataError, match=r"^predict: a Pillow image cannot be read: its pixels are floating-point"):
        ImageRun._pixel_values(None, fractions)  # type: ignore[arg-type]  # all of them would be black


def test_lists_of_words_that_are_written_as_texts_are_refused(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(recipe=SimpleNamespace(data=WordsDataSection(train="a.conll")))
    file = tmp_path / "new.csv"
    for text, is_list in (
        ("['Ada', 'lives']", True),
        ('["Ada"]', True),
        ("[laughs] yes", False),
        ("['x'] is a list", False),
    ):
        pd.DataFrame({"tokens": ["plain", text]}).to_csv(file, index=False)
        if not is_list:
            assert [items for items, _ in WordRun.read(run, Source(file=str(file)))] == [["plain", text]]
            continue
        with pytest.raises(
            DataError, match=r"new\.csv\) holds lists of words that are written as texts, such as .*Ada"
        ):
            list(WordRun.read(run, Source(file=str(file))))


def test_the_name_of_a_file_of_rows_is_no_text(
    run: TextRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new.CSV"
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(run.folder), str(file)])
    file.write_text("text\nred\n")
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(run.folder), "red", str(file)])
    error = capsys.readouterr().err
    assert f"{file} is a file, and would be predicted as a text; --file {file} reads its rows" in error


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("new.csv", "id;text\n1;red\n", "the fields look divided by semicolons: write it anew in Python"),
        ("new.csv", "id\ttext\n1\tred\n", "the fields look divided by tabs: such a file ends in .tsv"),
    ],
)
def test_a_file_with_another_separator_gets_the_advice_of_training(
    name: str, content: str, advice: str, run: TextRun, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=f"has no column 'text'; it has: .*; {advice}"):
        next(run.read(Source(str(tmp_path / name))))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [{"text": "red"}, {"txt": "cat"}, {"text": None}, {"text": " "}],
            "3 of 4 rows of in.jsonl have no text in text",
        ),
        ([{"text": "red"}], ""),
    ],
)
def test_rows_without_text_are_counted(
    rows: list[Any], said: str, run: TextRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert predict_to_file(run, Source("in.jsonl"), "out.jsonl") == len(rows)
    assert capsys.readouterr().err == (f"{said}; they count as empty texts\n" if said else "")


@pytest.mark.parametrize("data", [[("red", "colour")], pd.DataFrame({"text": ["red"], "label": ["colour"]}), {}])
def test_rows_are_no_files(data: Any, run: TextRun) -> None:
    with pytest.raises(DataError, match=r"^data must be the name of a file, .* takes rows"):
        nlp_ft.evaluate_run(run.folder, data)


def test_an_evaluation_takes_paths_and_the_splits_of_a_recipe(run: TextRun) -> None:
    file = run.folder.parent / "test.csv"
    assert nlp_ft.evaluate_run(run.folder, file).scores() == nlp_ft.evaluate_run(run.folder, str(file)).scores()
    with pytest.raises(DataError, match=r"^split must be one of train, validation, test, got 'dev'$"):
        nlp_ft.evaluate_run(run.folder, split="dev")


@pytest.fixture(scope="module")
def question_run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> nlp_ft.Run:
    folder = tmp_path_factory.mktemp("questions")
    changes: dict[str, Any] = {"training": {"duration": "1st"}, "baselines": False}
    train(recipe_from_dict(question_recipe(folder, tiny_encoder, **changes)))
    return nlp_ft.load(folder / "run")


def test_an_error_counts_the_inputs_of_all_chunks(
    run: TextRun, question_run: nlp_ft.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (trained_run, streaming):
        monkeypatch.setattr(module, "CHUNK_ROWS", 2)
    with pytest.raises(DataError, match=r"^input 5 \(from 0\) must be a text, got None$"):
        run.predict(["red"] * 5 + [None])
    rows = [{"question": "the", "context": "the cat"}] * 5 + [{"question": "", "context": "the cat"}]
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = str(tmp_path / "out.csv")
    for predict in (
        lambda: predict_to_file(question_run.trained, Source(str(file)), output),
        lambda: predict_shard(question_run.trained, Source(str(file)), output, (1, 2)),
    ):
        with pytest.raises(DataError, match=r"^input 5 \(from 0\) has an empty question$"):
            predict()
