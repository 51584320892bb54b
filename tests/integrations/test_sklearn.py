"""The estimators of scikit-learn on a tiny encoder: alone, and inside of scikit-learn's own tools."""

import copy
import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from nlp_ft.api.run import Run
from nlp_ft.errors import DataError, NlpFtError
from nlp_ft.integrations.sklearn import EXPECTED_FAILURES, TextClassifier, TextRegressor, TokenClassifier
from tests.docs.blocks import ROOT
from tests.integrations.sklearn_numbers import NumberClassifier, NumberRegressor
from tests.tiny import write_tiny_csv
from tests.tiny_words import tagged_rows

SETTINGS: dict[str, Any] = {"duration": "60st", "lr": 1e-2, "settings": {"precision": "fp32"}}


OTHER_LABELS: list[list[Any]] = [[True, False, True], [1.0, 2.0, 10.0], [" a", "b", "c"]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pandas.DataFrame:
    return pandas.read_csv(write_tiny_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 60))


@pytest.fixture(scope="module")
def estimator(tiny_encoder: Path) -> TextClassifier:
    """An estimator that is not fitted."""
    return TextClassifier(str(tiny_encoder), **SETTINGS)


@pytest.fixture(scope="module")
def fitted(estimator: TextClassifier, rows: pandas.DataFrame) -> TextClassifier:
    return clone(estimator).fit(rows["text"], rows["label"])


def test_predictions_are_labels_and_probabilities_in_the_order_of_classes(
    fitted: TextClassifier, rows: pandas.DataFrame
) -> None:
    assert fitted.classes_.tolist() == ["animal", "colour", "size"]
    probabilities = fitted.predict_proba(rows["text"])
    assert probabilities.shape == (60, 3)
    assert probabilities.sum(1) == pytest.approx(np.ones(60))
    predicted = fitted.predict(list(rows["text"]))
    assert predicted.tolist() == fitted.classes_[probabilities.argmax(1)].tolist()
    assert predicted.tolist() == [one.label for one in fitted.run_.predict(rows["text"])]
    assert fitted.score(rows["text"], rows["label"]) == accuracy_score(rows["label"], predicted) > 0.9


@pytest.mark.parametrize(
    "labels", [[-5, 20, 7], *(pytest.param(labels, marks=pytest.mark.slow) for labels in OTHER_LABELS)]
)
def test_labels_of_any_kind_come_back_as_they_were(
    labels: list[Any], estimator: TextClassifier, rows: pandas.DataFrame
) -> None:
    y = np.array([labels[number % 3] for number in range(len(rows))])
    found = clone(estimator).set_params(duration="2st").fit(rows["text"], y)
    assert found.classes_.tolist() == sorted(set(labels))
    assert found.predict(rows["text"]).dtype == y.dtype


def test_texts_of_numbers_that_sort_otherwise_than_the_numbers_are_labels(estimator: TextClassifier) -> None:
    words = ["the", "cat", "dog", "bird", "red", "green", "blue", "big", "small", "cold", "warm"]
    y = np.array([str(number) for number in range(11)] * 4)
    found = clone(estimator).fit(words * 4, y)
    assert found.classes_.tolist()[:4] == ["0", "1", "10", "2"]
    assert found.run_.labels == [str(number) for number in range(11)]
    predicted = found.predict(words)
    assert predicted.tolist() == [one.label for one in found.run_.predict(words)]
    assert (predicted == y[:11]).mean() > 0.5


def test_clone_and_parameters_are_those_of_scikit_learn(fitted: TextClassifier) -> None:
    copy = clone(fitted).set_params(lr=1e-3)
    assert (copy.get_params()["lr"], fitted.get_params()["lr"]) == (1e-3, 1e-2)
    with pytest.raises(NotFittedError):
        copy.predict(["red"])


def test_a_pickle_needs_no_folder_beside_it(estimator: TextClassifier, rows: pandas.DataFrame) -> None:
    first = clone(estimator).set_params(duration="2st").fit(rows["text"], rows["label"])
    expected, folder = first.predict_proba(["red", "the cat"]), first.run_.folder
    content = pickle.dumps(first)
    del first
    shutil.rmtree(folder, ignore_errors=True)
    again = pickle.loads(content)  # noqa: S301
    assert again.run_.folder != folder
    assert again.predict_proba(["red", "the cat"]).tolist() == expected.tolist()


def test_a_temporary_run_folder_goes_with_the_estimator_and_a_named_one_stays(
    estimator: TextClassifier, rows: pandas.DataFrame, tmp_path: Path
) -> None:
    short = clone(estimator).set_params(duration="2st")
    folder = clone(short).fit(rows["text"], rows["label"]).run_.folder
    assert not folder.exists()
    named = clone(short).set_params(output_dir=tmp_path / "run")
    for _ in range(2):
        assert named.fit(rows["text"], rows["label"]).run_.folder == tmp_path / "run"
    del named
    assert (tmp_path / "run/model.safetensors").exists()


