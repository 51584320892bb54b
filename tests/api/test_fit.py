"""`fit` on rows in the memory and on files: the run that comes back, what is said, and that the recipe repeats it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

import nlp_ft
from nlp_ft.api.html import run_as_html
from nlp_ft.cli import main
from nlp_ft.errors import DataError, NlpFtError, RecipeError, RunFolderError
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.tasks.classes import Prediction
from tests.tiny import LABELS, write_tiny_csv

QUICK: dict[str, Any] = {"duration": "12st", "lr": 1e-2, "precision": "fp32", "baselines": False, "level": "quiet"}


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pandas.DataFrame:
    return pandas.read_csv(write_tiny_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 120))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, frame: pandas.DataFrame) -> nlp_ft.Run:
    folder = tmp_path_factory.mktemp("fit")
    words = frame.rename(columns={"text": "words", "label": "kind"}).assign(unused=[object()] * len(frame))
    return nlp_ft.fit(
        words, text="words", label="kind", model=tiny_encoder, test=words[:20], output_dir=folder / "run", **QUICK
    )


def test_the_recipe_in_the_run_folder_repeats_the_run_to_the_bit(run: nlp_ft.Run, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["train", str(run.folder / "recipe.yaml"), f"output_dir={tmp_path / 'again'}", "--quiet"])
    assert (tmp_path / "again/model.safetensors").read_bytes() == (run.folder / "model.safetensors").read_bytes()
    assert nlp_ft.load(tmp_path / "again").metrics == run.metrics


def test_the_rows_lie_beside_the_run_folder_and_only_the_columns_that_are_needed(run: nlp_ft.Run) -> None:
    beside = run.folder.with_name("run.data")
    assert sorted(re.sub("-[0-9a-f]{8}", "", file.name) for file in beside.iterdir()) == [
        "test.parquet",
        "train.parquet",
    ]
    assert str(run.recipe.data.train).startswith(str(beside))
    assert list(pandas.read_parquet(str(run.recipe.data.train))) == ["kind", "words"]


def test_a_level_and_a_model_that_are_none_are_refused(frame: pandas.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"^fit: level must be one of quiet, bar, .*, got 'verbos'; did you mean verbose"
    ):
        nlp_ft.fit(frame, model="m", level="verbos", output_dir=tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"^fit: model must name a pretrained network: .*; got Linear; write it to a"):
        nlp_ft.fit(frame, model=torch.nn.Linear(2, 2), output_dir=tmp_path / "run")  # type: ignore[arg-type]


def test_rows_with_names_are_predicted_by_column_and_a_dict_of_texts_is_no_rows(run: nlp_ft.Run) -> None:
    assert run.predict([{"words": "the cat", "n": 1}, {"words": "red"}]) == run.predict(["the cat", "red"])
    assert run.predict(pandas.DataFrame({"words": ["red", None]})) == run.predict(["red", ""])
    with pytest.raises(
        DataError, match=r"^the input is a dict, whose columns must be lists .*; 'words' is str 'the cat'"
    ):
        run.predict({"words": "the cat"})


def test_a_single_text_gives_a_single_prediction_and_a_list_or_column_a_list(run: nlp_ft.Run) -> None:
    one = run.predict("the cat")
    assert isinstance(one, Prediction)
    assert run.predict(["the cat"]) == [one] == run.predict(pandas.Series(["the cat"])) == run.predict(("the cat",))
    assert nlp_ft.predict(run, "the cat") == one == nlp_ft.predict(run.folder, "the cat")
    assert run.predict([]) == []


def test_probabilities_are_those_of_the_predictions_in_the_order_of_the_labels(run: nlp_ft.Run) -> None:
    texts = ["the cat", "red", "big big"]
    found = run.predict_proba(texts)
    assert (found.shape, run.labels) == ((3, 3), LABELS)
    assert found.tolist() == [[p.scores[label] for label in LABELS] for p in run.predict(texts)]
    assert run.predict_proba("red").shape == (1, 3)
    assert run.predict_proba([]).shape == (0, 3)


def test_evaluate_scores_rows_in_any_form_as_the_run_scored_its_test_split(
    run: nlp_ft.Run, frame: pandas.DataFrame
) -> None:
    rows = frame[:20].rename(columns={"text": "words", "label": "kind"})
    expected = pytest.approx(run.metrics["test"])
    assert run.evaluate(rows) == expected
    assert run.evaluate((list(rows.words), list(rows.kind))) == expected
    assert run.evaluate() == expected
    with pytest.raises(DataError, match=r"data has no column 'words'; its columns are: text, label"):
        run.evaluate(frame)


def test_history_holds_the_records_of_the_run_and_metrics_those_of_its_end(run: nlp_ft.Run) -> None:
    assert [record["step"] for record in run.history if "validation" in record] == [7, 12]
    best = max(run.history, key=lambda record: record.get("validation", {}).get("accuracy", -1))
    assert best["validation"]["accuracy"] == run.metrics["validation"]["accuracy"] == run.summary["best_value"]


def test_a_saved_run_loads_as_the_same_run(run: nlp_ft.Run, tmp_path: Path) -> None:
    copy = run.save(tmp_path / "copy")
    loaded = nlp_ft.load(tmp_path / "copy")
    assert loaded.predict("the cat") == run.predict("the cat") == copy.predict("the cat")
    assert loaded.recipe == run.recipe
    with pytest.raises(RunFolderError, match="exists; choose another folder"):
        run.save(tmp_path / "copy")
    with pytest.raises(RunFolderError, match=r"is not a finished run: it has no summary.json"):
        nlp_ft.load(tmp_path)
    for damaged in ("[]", "null", "{}", '{"metrics": 1}'):
        (tmp_path / "copy/summary.json").write_text(damaged)
        with pytest.raises(RunFolderError, match=r"it has no summary.json that can be read"):
            nlp_ft.load(tmp_path / "copy")


def test_the_view_for_notebooks_has_the_scores_and_the_verdict_escaped(run: nlp_ft.Run, tmp_path: Path) -> None:
    shown = run._repr_html_()
    assert f'<td>validation</td><td style="text-align: right">{run.metrics["validation"]["loss"]:.4f}</td>' in shown
    assert run.verdict[0]["says"][:20] in shown
    beside = {"metrics": {}, "baselines": {"test": {"tfidf_ridge": {"loss": 1.0}}}}
    assert "<td>vs TF-IDF</td>" in run_as_html(tmp_path, {**run.summary, **beside})
    assert "<code>x&lt;b&gt;</code>" in run.save(tmp_path / "x<b>")._repr_html_().replace(f"{tmp_path}/", "")
    assert repr(run) == (
        f"Run('{run.folder}', validation accuracy {run.metrics['validation']['accuracy']:.4f}, "
        f"test accuracy {run.metrics['test']['accuracy']:.4f})"
    )


def test_task_and_validation_are_said(
    tiny_encoder: Path, frame: pandas.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = pandas.DataFrame({"text": frame["text"][:30], "label": np.linspace(0, 1, 30)})
    settings = {**QUICK, "level": "bar", "duration": "2st"}
    run = nlp_ft.fit(numbers, model=tiny_encoder, output_dir=tmp_path / "run", **settings)
    lines = " ".join(capsys.readouterr().out.split())
    assert lines.startswith(
        "task: text_regression, because column 'label' holds fractions such as 0.0344828; task=... says otherwise "
        "validation: none, as train has fewer than 100 rows; the last weights are kept. validation='20%' draws some "
        "rows"
    )
    assert (run.recipe.task, run.recipe.data.validation, run.metrics) == ("text_regression", None, {})
    assert isinstance(run.predict("red"), float)
    with pytest.raises(DataError, match="predict_proba needs a run that predicts labels"):
        run.predict_proba("red")


def test_files_stay_where_they_are_and_a_new_folder_has_a_readable_name(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_csv(tmp_path / "rows.csv", 120)
    for number in ("", "-2"):
        run = nlp_ft.fit("rows.csv", model=tiny_encoder, strategy="head_only", **QUICK)
        assert str(run.folder) == f"runs/{tiny_encoder.name}-head_only{number}"
    assert (run.recipe.data.train, run.recipe.data.validation) == ("rows.csv", "10%")
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        f"{tiny_encoder.name}-head_only",
        f"{tiny_encoder.name}-head_only-2",
    ]


@pytest.mark.slow
def test_a_taken_folder_is_refused_in_words_of_python_and_overwritten_only_if_asked(
    tiny_encoder: Path, frame: pandas.DataFrame, tmp_path: Path
) -> None:
    first = nlp_ft.fit(frame, model=tiny_encoder, output_dir=tmp_path / "run", **QUICK)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(RunFolderError, match=r"holds a finished run; .* or pass overwrite=True to replace"):
        nlp_ft.fit(frame[::-1], model=tiny_encoder, output_dir=tmp_path / "run", **QUICK)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    second = nlp_ft.fit(frame, model=tiny_encoder, output_dir=first.folder, overwrite=True, seed=1, **QUICK)
    assert second.recipe.seed == 1


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"model": None}, RecipeError, "fit: model is missing; name a pretrained network, such as "),
        (
            {"label": "lable"},
            DataError,
            "data has no column 'lable'; its columns are: .*; did you mean label\\?",
        ),
        ({"text": "txt"}, DataError, "data has no column 'txt'; its columns are: text, label; did you mean text\\?"),
        ({"task": "text_clasification"}, RecipeError, "fit: task must be one of .*; did you mean text_classification?"),
        ({"task": "image_classification"}, DataError, "image_classification reads images from folders, zip files"),
        ({"lr": -1}, RecipeError, "fit: optimizer.lr must be in "),
        ({"data": None}, DataError, "fit needs data: rows, names of files, or source=... for a data set on the Hub"),
        ({"train": "a.csv"}, RecipeError, "fit: the rows of train are given twice"),
        ({"data": [("a", [1, 2]), ("b", [3])], "task": "text_classification"}, NlpFtError, ".*label"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    arguments: dict[str, Any],
    kind: type[Exception],
    message: str,
    frame: pandas.DataFrame,
    tiny_encoder: Path,
    tmp_path: Path,
) -> None:
    values = {"data": frame, "model": tiny_encoder, "output_dir": tmp_path / "run", **QUICK, **arguments}
    with pytest.raises(kind, match=f"^{message}"):
        nlp_ft.fit(values.pop("data"), **values)
    assert not (tmp_path / "run").exists()


def test_labels_that_pandas_made_fractions_are_whole_again(
    tiny_encoder: Path, frame: pandas.DataFrame, tmp_path: Path
) -> None:
    ids = frame.assign(label=[float(LABELS.index(label)) for label in frame["label"]])
    run = nlp_ft.fit(ids, task="text_classification", model=tiny_encoder, output_dir=tmp_path / "run", **QUICK)
    assert run.labels == ["0", "1", "2"]
    assert run.evaluate(ids) == run.evaluate(ids.astype({"label": int}))


def of_classes(frame: pandas.DataFrame, names: list[str], text: str = "text", label: str = "label") -> Dataset:
    """The rows whose label is one of the names, as a data set with ids of a `ClassLabel`."""
    rows = frame[frame["label"].isin(names)]
    columns = {text: list(rows["text"]), label: [names.index(one) for one in rows["label"]]}
    return Dataset.from_dict(columns, Features({text: Value("string"), label: ClassLabel(names=names)}))


def test_ids_that_mean_other_labels_than_in_train_are_refused(
    run: nlp_ft.Run, frame: pandas.DataFrame, tmp_path: Path
) -> None:
    first, *others = sorted(LABELS)
    train = of_classes(frame, [first, *others])
    message = f"column 'label': validation and train give the ids other names, {others[0]}, {others[1]} and {first}, "
    with pytest.raises(DataError, match=message):
        nlp_ft.fit(train, validation=of_classes(frame, others), model="m", output_dir=tmp_path / "r", **QUICK)
    with pytest.raises(DataError, match="data and label_names give the ids other names"):
        nlp_ft.fit(train, label_names=[*others, first], model="m", output_dir=tmp_path / "r", **QUICK)
    with pytest.raises(DataError, match=r"column 'kind': data and run .* align_labels_with_mapping\(\{'animal': 0, "):
        run.evaluate(of_classes(frame, others, "words", "kind"))
    whole = run.evaluate(frame.rename(columns={"text": "words", "label": "kind"}))
    assert run.evaluate(of_classes(frame, [first, *others], "words", "kind")) == whole


def test_labels_of_the_recipe_that_have_changed_are_no_labels_of_the_model(tiny_encoder: Path, tmp_path: Path) -> None:
    train, test = (write_tiny_csv(tmp_path / f"{split}.csv", 60) for split in ("train", "test"))
    run = nlp_ft.fit(str(train), test=str(test), model=tiny_encoder, output_dir=tmp_path / "run", **QUICK)
    for file in (train, test):
        file.write_text(file.read_text().replace(",animal", ",zebra"))
    message = (
        r"have other labels by now \(colour, size, zebra\) than the model \(animal, colour, size\); other labelled"
    )
    with pytest.raises(DataError, match=message):
        run.evaluate()


def test_every_recipe_of_a_run_is_one_that_the_command_line_reads(run: nlp_ft.Run) -> None:
    assert load_recipe(run.folder / "recipe.yaml") == run.recipe
