"""The estimator of choices: rows as pairs or as columns, candidates of different numbers, and what it refuses."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.metrics import accuracy_score
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import check_estimator

from nlp_ft.errors import DataError
from nlp_ft.integrations.sklearn import MultipleChoiceClassifier, TextClassifier
from tests.tiny_choices import tiny_choices

SETTINGS: dict[str, Any] = {"duration": "40st", "lr": 5e-3, "max_length": 16, "settings": {"precision": "fp32"}}


@pytest.fixture(scope="module")
def chooser(tiny_encoder: Path) -> MultipleChoiceClassifier:
    """An estimator that is not fitted."""
    return MultipleChoiceClassifier(str(tiny_encoder), **SETTINGS)


def rows_of(num_rows: int) -> tuple[list[tuple[str, list[str]]], list[int]]:
    rows = tiny_choices(num_rows, 0)
    return [(row["text"], row["candidates"]) for row in rows], [row["label"] for row in rows]


def test_it_chooses_by_index_and_gives_a_probability_to_each_candidate(chooser: MultipleChoiceClassifier) -> None:
    X, y = rows_of(60)  # noqa: N806
    fitted = clone(chooser).fit(X, y)
    assert fitted.classes_.tolist() == [0, 1, 2, 3]
    assert fitted.run_.recipe.task == "multiple_choice"
    choices = fitted.run_.predict(X)
    predicted = fitted.predict(X)
    assert predicted.tolist() == [choice.index for choice in choices]
    assert fitted.score(X, y) == accuracy_score(y, predicted) > 0.5
    probabilities = fitted.predict_proba(X)
    assert probabilities.shape == (60, 4)
    assert probabilities.sum(1) == pytest.approx(np.ones(60), abs=1e-5)
    for row, (_, candidates) in zip(probabilities, X, strict=True):
        assert not row[len(candidates) :].any()
    content = pickle.dumps(fitted)
    shutil.rmtree(fitted.run_.folder)
    assert pickle.loads(content).predict(X).tolist() == predicted.tolist()  # noqa: S301


def test_columns_are_read_as_the_prompt_and_a_candidate_each(chooser: MultipleChoiceClassifier) -> None:
    frame = pandas.DataFrame({"prompt": ["the cat", "red"] * 8, "a": ["cat", "red"] * 8, "b": ["dog", "blue"] * 8})
    fitted = clone(chooser).set_params(duration="2st").fit(frame, [0, 0] * 8)
    as_pairs = [(prompt, [a, b]) for prompt, a, b in frame.itertuples(index=False)]
    assert fitted.predict_proba(frame).tolist() == fitted.predict_proba(as_pairs).tolist()
    scores = cross_val_score(clone(fitted), as_pairs, [0, 1] * 8, cv=2)
    assert scores.shape == (2,)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ("a", [0], "X must be a list of .*; got str"),
        ([("a", ["b"])] * 2, [0, 0], r"row 0 \(from 0\) of X must be a prompt with two candidates or more"),
        ([("a", ["b", "c"]), ("a", ["b", None])], [0, 0], r"row 1 \(from 0\) of X must be a prompt"),
        (["ab", "cd"], [0, 0], r"row 0 \(from 0\) of X must be a prompt"),
        ([("a", ["b", "c"])] * 2, ["b", "c"], "y must hold the index of the right candidate of each row"),
        ([("a", ["b", "c"])] * 2, [0, 2], r"row 1 \(from 0\): label 2 is out of range"),
        ([("a", ["b", "c"])] * 2, [0], "inconsistent numbers of samples"),
        ([], [], r"X has 0 sample\(s\)"),
    ],
)
def test_what_is_no_choice_is_refused(X: Any, y: Any, message: str, chooser: MultipleChoiceClassifier) -> None:  # noqa: N803
    with pytest.raises(ValueError, match=message):
        clone(chooser).fit(X, y)


def test_the_checks_of_scikit_learn_that_need_no_numbers_pass(chooser: MultipleChoiceClassifier) -> None:
    check_estimator(clone(chooser), on_skip=None)


def test_a_setting_is_given_once_and_labels_are_whole_and_there(tiny_encoder: Path) -> None:
    X = ["the cat", "red"] * 8  # noqa: N806
    with pytest.raises(DataError, match=r"^lr is given twice, as a parameter and in settings; give one"):
        TextClassifier(str(tiny_encoder), lr=1e-3, settings={"lr": 1e-4}).fit(X, [0, 1] * 8)
    with pytest.raises(DataError, match=r"^y has no label in row 3 \(from 0\), but None; remove the row"):
        TextClassifier(str(tiny_encoder)).fit(X, ["a", "b", "a", None, *["a", "b"] * 6])
    with pytest.raises(DataError, match=r"^y has only one class, 'a'; a classifier needs two"):
        TextClassifier(str(tiny_encoder)).fit(X, ["a"] * 16)
    y = pandas.array([3, 7] * 8, dtype="Int64")
    found = TextClassifier(str(tiny_encoder), duration="2st").fit(X, y)
    assert (found.classes_.tolist(), found.predict(X).dtype) == ([3, 7], np.dtype("int64"))