@pytest.mark.slow
def test_two_fits_give_the_same_numbers_and_another_seed_gives_others(
    estimator: TextClassifier, rows: pandas.DataFrame
) -> None:
    short = clone(estimator).set_params(duration="2st")

    def probabilities(random_state: Any) -> list[list[float]]:
        model = clone(short).set_params(random_state=random_state).fit(rows["text"], rows["label"])
        found: list[list[float]] = model.predict_proba(["red"]).tolist()
        return found

    assert probabilities(None) == probabilities(0) != probabilities(1)


@pytest.mark.slow
def test_grid_search_and_cross_validation(estimator: TextClassifier, rows: pandas.DataFrame) -> None:
    search = GridSearchCV(clone(estimator), {"lr": [1e-6, 1e-2]}, cv=2).fit(rows["text"], rows["label"])
    assert search.best_params_ == {"lr": 1e-2}
    assert search.best_score_ > search.cv_results_["mean_test_score"][0]
    scores = cross_val_score(clone(estimator), list(rows["text"]), rows["label"], cv=2)
    assert scores.mean() == search.best_score_


@pytest.mark.slow
def test_pipeline_voting_and_calibration(estimator: TextClassifier, rows: pandas.DataFrame) -> None:
    texts, labels = rows["text"].str.upper().to_frame(), rows["label"]
    lower = FunctionTransformer(lambda table: table.apply(lambda column: column.str.lower()))
    pipe = make_pipeline(lower, clone(estimator)).set_output(transform="pandas").fit(texts, labels)
    assert pipe.score(texts, labels) > 0.9
    words = make_pipeline(TfidfVectorizer(), LogisticRegression())
    voting = VotingClassifier([("encoder", clone(estimator)), ("words", words)], voting="soft")
    assert voting.fit(rows["text"], labels).score(rows["text"], labels) > 0.9
    calibrated = CalibratedClassifierCV(clone(estimator), cv=2).fit(rows["text"], labels)
    assert calibrated.predict_proba(rows["text"]).sum(1) == pytest.approx(np.ones(60))


@pytest.mark.slow
def test_pairs_of_texts_and_a_regression(tiny_encoder: Path) -> None:
    pairs = pandas.DataFrame(
        {"one": ["the cat", "red", "big", "the dog"] * 5, "other": ["cat", "cold", "big", "cat"] * 5}
    )
    y = np.array([0.9, 0.1, 1.0, 0.5] * 5)
    model = TextRegressor(str(tiny_encoder), **SETTINGS).fit(pairs, y)
    predicted = model.predict(pairs)
    assert (predicted.shape, predicted.dtype.name, model.n_features_in_) == ((20,), "float64", 2)
    assert model.score(pairs, y) == r2_score(y, predicted)
    with pytest.raises(DataError, match="X has 1 features, but TextRegressor is expecting 2 features as input"):
        model.predict(["the cat"])


