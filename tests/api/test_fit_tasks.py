"""`fit` for every task: the task is seen in the columns; the run that comes back predicts, scores, saves and loads."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

import nlp_ft
from nlp_ft.api.column import Names
from nlp_ft.api.forms import Seen, View, see, see_as, spread
from nlp_ft.errors import DataError, NlpFtError, RecipeError
from nlp_ft.tasks.answer_spans import AnswerPrediction
from nlp_ft.tasks.multi_label_classification import MultiLabelPrediction
from tests.tiny import LABELS
from tests.tiny_label_sets import label_sets
from tests.tiny_questions import tiny_questions
from tests.tiny_words import tagged_rows, write_rows

QUICK: dict[str, Any] = {"duration": "3st", "precision": "fp32", "baselines": False, "level": "quiet", "lr": 1e-3}
SETS = label_sets("train")
TEXTS, LISTS = [text for text, _ in SETS], [labels for _, labels in SETS]
MATRIX = np.array([[int(label in labels) for label in LABELS] for labels in LISTS])
TAGGED = tagged_rows(30)
ASKED = tiny_questions(30, 0)
COLUMNS_OF_SQUAD: dict[str, Names] = {"question": "question", "context": "context", "answers": "answers"}


def table(**columns: Any) -> pyarrow.Table:
    return pyarrow.table(columns)


@pytest.mark.parametrize(
    ("view", "task", "columns"),
    [
        (View(table(text=["a"], label=[["x"]])), "multi_label_classification", {"text": "text", "label": "label"}),
        (
            View(table(text=["a", "b"], x=[0, 1], y=[1, 0]), label=["x", "y"]),
            "multi_label_classification",
            {"text": "text", "label": ["x", "y"]},
        ),
        (
            View(table(text=["a", "b"], x=[0.5, 1], y=[2, 3]), label=["x", "y"]),
            "text_regression",
            {"text": "text", "label": ["x", "y"]},
        ),
        (
            View(table(text=["a"], label=["x|y"]), named={"label_separator": "|"}),
            "multi_label_classification",
            {"text": "text", "label": "label"},
        ),
        (View(table(text=["a"], label=["x|y"])), "text_classification", {"text": "text", "label": "label"}),
        (View(table(text=[["a"]], label=[["O"]])), "token_classification", {"words": "text", "label": "label"}),
        (View(table(tokens=[["a"]], tags=[["O"]])), "token_classification", {"words": "tokens", "label": "tags"}),
        (
            View(table(text=["a"], spans=[[{"start": 0, "end": 1, "label": "x"}]])),
            "token_classification",
            {"text": "text", "spans": "spans"},
        ),
        (View(table(question=["a"], context=["b"], answers=["b"])), "question_answering", COLUMNS_OF_SQUAD),
        # The caller's own columns go before those with usual names.
        (
            View(table(question=["a"], context=["b"], answers=["b"], kind=["x"]), text="question", label="kind"),
            "text_classification",
            {"text": "question", "label": "kind"},
        ),
        (
            View(table(q=["a"], c=["b"], a=["b"]), named={"question": "q", "context": "c", "answers": "a"}),
            "question_answering",
            {"question": "q", "context": "c", "answers": "a"},
        ),
    ],
)
def test_the_task_is_seen_in_the_columns(view: View, task: str, columns: dict[str, Any]) -> None:
    seen = see(view)
    assert (seen.task, seen.columns) == (task, columns)


def test_a_task_that_is_asked_for_names_the_columns_of_its_recipe() -> None:
    rows = table(text=[["a"]], label=[["O"]])
    assert see_as(View(rows), "token_classification").columns == {"words": "text", "label": "label"}
    assert see_as(View(rows), "question_answering") == Seen("question_answering", "as asked", COLUMNS_OF_SQUAD)


def test_a_matrix_of_labels_becomes_a_column_for_each_and_lists_of_ids_stay() -> None:
    spreaded, label = spread(table(text=["a", "b"], label=[[1, 0, 0], [0, 1, 1]]), "label", "data")
    assert label == ["label_0", "label_1", "label_2"]
    assert spreaded.to_pydict() == {"text": ["a", "b"], "label_0": [1, 0], "label_1": [0, 1], "label_2": [0, 1]}
    ids = table(text=["a", "b"], label=[[2, 0], [1]])
    assert spread(ids, "label", "data") == (ids, "label")
    with pytest.raises(DataError, match=r"^data: column 'label' holds lists of numbers of length 1, 2; they must all"):
        spread(table(text=["a", "b"], label=[[0.5], [1.0, 2.0]]), "label", "data")
    with pytest.raises(DataError, match="they must all have length 3, as in train"):
        spread(table(text=["a"], label=[[0.5, 1.0]]), ["label_0", "label_1", "label_2"], "test")


FRAME_OF_COLUMNS = pandas.DataFrame({"text": TEXTS, **{name: MATRIX[:, i] for i, name in enumerate(LABELS)}})
MULTI_LABEL: dict[str, tuple[Any, dict[str, Any]]] = {
    "lists in a DataFrame": (pandas.DataFrame({"text": TEXTS, "label": LISTS}), {}),
    "two lists": ((TEXTS, LISTS), {}),
    "separated texts": ({"text": TEXTS, "label": ["|".join(of) for of in LISTS]}, {"label_separator": "|"}),
    "separated texts, seen": ({"text": TEXTS, "label": ["|".join(of) for of in LISTS]}, {}),
    "a column a label": (FRAME_OF_COLUMNS, {"label": LABELS}),
    "a matrix": ((TEXTS, MATRIX), {}),
    "a matrix with names": ((TEXTS, MATRIX.astype(bool)), {"label": LABELS}),
    "ids with names": (
        Dataset.from_dict(
            {"text": TEXTS, "label": [[LABELS.index(label) for label in of] for of in LISTS]},
            Features({"text": Value("string"), "label": List(ClassLabel(names=LABELS))}),
        ),
        {},
    ),
}


USUAL = ("two lists", "a column a label")
"""The forms of every test run; the others are slow."""


@pytest.mark.parametrize(
    "form", [form if form in USUAL else pytest.param(form, marks=pytest.mark.slow) for form in MULTI_LABEL]
)
def test_any_form_of_label_sets_gives_the_same_model(form: str, tiny_encoder: Path, tmp_path: Path) -> None:
    data, more = MULTI_LABEL[form]
    run = nlp_ft.fit(data, model=tiny_encoder, output_dir=tmp_path / "run", **QUICK, **more)
    names = [f"label_{i}" for i in range(3)] if form == "a matrix" else LABELS
    assert (run.recipe.task, run.labels) == ("multi_label_classification", names)
    probabilities = run.predict_proba(["the cat", "red"])
    expected = nlp_ft.fit((TEXTS, LISTS), model=tiny_encoder, output_dir=tmp_path / "lists", **QUICK)
    assert probabilities.tolist() == expected.predict_proba(["the cat", "red"]).tolist()
    assert run.evaluate(data) == pytest.approx(expected.evaluate((TEXTS, LISTS)))
    one = run.predict("the cat")
    assert isinstance(one, MultiLabelPrediction)
    assert list(one.scores) == names


@pytest.mark.slow
def test_words_with_tags_in_any_form_give_the_same_tagger(tiny_encoder: Path, tmp_path: Path) -> None:
    words, tags = [row["tokens"] for row in TAGGED], [row["ner_tags"] for row in TAGGED]
    names = sorted({tag for row in tags for tag in row})
    ids = Dataset.from_dict(
        {"tokens": words, "ner_tags": [[names.index(tag) for tag in row] for row in tags]},
        Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))}),
    )
    file = write_rows(tmp_path / "rows.jsonl", TAGGED)
    conll = tmp_path / "rows.conll"
    lines = ("".join(f"{w} {t}\n" for w, t in zip(*row, strict=True)) for row in zip(words, tags, strict=True))
    conll.write_text("\n".join(lines))
    forms: dict[str, tuple[Any, dict[str, Any]]] = {
        "frame": (pandas.DataFrame(TAGGED), {}),
        "lists": ((words, tags), {}),
        "named": ({"w": words, "t": tags}, {"text": "w", "label": "t"}),
        "named as in a recipe": ({"w": words, "t": tags}, {"words": "w", "label": "t"}),
        "ids": (DatasetDict(train=ids), {}),
        "file": (file, {}),
        "conll": (str(conll), {}),
    }
    found = {}
    for form, (data, more) in forms.items():
        settings = {**QUICK, **({"label_names": ["O", *[n for n in names if n != "O"]]} if form != "ids" else {})}
        run = nlp_ft.fit(data, model=tiny_encoder, output_dir=tmp_path / form, **settings, **more)
        assert run.recipe.task == "token_classification", form
        found[form] = [run.evaluate(data)["accuracy"] if form != "ids" else run.evaluate(ids)["accuracy"]]
        assert run.predict([["red", "cat"]]) == [run.predict("red cat")]
    assert found["lists"] == found["frame"] == found["named"] == found["named as in a recipe"] == found["file"]
    assert found["conll"] == found["lists"]
    with pytest.raises(DataError, match=r"^predict_proba needs a run that predicts labels; this run tags words; each"):
        run.predict_proba(["red cat"])


def test_texts_with_spans_are_words_with_tags(tiny_encoder: Path, tmp_path: Path) -> None:
    rows = [{"text": "the red cat", "spans": [{"start": 4, "end": 7, "label": "colour"}]}, {"text": "dog", "spans": []}]
    run = nlp_ft.fit(rows * 10, model=tiny_encoder, output_dir=tmp_path / "run", **QUICK)
    assert (run.recipe.task, run.labels) == ("token_classification", ["O", "B-colour"])
    assert run.evaluate(rows).keys() >= {"span_f1", "accuracy"}


@pytest.mark.slow
def test_questions_in_any_form_give_the_same_answers_after_saving_and_loading(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "rows.jsonl", ASKED)
    renamed = pandas.DataFrame(ASKED).rename(columns={"question": "q", "context": "c", "answers": "a"})
    pairs = [((row["question"], row["context"]), row["answers"]) for row in ASKED]
    forms: dict[str, tuple[Any, dict[str, Any]]] = {
        "frame": (pandas.DataFrame(ASKED), {}),
        "renamed": (renamed, {"question": "q", "context": "c", "answers": "a"}),
        "dataset": (Dataset.from_list(ASKED), {}),
        "pairs": (pairs, {"text": ["question", "context"], "label": "answers"}),
        "file": (str(file), {}),
    }
    asked = [(row["question"], row["context"]) for row in ASKED[:3]]
    answers = {}
    for form, (data, more) in forms.items():
        run = nlp_ft.fit(data, model=tiny_encoder, output_dir=tmp_path / form, max_length=24, stride=4, **QUICK, **more)
        assert run.recipe.task == "question_answering", form
        saved = run.save(tmp_path / f"{form}_copy")
        answers[form] = [(one.answer, one.score) for one in nlp_ft.load(saved.folder).predict(asked)]
        assert run.evaluate(data).keys() >= {"f1", "exact_match"}
    assert isinstance(run.predict(asked[0]), AnswerPrediction)
    assert all(found == answers["frame"] for found in answers.values())
    assert [one.answer for one in run.predict(pandas.DataFrame(ASKED[:3]))] == [text for text, _ in answers["file"]]
    with pytest.raises(DataError, match=r"^predict_proba needs a run that predicts labels; this run predicts answers"):
        run.predict_proba(asked)


def test_titles_of_questions_are_kept_so_that_validation_is_drawn_by_article(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    data = tiny_questions(140, 0)
    run = nlp_ft.fit(data, model=tiny_encoder, output_dir=tmp_path / "run", max_length=24, stride=4, **QUICK)
    kept = pandas.read_parquet(str(run.recipe.data.train))
    assert set(kept) == {"question", "context", "answers", "title"}
    # Seven articles of 20 questions: the share nearest to 10 % is one article.
    assert run.recipe.data.validation == "10%"
    assert run.summary["data"]["validation"]["rows"] == 20
    assert re.search(r"<td>validation</td>.*>exact match<|>exact match<.*<td>validation</td>", run._repr_html_())


def test_pairs_with_several_numbers_are_learned_and_come_back_by_name(tiny_encoder: Path, tmp_path: Path) -> None:
    frame = pandas.DataFrame({"a": ["the cat", "red"] * 10, "b": ["dog", "blue"] * 10})
    frame["near"], frame["far"] = np.linspace(0, 1, 20), np.linspace(5, 3, 20)
    more: dict[str, Any] = {"text": ["a", "b"], "label": ["near", "far"]}
    run = nlp_ft.fit(frame, model=tiny_encoder, output_dir=tmp_path / "run", **QUICK, **more)
    assert run.recipe.task == "text_regression"
    assert list(run.predict(("the cat", "dog"))) == ["near", "far"]
    assert run.predict(frame[:2]) == run.predict([("the cat", "dog"), ("red", "blue")])
    matrix = (list(zip(frame["a"], frame["b"], strict=True)), frame[["near", "far"]].to_numpy())
    again = nlp_ft.fit(matrix, model=tiny_encoder, output_dir=tmp_path / "matrix", text=["a", "b"], **QUICK)
    assert list(again.predict(("the cat", "dog")).values()) == list(run.predict(("the cat", "dog")).values())


def test_columns_of_a_file_are_seen_as_those_of_a_frame(
    tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FRAME_OF_COLUMNS.to_csv(tmp_path / "rows.csv", index=False)
    settings = {**QUICK, "level": "bar"}
    run = nlp_ft.fit(tmp_path / "rows.csv", label=LABELS, model=tiny_encoder, output_dir=tmp_path / "run", **settings)
    assert (run.recipe.task, run.labels) == ("multi_label_classification", LABELS)
    said = " ".join(capsys.readouterr().out.split())
    assert "because 3 columns hold 0 and 1: animal, colour, size; task=... says otherwise" in said


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        ({"text": ["a"], "x": ["no"], "y": [1]}, {"label": ["x", "y"]}, "column 'x' holds 'no'; several label columns"),
        ({"text": ["a"], "x": [1]}, {"label": ["x", "y"]}, "data has no column 'y'; its columns are: text, x"),
        (
            (["a", "b"], [[1, 0], [1]]),
            {"label": ["x", "y"]},
            r"data: the label of row 1 \(from 0\) must be a list of 2",
        ),
        ({"text": [["a"]], "label": ["x"]}, {}, ".*label.* not of lists of strings"),
        ({"text": [["a", "b"]], "label": [["O"]]}, {}, r"data: row 0 \(from 0\) has 2 word\(s\) and 1 tag\(s\)"),
        ({"tokens": [["a"]], "y": [["O"]]}, {}, "data has no column 'text'; its columns are: tokens, y"),
        ({"text": ["a"], "label": [{"x": 1}]}, {}, "column 'label' holds struct.*, in which no task can be seen"),
        ({"text": ["a"], "label": ["x"]}, {"label": []}, "fit: text and label must each name a column, or several"),
        ({"question": ["a"], "context": ["b"]}, {"question": "question"}, "data has no column 'answers'"),
        (
            {"question": ["a"], "context": ["b"], "answer": ["b"]},
            {},
            "data has no column 'answers'.*did you mean answer",
        ),
        ({"text": ["a"], "label": ["x"]}, {"label": None}, "fit: text and label must each name a column, or several"),
        (
            pandas.DataFrame([["a", None], ["b", "x"]]),
            {"text": 0, "label": 1},
            "1 row.s. of train have no label in .* '1'",
        ),
        (
            [{"question": "a", "context": "b c c", "answers": {"text": ["c"], "answer_start": [0]}}],
            {},
            ".*answer_start 0 is wrong: the context has 'b' there, and the answer is 'c', which begins at 2, 4",
        ),
        (ASKED, {"text": "words"}, "fit: text is no key of data under question_answering; its keys: source, "),
        (
            (TEXTS, LISTS),
            {"task": "text_regression"},
            "train: data.label is 'label', a column of List.*, not of numbers",
        ),
        (
            pandas.DataFrame({"text": TEXTS, "label": [1.0] * 50}),
            {"task": "question_answering"},
            "data has no column 'q",
        ),
    ],
)
def test_what_does_not_fit_is_one_message(
    data: Any, more: dict[str, Any], message: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(NlpFtError, match=f"^{message}") as found:
        nlp_ft.fit(data, model=tiny_encoder, output_dir=tmp_path / "run", **QUICK, **more)
    assert isinstance(found.value, DataError | RecipeError)
    # The rows that were written for it are gone, too.
    assert list(tmp_path.iterdir()) == []
    assert "\n" not in re.sub(r"\n$", "", str(found.value))


def test_texts_without_a_word_of_two_letters_have_a_baseline_too(tiny_encoder: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "baselines": True}
    rows = (["a", "b", "a"], ["x", "y", "x"])
    run = nlp_ft.fit(rows, validation=rows, model=tiny_encoder, output_dir=tmp_path / "run", **settings)
    # All that such a model knows is that x is more frequent.
    found = {name: scores["accuracy"] for name, scores in run.summary["baselines"]["validation"].items()}
    assert found == {"majority": 2 / 3, "tfidf_logistic_regression": 2 / 3}


def test_lists_of_candidates_are_multiple_choice(tmp_path: Path, tiny_encoder: Path) -> None:
    data = {
        "text": ["the cat", "red"] * 8,
        "candidates": [["sleeps", "runs"], ["the", "small", "dog"]] * 8,
        "label": [0, 2] * 8,
    }
    run = nlp_ft.fit(data, model=str(tiny_encoder), output_dir=str(tmp_path / "run"), **QUICK)
    assert run.recipe.task == "multiple_choice"
    choice = run.predict(("the cat", ["sleeps", "runs"]))
    assert choice.candidates == ("sleeps", "runs")
    assert sum(choice.scores) == pytest.approx(1)
    assert [found.candidates for found in run.predict(pandas.DataFrame(data).head(2))] == [
        ("sleeps", "runs"),
        ("the", "small", "dog"),
    ]
    with pytest.raises(DataError, match="predict_proba needs a run that predicts labels; this run chooses among"):
        run.predict_proba([("the cat", ["sleeps", "runs"])])


def test_a_table_with_a_column_for_each_candidate_is_predicted_as_the_inputs_in_it(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    frame = pandas.DataFrame(
        {"sent1": ["the cat", "red"] * 8, "sent2": "the", "ending0": "eats", "ending1": "big dog", "label": [0, 1] * 8}
    )
    run = nlp_ft.fit(frame, model=str(tiny_encoder), output_dir=str(tmp_path / "run"), **QUICK)
    inputs = [(prompt, ["eats", "big dog"]) for prompt in ("the cat the", "red the")]
    assert [vars(one) for one in run.predict(frame.head(2))] == [vars(one) for one in run.predict(inputs)]
    with pytest.raises(DataError, match=r"^the input: row 1 \(from 0\): candidate 1 \(from 0\) is empty"):
        run.predict(frame.assign(ending1=["dog", ""] * 8))