@pytest.mark.parametrize(
    ("X", "y", "more", "message"),
    [
        ("a text", ["a"], {}, "X must be texts: a list, an array or a column of them; got str"),
        ([], [], {}, r"X has 0 sample\(s\)"),
        (["a", None], ["a", "b"], {}, r"X must hold texts; row 1 \(from 0\) holds None"),
        (np.ones((2, 1)), ["a", "b"], {}, r"X must hold texts; row 0 \(from 0\) holds 1.0"),
        ([["a", "b", "c"]], ["a"], {}, r"got shape \(1, 3\)"),
        (["a", "b"], ["a", "a"], {}, "y has only one class"),
        (["a", "b"], ["a"], {}, "inconsistent numbers of samples"),
        (["a", "b"], [0.5, 1.5], {}, "Unknown label type"),
        (["a", "b"], None, {}, "requires y to be passed"),
        (["a", "b"], ["a", "b"], {"sample_weight": [1, 2]}, "sample_weight: the loss weights classes, not rows"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    X: Any,  # noqa: N803
    y: Any,
    more: dict[str, Any],
    message: str,
    estimator: TextClassifier,
) -> None:
    with pytest.raises(ValueError, match=message):
        clone(estimator).fit(X, y, **more)


@pytest.fixture(scope="module")
def tagged() -> tuple[list[list[str]], list[list[str]]]:
    rows = tagged_rows(60)
    return [row["tokens"] for row in rows], [row["ner_tags"] for row in rows]


@pytest.fixture(scope="module")
def tagger(tiny_encoder: Path) -> TokenClassifier:
    """A tagger that is not fitted."""
    return TokenClassifier(str(tiny_encoder), **SETTINGS)


def test_a_tagger_gives_each_word_a_tag_and_scores_whole_spans(
    tagger: TokenClassifier, tagged: tuple[list[list[str]], list[list[str]]]
) -> None:
    words, tags = tagged
    fitted = clone(tagger).fit(words, tags)
    assert fitted.classes_.tolist() == ["O", "B-animal", "I-animal", "B-colour"]
    predicted = fitted.predict(words)
    assert [len(row) for row in predicted] == [len(row) for row in words]
    assert {tag for row in predicted for tag in row} <= set(fitted.classes_)
    # The same rows as an evaluation of the run; a tag that the model does not know is a span that it misses.
    assert fitted.score(words, tags) == fitted.run_.evaluate((words, tags))["span_f1"] > 0.7
    assert fitted.score([["cat"], ["dog"]], [["B-animal"], ["B-place"]]) == 0.5
    content = pickle.dumps(fitted)
    shutil.rmtree(fitted.run_.folder)
    again = pickle.loads(content)  # noqa: S301
    assert again.predict(words) == predicted
    assert (again.classes_.tolist(), again.n_features_in_) == (fitted.classes_.tolist(), 1)
    with pytest.raises(NotFittedError):
        clone(fitted).predict(words)


@pytest.mark.slow
def test_a_tagger_goes_through_grid_search_and_cross_validation(
    tagger: TokenClassifier, tagged: tuple[list[list[str]], list[list[str]]]
) -> None:
    search = GridSearchCV(clone(tagger), {"lr": [1e-6, 1e-2]}, cv=2).fit(*tagged)
    assert search.best_params_ == {"lr": 1e-2}
    assert search.best_score_ > search.cv_results_["mean_test_score"][0]
    assert cross_val_score(clone(tagger), *tagged, cv=2).mean() == search.best_score_


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ("a text", ["O"], "X must be a list of lists of texts; got str"),
        (["a", "b"], [["O"], ["O"]], r"X must hold lists of texts, one for each word; row 0 \(from 0\) is 'a'"),
        ([["a"]], [[1]], r"y must hold lists of texts, one for each word; row 0 \(from 0\) is \[1\]"),
        ([], [], r"X has 0 sample\(s\)"),
        ([["a"]], None, "requires y to be passed"),
        ([["a"]], [["O"], ["O"]], "inconsistent numbers of samples"),
        ([["a", "b"]] * 2, [["O"], ["O"]], r"row 0 \(from 0\) has 2 word\(s\) and 1 tag\(s\)"),
    ],
)
def test_what_is_no_list_of_words_is_refused(
    X: Any,  # noqa: N803
    y: Any,
    message: str,
    tagger: TokenClassifier,
) -> None:
    with pytest.raises(ValueError, match=message):
        clone(tagger).fit(X, y)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [NumberClassifier, NumberRegressor])
def test_the_checks_of_scikit_learn_pass_behind_an_input_of_numbers_but_those_that_are_listed(
    kind: Any, tiny_encoder: Path
) -> None:
    estimator = kind(str(tiny_encoder), duration="2st", settings={"precision": "fp32"})
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    assert failed == set(EXPECTED_FAILURES)
    assert sum(result["status"] == "passed" for result in results) > 30


@pytest.mark.parametrize("kind", [TextClassifier, TextRegressor, TokenClassifier])
def test_the_checks_of_scikit_learn_that_need_no_numbers_pass(kind: Any, tiny_encoder: Path) -> None:
    check_estimator(kind(str(tiny_encoder)), on_skip=None)


def test_the_page_lists_every_check_that_fails() -> None:
    page = (ROOT / "docs/from-python.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^- `(check_\w+)`", page, re.MULTILINE)) == set(EXPECTED_FAILURES)


def test_an_estimator_whose_folder_another_run_has_replaced_is_refused(fitted: TextClassifier, tmp_path: Path) -> None:
    other = copy.copy(fitted)
    other.run_ = Run(shutil.copytree(fitted.run_.folder, tmp_path / "run"))
    file = tmp_path / "run" / "summary.json"
    file.write_text(json.dumps({**other.run_.summary, "total_seconds": 1.5}), encoding="utf-8")
    for use in (lambda: other.predict(["a red cat"]), lambda: pickle.dumps(other)):
        with pytest.raises(NlpFtError, match=r"holds another run by now; give each run an output_dir of its own$"):
            use()
    other.run_ = Run(tmp_path / "run")
    assert other.predict(["a red cat"]) == fitted.predict(["a red cat"])


def test_settings_are_a_mapping() -> None:
    with pytest.raises(DataError, match=r"settings must be a mapping, such as .*, got 'mean'$"):
        TextClassifier("bert", settings="mean").fit(["a", "b"], [0, 1])  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_setting_that_is_none_is_refused_by_fit_and_equal_weights_are_taken(
    estimator: TextClassifier, rows: pandas.DataFrame
) -> None:
    with pytest.raises(NlpFtError, match="fit: poolin is no setting; did you mean pooling"):
        clone(estimator).set_params(settings={"poolin": "mean"}).fit(rows["text"], rows["label"])
    clone(estimator).set_params(duration="2st").fit(rows["text"], rows["label"], sample_weight=np.full(60, 2.0))
